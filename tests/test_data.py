import gzip
import hashlib
import os
import warnings
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from mnistae import data

REAL = data.ROOT / "data"
NAMES = list(data.CONTENTS)  # training images, training labels, test images, test labels


def numbers(name):
    """What a file of the small MNIST of these tests holds: 30 training and 20 test images."""
    n = 30 if name.startswith("train") else 20
    if "labels" in name:
        return torch.arange(n, dtype=torch.uint8) % 10
    return torch.randint(256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(n)).to(torch.uint8)


def unpacked(name):
    return bytes(8 if "labels" in name else 16) + numbers(name).numpy().tobytes()


def store(place, ending=".gz", dotted=False, names=NAMES):
    """Write the four files of the small MNIST as some course server or tool would leave them."""
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        spelling = name.replace("-idx", ".idx") if dotted else name
        content = unpacked(name)
        (place / f"{spelling}{ending}").write_bytes(gzip.compress(content) if ending else content)


class NoNetwork:
    def __init__(self, *args, **kwargs):
        raise RuntimeError("no network in this test")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project's folder that a test may fill and harm; the small MNIST's digests; nothing to download."""
    monkeypatch.setattr(data, "CONTENTS", {name: hashlib.md5(unpacked(name)).hexdigest() for name in NAMES})
    monkeypatch.setattr(data, "VALIDATION_IMAGES", 10)
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr("torchvision.datasets.MNIST", NoNetwork)
    monkeypatch.delenv("MNISTAE_DATA", raising=False)
    data.load.cache_clear()
    yield tmp_path
    data.load.cache_clear()


@pytest.fixture
def raw(root):
    """The folder of four good archives, where torchvision leaves them."""
    store(root / "data" / "MNIST" / "raw")
    return root / "data" / "MNIST" / "raw"


def assert_is_the_small_mnist(loaded):
    assert loaded.name == "MNIST"
    images, labels, test_images, test_labels = (numbers(name) for name in NAMES)
    assert torch.equal(loaded.train.images, images[:20] / 255)
    assert torch.equal(loaded.validation.images, images[20:] / 255)
    assert torch.equal(loaded.test.images, test_images / 255)
    assert torch.equal(torch.cat([loaded.train.labels, loaded.validation.labels]), labels.long())
    assert torch.equal(loaded.test.labels, test_labels.long())


def test_the_splits_are_mnist_in_its_order(monkeypatch):
    monkeypatch.setenv("MNISTAE_DATA", str(REAL))
    if len(data._find(REAL)) < 4:
        pytest.skip("real test: MNIST is not in data/")
    loaded = data.load.__wrapped__()
    assert loaded.name == "MNIST"
    assert [len(split.labels) for split in loaded[:3]] == [55_000, 5_000, 10_000]
    for images, labels in loaded[:3]:
        assert images.shape == (len(labels), 1, 28, 28)
        assert images.dtype == torch.float32
        assert images.min() == 0
        assert images.max() == 1
        assert labels.unique().tolist() == list(range(10))
    assert loaded.train.labels[:5].tolist() == [5, 0, 4, 1, 9]  # as published
    assert loaded.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.parametrize("ending", [".gz", ""])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
@pytest.mark.parametrize("named", [None, "absolute", "relative", "~"])
def test_mnist_is_found_where_people_have_it(root, monkeypatch, ending, dotted, below, named):
    monkeypatch.setenv("HOME", str(root / "home"))
    folder = {None: root / "data", "~": root / "home" / "mnist"}.get(named, root / "some where")
    store(folder / below, ending, dotted)
    if named:
        value = {"absolute": str(folder), "relative": "some where", "~": "~/mnist"}[named]
        monkeypatch.setenv("MNISTAE_DATA", value)
    assert_is_the_small_mnist(data.load())
    assert not (root / "~").exists()


def test_half_a_set_in_each_of_two_places_is_a_set(root):
    store(root / "data", names=NAMES[:2])
    store(root / "data" / "MNIST" / "raw", ending="", dotted=True, names=NAMES[2:])
    assert_is_the_small_mnist(data.load())


def test_folders_named_like_the_files_do_not_deceive(root):
    store(root / "data", ending="", dotted=True)
    for name in NAMES:  # as in Kaggle's archive
        (root / "data" / name).mkdir()
    assert_is_the_small_mnist(data.load())


def test_a_folder_that_may_only_be_read_is_read(raw, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    for writer in ("write_bytes", "write_text", "mkdir", "unlink", "touch"):
        monkeypatch.setattr(Path, writer, refuse)
    monkeypatch.setattr(data.tempfile, "TemporaryDirectory", refuse)
    for path in (*raw.iterdir(), raw):
        os.chmod(path, 0o555)
    try:
        assert_is_the_small_mnist(data.load())
    finally:
        os.chmod(raw, 0o755)


@pytest.mark.parametrize("ending", [".gz", ""])
@pytest.mark.parametrize("harm", ["truncate", "flip", "zero"])
def test_a_damaged_file_is_named_with_its_cure(root, ending, harm):
    store(root / "data", ending)
    path = root / "data" / f"train-images-idx3-ubyte{ending}"
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[10_000] ^= 1
    path.write_bytes({"truncate": content[:-7], "flip": content, "zero": b""}[harm])
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte(\.gz)? is damaged.*delete it to download"):
        data.load()


def test_another_set_of_the_same_form_is_not_taken_for_mnist(raw, monkeypatch):
    monkeypatch.setitem(data.CONTENTS, "t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637")
    with pytest.raises(OSError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
        data.load()


@pytest.mark.parametrize("named", [False, True])
def test_one_missing_file_is_an_error_not_the_sample(raw, monkeypatch, named):
    if named:
        monkeypatch.setenv("MNISTAE_DATA", str(raw))
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"^t10k-labels-idx1-ubyte missing .*no network.*Copy the files"
    ):
        data.load()


def test_half_unpacked_files_beside_the_archives_do_not_deceive(raw):
    (raw / "train-images-idx3-ubyte").write_bytes(unpacked("train-images-idx3-ubyte")[:5_000])
    assert_is_the_small_mnist(data.load())


def test_a_typing_error_in_the_folder_s_name_leaves_nothing_behind(root, monkeypatch):
    monkeypatch.setenv("MNISTAE_DATA", "Sample")
    with pytest.raises(FileNotFoundError, match="set MNISTAE_DATA=sample"):
        data.load()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("source", ["files", "sample"])
def test_images_are_float32_on_the_cpu_whatever_the_defaults_are(raw, monkeypatch, source):
    if source == "sample":
        monkeypatch.setenv("MNISTAE_DATA", "sample")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = data.load().train.images
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert (images.dtype, images.device.type) == (torch.float32, "cpu")


@pytest.mark.parametrize("exists", [True, False])
def test_a_named_folder_without_mnist_is_an_error(root, monkeypatch, exists):
    if exists:
        (root / "empty").mkdir()
    monkeypatch.setenv("MNISTAE_DATA", "empty")
    with pytest.raises(FileNotFoundError) as caught:
        data.load()
    assert all(word in str(caught.value) for word in [*NAMES, str(root / "empty"), "MNIST/raw", "no network"])


def test_an_archive_that_cannot_be_read_is_named(raw, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(data.Path, "read_bytes", refuse)
    with pytest.raises(
        OSError, match=r"images-idx3-ubyte\.gz cannot be read: check who may read it .*Permission"
    ):
        data.load()


def downloader(monkeypatch, error=None):
    """A mirror that serves the archives; with `error` the line breaks in the middle of the second one."""

    class Mirror:
        def __init__(self, root, download):
            raw = Path(root) / "MNIST" / "raw"
            store(raw)
            store(raw, ending="")  # torchvision unpacks them too
            if error:
                (raw / f"{NAMES[1]}.gz").write_bytes(b"\x1f\x8b")
                raise error

    monkeypatch.setattr("torchvision.datasets.MNIST", Mirror)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("names", [[], NAMES[:3]])
def test_a_download_is_kept(root, monkeypatch, named, names):
    folder = root / "elsewhere" if named else root / "data"
    if named:
        monkeypatch.setenv("MNISTAE_DATA", str(folder))
    store(folder / "MNIST" / "raw", names=names)
    downloader(monkeypatch)
    assert_is_the_small_mnist(data.load())
    assert sorted(path.name for path in (folder / "MNIST" / "raw").iterdir()) == sorted(
        f"{n}.gz" for n in NAMES
    )


@pytest.mark.parametrize(
    "error", [URLError("cut"), ConnectionResetError("cut"), EOFError("cut"), OSError(28, "No space left")]
)
def test_a_download_cut_in_the_middle_leaves_nothing_behind(root, monkeypatch, error):
    downloader(monkeypatch, error)
    with pytest.warns(UserWarning, match=f"NOT RESULTS.*none can be downloaded.*{error.args[-1]}"):
        assert data.load().name == data.SAMPLE
    assert list(root.iterdir()) == [], "nor a folder"


def test_a_download_waits_twenty_seconds_and_leaves_the_setting_as_it_was(root, monkeypatch):
    seen = []

    class Hanging:
        def __init__(self, *args, **kwargs):
            seen.append(data.socket.getdefaulttimeout())
            raise TimeoutError("timed out")

    monkeypatch.setattr("torchvision.datasets.MNIST", Hanging)
    before = data.socket.getdefaulttimeout()
    with pytest.warns(UserWarning, match="NOT RESULTS"):
        data.load()
    assert seen == [20]
    assert data.socket.getdefaulttimeout() == before


def test_nothing_to_be_had_means_the_sample_and_says_so(root):
    with pytest.warns(
        UserWarning, match=r"NOT RESULTS.*no network.*training errors and no result.*four files into"
    ):
        assert data.load().name == data.SAMPLE


@pytest.fixture
def sample(root, monkeypatch):
    monkeypatch.setenv("MNISTAE_DATA", "sample")
    with pytest.warns(UserWarning, match="NOT RESULTS: MNISTAE_DATA asks for it"):
        return data.load()


def test_the_sample_wins_over_mnist_where_it_is_asked_for(raw, sample):
    assert sample.name == data.SAMPLE


def test_the_sample_is_5000_different_images_in_three_splits(sample):
    assert [len(split.labels) for split in sample[:3]] == [2_500, 500, 2_000]
    for images, labels in sample[:3]:
        assert images.shape == (len(labels), 1, 28, 28)
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert images.min() == 0
        assert images.max() == 1
        assert labels.bincount().min() > 0.8 * len(labels) / 10
        assert labels.bincount().max() < 1.2 * len(labels) / 10
    images = torch.cat([split.images for split in sample[:3]])
    assert len({image.numpy().tobytes() for image in images}) == 5_000
    assert torch.cat([split.labels for split in sample[:3]]).bincount().tolist() == [500] * 10


def test_the_sample_is_the_same_each_time_and_upright(sample):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = data.load.__wrapped__()
    assert all(torch.equal(a.images, b.images) for a, b in zip(sample[:3], again[:3], strict=True))
    ones = torch.cat([split.images[split.labels == 1] for split in sample[:3]]).mean(0)[0]
    rows, columns = ones.sum(1), ones.sum(0)
    assert columns.max() > 2 * rows.max()  # a one is tall


def test_the_sample_s_images_are_training_images_of_mnist(sample):
    if len(data._find(REAL)) < 4:
        pytest.skip("real test: MNIST is not in data/")
    path = data._find(REAL)["train-images-idx3-ubyte"]
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    first = {content[start : start + 784] for start in range(16, 16 + 55_000 * 784, 784)}
    for split in sample[:3]:
        assert all(image.mul(255).byte().numpy().tobytes() in first for image in split.images)


def test_draws_are_balanced_reproducible_and_different():
    labels = torch.arange(1000) % 10
    draw = data.balanced_draw(labels, 5, seed=1)
    assert labels[draw].bincount().tolist() == [5] * 10
    assert len(draw.unique()) == 50
    assert torch.equal(draw, data.balanced_draw(labels, 5, seed=1))
    assert not torch.equal(draw, data.balanced_draw(labels, 5, seed=2))
    assert [len(data.balanced_draw(labels, k, seed=1)) for k in (1, 100)] == [10, 1000]


def test_impossible_draws_name_value_and_limit():
    labels = torch.arange(100) % 10
    with pytest.raises(
        ValueError, match="per_class = 11: allowed is 1 to 10, the images of the rarest digit"
    ):
        data.balanced_draw(labels, 11, seed=0)
    with pytest.raises(ValueError, match="allowed is 1 to 0"):
        data.balanced_draw(labels[labels != 9], 1, seed=0)
    for bad in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match="allowed is 1 to 10"):
            data.balanced_draw(labels, bad, seed=0)


def test_distortions_are_small_reproducible_and_each_image_s_own():
    image = torch.zeros(1, 1, 28, 28)
    image[:, :, 8:20, 12:16] = 1
    images = image.expand(200, -1, -1, -1)
    moved = data.distorted(images, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(moved, data.distorted(images, 1.0, torch.Generator().manual_seed(0)))
    assert len({one.numpy().tobytes() for one in moved}) == 200
    assert (moved.mean((1, 2, 3)) / image.mean() - 1).abs().max() < 0.25
    still = data.distorted(images, 0.0, torch.Generator().manual_seed(0))
    assert torch.allclose(still, images, atol=1e-5)

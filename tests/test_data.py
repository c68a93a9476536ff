"""Loading makes four small archives of its own and needs neither MNIST nor a network."""

import gzip
import hashlib
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


class Mirror:
    """In place of torchvision: serves the archives; with an error the second one is cut in the middle."""

    error = None

    def __init__(self, root, download):
        raw = Path(root) / "MNIST" / "raw"
        Mirror.timeout = data.socket.getdefaulttimeout()
        store(raw)
        store(raw, ending="")  # torchvision unpacks them too
        if self.error:
            (raw / f"{NAMES[1]}.gz").write_bytes(b"\x1f\x8b")
            raise self.error


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project's folder that a test may fill and harm; the small MNIST's digests; nothing to download."""
    monkeypatch.setattr(data, "CONTENTS", {name: hashlib.md5(unpacked(name)).hexdigest() for name in NAMES})
    monkeypatch.setattr(data, "VALIDATION_IMAGES", 10)
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr("torchvision.datasets.MNIST", Mirror)
    monkeypatch.setattr(Mirror, "error", RuntimeError("no network"))
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


def assert_are_images(split):
    images, labels = split
    assert images.shape == (len(labels), 1, 28, 28)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (images.min(), images.max()) == (0, 1)
    shares = labels.bincount() / len(labels)
    assert len(shares) == 10
    assert 0.08 < shares.min() <= shares.max() < 0.12


def real_mnist():
    if len(data._find(REAL)) < 4:
        pytest.skip("real test: MNIST is not in data/")


def test_the_splits_are_mnist_in_its_order(monkeypatch):
    real_mnist()
    monkeypatch.setenv("MNISTAE_DATA", str(REAL))
    loaded = data.load.__wrapped__()
    assert loaded.name == "MNIST"
    assert [len(split.labels) for split in loaded[:3]] == [55_000, 5_000, 10_000]
    for split in loaded[:3]:
        assert_are_images(split)
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

    def written():
        return {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}

    before = written()
    assert_is_the_small_mnist(data.load())
    assert written() == before, "so a folder that may only be read is read"


def test_half_a_set_in_each_of_two_places_is_a_set_whatever_else_is_there(root):
    raw = root / "data" / "MNIST" / "raw"
    store(root / "data", names=NAMES[:2])
    store(raw, ending="", dotted=True, names=NAMES[2:])
    for name in NAMES:  # folders named like the files, as in Kaggle's archive
        (root / "data" / name).mkdir()
    (raw / NAMES[0]).write_bytes(unpacked(NAMES[0])[:5_000])  # archives take precedence
    assert_is_the_small_mnist(data.load())


@pytest.mark.parametrize("ending", [".gz", ""])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "of another set"])
def test_a_damaged_file_is_named_with_its_cure(root, ending, harm):
    store(root / "data", ending)
    path = root / "data" / f"train-images-idx3-ubyte{ending}"
    content, other = path.read_bytes(), bytes(len(unpacked(NAMES[0])))
    flipped = content[:10_000] + bytes([content[10_000] ^ 1]) + content[10_001:]
    other = gzip.compress(other) if ending else other
    harmed = {"truncated": content[:-7], "flipped": flipped, "empty": b"", "of another set": other}
    path.write_bytes(harmed[harm])
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte(\.gz)? is damaged.*delete it to download"):
        data.load()


@pytest.mark.parametrize("named", [False, True])
def test_one_missing_file_is_an_error_not_the_sample(raw, monkeypatch, named):
    if named:
        monkeypatch.setenv("MNISTAE_DATA", str(raw))
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    said = "^t10k-labels-idx1-ubyte missing .*no network.*Copy the files"
    with pytest.raises(FileNotFoundError, match=said):
        data.load()


@pytest.mark.parametrize("exists", [True, False])
def test_a_named_folder_without_mnist_is_an_error(root, monkeypatch, exists):
    """Such as "Sample" for "sample"; nothing is left behind."""
    if exists:
        (root / "Sample").mkdir()
    monkeypatch.setenv("MNISTAE_DATA", "Sample")
    with pytest.raises(FileNotFoundError, match="set MNISTAE_DATA=sample") as caught:
        data.load()
    assert all(word in str(caught.value) for word in (*NAMES, str(root / "Sample"), "no network"))
    assert list(root.rglob("*")) == [root / "Sample"] * exists


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


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("names", [[], NAMES[:3]])
def test_a_download_is_kept(root, monkeypatch, named, names):
    folder = root / "elsewhere" if named else root / "data"
    if named:
        monkeypatch.setenv("MNISTAE_DATA", str(folder))
    store(folder / "MNIST" / "raw", names=names)
    monkeypatch.setattr(Mirror, "error", None)
    assert_is_the_small_mnist(data.load())
    assert {path.name for path in (folder / "MNIST" / "raw").iterdir()} == {f"{n}.gz" for n in NAMES}


ERRORS = RuntimeError("refused"), URLError("cut"), TimeoutError("late"), EOFError("cut"), OSError(28, "full")


@pytest.mark.parametrize("error", ERRORS)
def test_a_download_that_fails_gives_the_sample_and_leaves_nothing_behind(root, monkeypatch, error):
    monkeypatch.setattr(Mirror, "error", error)
    said = f"NOT RESULTS.*none can be downloaded.*{error.args[-1]}.*training errors.*four files into"
    with pytest.warns(UserWarning, match=said):
        assert data.load().name == data.SAMPLE
    assert list(root.iterdir()) == [], "nor a folder"
    assert (Mirror.timeout, data.socket.getdefaulttimeout()) == (20, None), "seconds while it downloads"


@pytest.fixture
def sample(raw, monkeypatch):
    monkeypatch.setenv("MNISTAE_DATA", "sample")
    with pytest.warns(UserWarning, match="NOT RESULTS: MNISTAE_DATA asks for it"):
        return data.load()


def test_the_sample_is_5000_different_images_in_three_splits_always_the_same(sample):
    assert sample.name == data.SAMPLE
    assert [len(split.labels) for split in sample[:3]] == [2_500, 500, 2_000]
    for split in sample[:3]:
        assert_are_images(split)
    images = torch.cat([split.images for split in sample[:3]])
    assert len({image.numpy().tobytes() for image in images}) == 5_000
    labels = torch.cat([split.labels for split in sample[:3]])
    assert labels.bincount().tolist() == [500] * 10
    ones = images[labels == 1].mean(0)[0]
    assert ones.sum(0).max() > 2 * ones.sum(1).max(), "upright: a one is tall"
    with pytest.warns(UserWarning, match="NOT RESULTS"):
        again = data.load.__wrapped__()
    assert torch.equal(images, torch.cat([split.images for split in again[:3]]))


def test_the_sample_s_images_are_training_images_of_mnist(sample):
    real_mnist()
    path = data._find(REAL)["train-images-idx3-ubyte"]
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    first = {content[start : start + 784] for start in range(16, 16 + 55_000 * 784, 784)}
    for split in sample[:3]:
        assert all(image.mul(255).byte().numpy().tobytes() in first for image in split.images)


def test_random_choices_of_images_are_balanced_reproducible_and_different():
    labels = torch.arange(1000) % 10
    chosen = data.balanced_draw(labels, 5, seed=1)
    assert labels[chosen].bincount().tolist() == [5] * 10
    assert len(chosen.unique()) == 50
    assert torch.equal(chosen, data.balanced_draw(labels, 5, seed=1))
    assert not torch.equal(chosen, data.balanced_draw(labels, 5, seed=2))
    assert [len(data.balanced_draw(labels, k, seed=1)) for k in (1, 100)] == [10, 1000]


@pytest.mark.parametrize("per_class", [11, 0, -1, 2.5, "3"])
def test_impossible_choices_name_value_and_limit(per_class):
    labels = torch.arange(100) % 10
    with pytest.raises(ValueError, match=f"per_class={per_class!r}: allowed is 1 to 10, the images"):
        data.balanced_draw(labels, per_class, seed=0)
    with pytest.raises(ValueError, match="allowed is 1 to 0"):
        data.balanced_draw(labels[labels != 9], 1, seed=0)


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

import gzip
import shutil
from urllib.error import URLError

import pytest
import torch
from torchvision.datasets import MNIST

from mnistae import data

RAW = data.ROOT / "data" / "MNIST" / "raw"
needs_mnist = pytest.mark.skipif(not RAW.exists(), reason="MNIST is not in data/")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the archives that a test may harm; nothing can be downloaded."""

    def refuse(*args, **kwargs):
        raise RuntimeError("no network in this test")

    monkeypatch.setattr(
        data, "MNIST", type("NoNetwork", (), {"resources": MNIST.resources, "__init__": refuse})
    )
    monkeypatch.setenv("MNISTAE_DATA", str(tmp_path))
    if RAW.exists():
        shutil.copytree(RAW, tmp_path / "MNIST" / "raw")
    data.load.cache_clear()
    yield tmp_path / "MNIST" / "raw"
    data.load.cache_clear()


@needs_mnist
def test_splits_are_mnist_in_its_order(folder):
    loaded = data.load()
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


@needs_mnist
@pytest.mark.parametrize("harm", ["truncate", "flip", "zero"])
def test_damaged_archive_is_named_with_its_cure(folder, harm):
    archive = folder / "train-images-idx3-ubyte.gz"
    content = bytearray(archive.read_bytes())
    if harm == "flip":
        content[1_000_000] ^= 1
    archive.write_bytes({"truncate": content[:-7], "flip": content, "zero": b""}[harm])
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte\.gz is damaged.*Delete it"):
        data.load()


@needs_mnist
def test_one_missing_archive_is_an_error_not_a_stand_in(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte\.gz is missing"):
        data.load()


@needs_mnist
def test_half_unpacked_files_beside_the_archives_do_not_deceive(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(
        gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[:5000]
    )
    assert len(data.load().train.labels) == 55_000


def test_nothing_to_be_had_means_the_stand_in_and_says_so(folder):
    if folder.exists():
        shutil.rmtree(folder)
    with pytest.warns(UserWarning, match="NOT MNIST"):
        loaded = data.load()
    assert loaded.name == data.STAND_IN
    assert [len(split.labels) for split in loaded[:3]] == [9 * 1_197, 200, 400]  # each moved nine ways
    assert [len(split.images) for split in loaded[:3]] == [9 * 1_197, 200, 400]
    assert all(split.images.min() >= 0 and split.images.max() <= 1 for split in loaded[:3])
    assert loaded.train.images.shape[1:] == (1, 28, 28)


def downloader(folder, monkeypatch, error=None):
    """A mirror that serves the archives; with `error` the line breaks in the middle of the second one."""

    class Mirror:
        resources = MNIST.resources

        def __init__(self, root, download):
            raw = data.Path(root) / "MNIST" / "raw"
            raw.mkdir(parents=True)
            for n, (name, _) in enumerate(self.resources):
                content = (RAW / name).read_bytes()
                (raw / name).write_bytes(content[: 1_000 if error and n else None])
                if error and n:
                    raise error

    monkeypatch.setattr(data, "MNIST", Mirror)
    shutil.rmtree(folder)


@needs_mnist
def test_a_download_is_verified_and_kept(folder, monkeypatch):
    downloader(folder, monkeypatch)
    assert data.load().name == "MNIST"
    assert sorted(path.name for path in folder.iterdir()) == sorted(name for name, _ in MNIST.resources)


@needs_mnist
@pytest.mark.parametrize("error", [URLError("cut"), ConnectionResetError("cut"), EOFError("cut")])
def test_a_download_cut_in_the_middle_leaves_nothing_behind(folder, monkeypatch, error):
    downloader(folder, monkeypatch, error)
    with pytest.warns(UserWarning, match="NOT MNIST.*none can be downloaded"):
        assert data.load().name == data.STAND_IN
    assert list(folder.iterdir()) == []


@needs_mnist
def test_no_room_for_the_download_is_an_error_with_its_cure(folder, monkeypatch):
    downloader(folder, monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match=r"cannot be stored in .*No space left.*MNISTAE_DATA"):
        data.load()
    assert list(folder.iterdir()) == []


@needs_mnist
def test_an_archive_that_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(data, "check_integrity", refuse)
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte\.gz cannot be read.*permissions"):
        data.load()


def test_the_stand_in_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("MNISTAE_DATA", "stand-in")
    data.load.cache_clear()
    with pytest.warns(UserWarning, match="MNISTAE_DATA asks for it"):
        assert data.load().name == data.STAND_IN
    data.load.cache_clear()


def test_draws_are_balanced_reproducible_and_different():
    labels = torch.arange(1000) % 10
    draw = data.balanced_draw(labels, 5, seed=1)
    assert labels[draw].bincount().tolist() == [5] * 10
    assert len(draw.unique()) == 50
    assert torch.equal(draw, data.balanced_draw(labels, 5, seed=1))
    assert not torch.equal(draw, data.balanced_draw(labels, 5, seed=2))


def test_impossible_draws_name_value_and_limit():
    labels = torch.arange(100) % 10
    with pytest.raises(ValueError, match=r"per_class = 11.*only 10 images of digit 0.*at most 10"):
        data.balanced_draw(labels, 11, seed=0)
    with pytest.raises(ValueError, match="only 0 images of digit 9"):
        data.balanced_draw(labels[labels != 9], 1, seed=0)
    for bad in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match="allowed is a whole number from 1"):
            data.balanced_draw(labels, bad, seed=0)

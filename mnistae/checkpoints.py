"""One trained network, one safetensors file: named by its config, checksummed, written atomically."""

import hashlib
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mnistae import data
from mnistae.config import Config

Weights = dict[str, Tensor]


class CheckpointError(RuntimeError):
    """A file that is not what it should be; the message names it and says how to retrain."""


def folder(dataset: str) -> Path:
    """The folder of what was trained on a data set; the embedded sample's is outside git."""
    return data.ROOT / ("report/build/sample" if dataset == data.SAMPLE else "checkpoints")


def path(config: Config) -> Path:
    """A config's file, there already or not. On the embedded sample, networks trained on MNIST serve too."""
    of_mnist = folder("MNIST") / f"{config.name}.safetensors"
    return of_mnist if of_mnist.exists() else folder(data.load().name) / of_mnist.name


def packed(config: Config, weights: Weights, about: dict[str, Any]) -> bytes:
    """The content of a checkpoint: weights, the config and its data set, and what else is known of them."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in sorted(weights.items())}
    about = {"config": _identity(config, data.load().name), **about}
    sealed = {"about": about, "sha256": _digest(weights, about)}
    return save(weights, {"mnistae": json.dumps(sealed, sort_keys=True)})  # one key: it shuffles several


def read(config: Config, like: Weights) -> tuple[Weights, dict[str, Any]]:
    """The weights of a config's file, and what is known about them.

    like: the names, shapes and dtypes that the network expects. Raises CheckpointError, naming file and cure,
    for a file that is damaged or not finite, or holds another network.
    """
    file = path(config)
    try:
        with safe_open(file, framework="pt") as content:  # never a pickle
            sealed = json.loads((content.metadata() or {})["mnistae"])
            weights = {name: content.get_tensor(name) for name in sorted(content.keys())}
        about, stored = sealed["about"], sealed["about"]["config"]
        expected = _identity(config, "MNIST" if file.parent == folder("MNIST") else data.SAMPLE)
        differing = sorted(key for key in {*stored, *expected} if stored.get(key) != expected.get(key))
        if sealed["sha256"] != _digest(weights, about):
            raise ValueError("its checksum does not match")
        if differing:
            raise ValueError(f"it holds another config (differing: {', '.join(differing)})")
        if _shapes(weights) != _shapes(like):
            raise ValueError("its tensors do not fit the network that its config describes")
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise ValueError("it holds weights that are not finite")
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        cure = "Delete the file and run again: only this network is trained anew."
        raise CheckpointError(f"{file} is no checkpoint of this network: {error}. {cure}") from error
    return weights, about


def _identity(config: Config, dataset: str) -> dict[str, Any]:
    values = {**asdict(config), "channels": list(config.channels), "dataset": dataset}
    # Older files know nothing of the two youngest fields, which were 0 for them.
    return {key: value for key, value in values.items() if value or key not in ("noise", "kl_weight")}


def _shapes(weights: Weights) -> dict[str, tuple]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


def _digest(weights: Weights, about: dict[str, Any]) -> str:
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in weights.items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()


def atomic_write(target: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, finds it whole or not at all. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # What killed processes of this machine left half-written in the folder is removed.
    for left in target.parent.glob(f".*.{platform.node()}.[0-9]*.part"):
        if not psutil.pid_exists(int(left.name.split(".")[-2])):
            left.unlink(missing_ok=True)
    part = target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)

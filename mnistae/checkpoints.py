"""One trained network, one safetensors file: named by its config, checksummed, written atomically."""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mnistae.data import ROOT, STAND_IN

Weights = dict[str, Tensor]


class CheckpointError(RuntimeError):
    """A file that is not what it should be; the message names it and says how to retrain."""


def folder(dataset: str) -> Path:
    """Where networks trained on this dataset live: the stand-in's stay apart, and out of git."""
    return ROOT / "report" / "build" / "stand-in" if dataset == STAND_IN else ROOT / "checkpoints"


def digest(weights: Weights, about: dict[str, Any]) -> str:
    """SHA-256 of tensors, names, dtypes and shapes included, and of what is known about them (JSON)."""
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in weights.items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def packed(weights: Weights, about: dict[str, Any]) -> bytes:
    """Weights and what is known about them (JSON), as the content of one safetensors file."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(weights.items())}
    sealed = json.dumps({"about": about, "sha256": digest(weights, about)}, sort_keys=True)
    return save(weights, {"mnistae": sealed})  # one key: safetensors shuffles several


def read(path: Path, config: dict[str, Any], like: Weights) -> tuple[Weights, dict[str, Any]]:
    """The weights and the `about` of a file, if it is whole and holds exactly this config.

    config: what `about["config"]` must equal. like: the names, shapes and dtypes that the network expects.
    Raises CheckpointError, naming file and cure, for a file that is damaged, foreign, old or not finite.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:  # never a pickle
            sealed = json.loads((file.metadata() or {})["mnistae"])
            weights = {name: file.get_tensor(name) for name in sorted(file.keys())}
        about, stored = sealed["about"], sealed["about"]["config"]
        if sealed["sha256"] != digest(weights, about):
            raise CheckpointError(_cure(path, "its checksum does not match: some byte has changed"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(_cure(path, f"it is no readable checkpoint ({error})")) from error
    if stored != config:
        differing = sorted(key for key in {*stored, *config} if stored.get(key) != config.get(key))
        raise CheckpointError(_cure(path, f"it holds another config (differing: {', '.join(differing)})"))
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in like.items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()} != expected:
        raise CheckpointError(_cure(path, "its tensors do not fit the network that its config describes"))
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise CheckpointError(_cure(path, "it holds weights that are not finite"))
    return weights, about


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, finds it whole or not at all. Raises OSError.

    What a killed process of this machine left half-written in the folder is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".*.{platform.node()}.*.part"):
        process = left.name.split(".")[-2]
        if process.isdecimal() and not _alive(int(process)):
            left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _cure(path: Path, fault: str) -> str:
    return f"{path}: {fault}. Delete the file and run again: only this network is trained anew."

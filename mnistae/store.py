"""Networks and outcomes on disk: the only module that knows these files.

A network is one safetensors file, named by its config; outcomes of transfer experiments are rows of one JSON
table. Both carry a checksum and say what they were made from. Writes are atomic, those to the table locked.
"""

import hashlib
import json
import os
import platform
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mnistae import data
from mnistae.config import YOUNGER, Config, Probe, Transfer
from mnistae.probes import Probed
from mnistae.training import Network, Trained, restored
from mnistae.transfer import Outcome

STUDY, OWN = "", "own_"  # prefixes of tables: the study's outcomes; the user's own
RETRAIN = "or delete it: only this network is then trained again."
Experiment = Transfer | Probe
RESULTS: dict[type, Any] = {Transfer: Outcome, Probe: Probed}
DEFAULTS = {
    kind: {of.name: of.default for of in fields(kind) if of.default is not MISSING} for kind in RESULTS
}
Rows = dict[str, dict[str, list[float]]]  # experiment without its draw -> draw -> measured numbers


class StoreError(RuntimeError):
    """A stored file that cannot be read, is damaged or belongs elsewhere; the message says the way out."""


class Run(NamedTuple):
    """A config's trained network, in eval mode, and how it was made."""

    config: Config
    network: Network
    history: list[dict[str, float]]  # one {"train": loss, "validation": loss} per epoch
    cpu_seconds: float  # of training alone
    dataset: str  # the name of the data that it was trained on


@dataclass(frozen=True)
class Store:
    """The networks and outcomes of one data set, in one folder.

    fallback: a store that answers where this one has nothing; it is never written to. prefix: of the tables
    that new outcomes go to; the study's and own ones are read. defaults: the values that rows leave out.
    """

    folder: Path
    dataset: str
    fallback: "Store | None" = None
    prefix: str = OWN
    defaults: Mapping[type, Any] = field(default_factory=lambda: DEFAULTS, hash=False, repr=False)

    def path(self, config: Config) -> Path:
        """A config's file, there already or not."""
        return self.folder / f"{config.name}.safetensors"

    def has(self, config: Config) -> bool:
        """Whether a file for this config is here or in the fallback; it may be damaged."""
        return self.path(config).exists() or bool(self.fallback and self.fallback.has(config))

    def network(self, config: Config, device: str = "cpu") -> Run | None:
        """The run of exactly this config, None if it is not stored.

        Raises StoreError for a file that cannot be read, is damaged or not finite, or holds another network.
        """
        if self.fallback and (run := self.fallback.network(config, device)):
            return run
        file = self.path(config)
        if not file.exists():
            return None
        try:
            file.open("rb").close()  # safetensors calls every failure to open "no such file"
            with safe_open(file, framework="pt") as content:  # never a pickle
                sealed = json.loads((content.metadata() or {})["mnistae"])
                weights = {name: content.get_tensor(name) for name in sorted(content.keys())}
            about, expected = sealed["about"], self._identity(config)
            stored = about["config"]
            differing = sorted(key for key in {*stored, *expected} if stored.get(key) != expected.get(key))
            if sealed["sha256"] != _digest(weights, about):
                raise ValueError("its checksum does not match")
            if differing:
                raise ValueError(f"it holds another config (differing: {', '.join(differing)})")
            if not all(tensor.isfinite().all() for tensor in weights.values()):
                raise ValueError("it holds weights that are not finite")
            network = restored(config, weights)
        except OSError as error:
            raise StoreError(_unreadable(file, error)) from error
        except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
            cure = f"Restore it (`git restore {file.name}` in {file.parent}, if it is committed), {RETRAIN}"
            raise StoreError(f"{file} is no checkpoint of this network: {error}. {cure}") from error
        return Run(config, network.to(device), about["history"], about["cpu_seconds"], self.dataset)

    def save(self, config: Config, trained: Trained) -> None:
        """Store a network: its weights, its config and data set, and how it was made. Raises OSError."""
        weights = {name: tensor.contiguous() for name, tensor in sorted(trained.weights.items())}
        about = {**trained._asdict(), "config": self._identity(config)}
        del about["weights"]
        sealed = {"about": about, "sha256": _digest(weights, about)}
        # One key, because safetensors shuffles several.
        content = save(weights, {"mnistae": json.dumps(sealed, sort_keys=True)})
        atomic_write(self.path(config), content)

    def _identity(self, config: Config) -> dict[str, Any]:
        values = {**asdict(config), "channels": list(config.channels), "dataset": self.dataset}
        return {key: value for key, value in values.items() if value != YOUNGER.get(key, ("", None))[1]}

    def outcomes(self, experiments: Iterable[Any]) -> dict[Any, Any]:
        """The stored ones of these experiments. Raises StoreError for a table that it cannot rely on."""
        wanted = list(experiments)
        found = self.fallback.outcomes(wanted) if self.fallback else {}
        for kind, prefix in product({type(e) for e in wanted}, (STUDY, OWN)):
            rows = self._rows(kind, prefix)
            for e in (e for e in wanted if type(e) is kind):
                name, draw = self._key(e)
                if values := rows.get(name, {}).get(draw):
                    named = zip(_numbers(kind), values, strict=False)  # older rows lack younger numbers
                    found.setdefault(e, RESULTS[kind](**dict(named), dataset=self.dataset))
        return found

    def add(self, outcomes: Mapping[Any, Any]) -> None:
        """Store outcomes of one kind beside those that are there, whoever else writes at the same time.

        Raises OSError, and StoreError as `outcomes` does.
        """
        kind = type(next(iter(outcomes)))
        path = self._table(kind, self.prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            rows = self._rows(kind, self.prefix)
            for e, outcome in outcomes.items():
                name, draw = self._key(e)
                values = [getattr(outcome, number) for number in _numbers(kind)]
                rows.setdefault(name, {})[draw] = [float(f"{value:.5g}") for value in values]
            atomic_write(path, self._sealed(kind, rows).encode())

    def _table(self, kind: type, prefix: str) -> Path:
        return self.folder / f"{prefix}{kind.__name__.lower()}.json"

    def _key(self, e: Experiment) -> tuple[str, str]:
        defaults, values = self.defaults[type(e)], {of.name: getattr(e, of.name) for of in fields(e)}
        told = [name for name in values if name not in defaults or values[name] != defaults[name]]
        changed = [f"{name}={values[name]}" for name in told if name not in ("scheme", "encoder", "draw")]
        return f"{e.scheme}({', '.join(changed)}) of {e.encoder.name}", str(e.draw)

    def _sealed(self, kind: type, rows: Rows) -> str:
        rows = {name: dict(sorted(draws.items())) for name, draws in sorted(rows.items())}
        defaults = self.defaults[kind]
        head = {"dataset": self.dataset, "defaults": defaults, "sha256": _seal(self.dataset, defaults, rows)}
        # One line per setting, for small diffs.
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(draws)}" for name, draws in rows.items())
        return f'{json.dumps(head)[:-1]}, "outcomes": {{\n{lines}\n}}}}\n'

    def _rows(self, kind: type, prefix: str) -> Rows:
        path = self._table(kind, prefix)
        if not path.exists():
            return {}
        try:
            sealed = json.loads(path.read_text("utf-8"))
            defaults, rows = sealed["defaults"], sealed["outcomes"]
            if sealed["sha256"] != _seal(sealed["dataset"], defaults, rows):
                raise ValueError("its checksum does not match")
            if sealed["dataset"] != self.dataset:
                raise ValueError(f"it holds outcomes of {sealed['dataset']}, not of {self.dataset}")
        except OSError as error:
            raise StoreError(_unreadable(path, error)) from error
        except (ValueError, KeyError, TypeError) as error:
            cure = f"Restore it (`git restore {path.name}` in {path.parent}, if it is committed) or a backup"
            raise StoreError(
                f"{path} is damaged ({error}). {cure}. If there is none, move it away: its outcomes are "
                f"then computed again."
            ) from error
        for name, then in defaults.items():
            if then != (now := self.defaults[kind].get(name, "no field")):
                raise StoreError(
                    f"The default of {kind.__name__}.{name} is {now!r}, but {path} was written when it was "
                    f"{then!r}, and its rows leave defaults out. Set the default back to {then!r}, and give "
                    f"{name}={now!r} in the experiments that need it."
                )
        return rows


def _numbers(kind: type) -> list[str]:
    return [name for name in RESULTS[kind]._fields if name != "dataset"]


def store_for(dataset: str, prefix: str = OWN) -> Store:
    """The project's store of a data set; on the embedded sample what was stored of MNIST serves as well."""
    committed = Store(data.ROOT / "checkpoints", "MNIST", prefix=prefix)
    sample = Store(data.ROOT / "report" / "build" / "sample", dataset, committed, prefix)
    return committed if dataset == "MNIST" else sample


def _seal(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(weights: dict[str, Tensor], about: dict[str, Any]) -> str:
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}): check what it is and who may read it."


def atomic_write(target: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, finds it whole or not at all. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # What killed processes of this machine left half-written in the folder is removed.
    for left in target.parent.glob(f".*.{platform.node()}.*.part"):
        process = left.name.split(".")[-3]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)
    unique = f"{platform.node()}.{os.getpid()}.{uuid.uuid4().hex}"  # each of two threads has its own
    part = target.with_name(f".{target.name}.{unique}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)

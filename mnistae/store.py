"""Networks and outcomes on disk: the only module that knows these files.

A network is one safetensors file, named by its config; outcomes of transfer experiments are rows of one JSON
table. Both carry a checksum and say what they were made from. Writes are atomic, those to the table locked.
"""

import hashlib
import json
import os
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, inference_mode

from mnistae import data
from mnistae.config import LATER_FIELDS, Config, Probe, Transfer
from mnistae.probes import Probed
from mnistae.training import Network, Trained, restored
from mnistae.transfer import Outcome

STUDY, OWN = "", "own_"  # prefixes of tables: the study's outcomes; the user's own
RESULTS: dict[type, Any] = {Transfer: Outcome, Probe: Probed}
NUMBERS = {kind: [name for name in of._fields if name != "dataset"] for kind, of in RESULTS.items()}
DEFAULTS = {kind: {f.name: f.default for f in fields(kind) if f.default is not MISSING} for kind in RESULTS}
Rows = dict[str, dict[str, list[float]]]  # experiment without its draw -> draw -> measured numbers


class StoreError(RuntimeError):
    """A stored file that cannot be read, is damaged or belongs elsewhere; the message says what to do."""


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
    that new outcomes go to; both the study's and the user's own are read.
    """

    folder: Path
    dataset: str
    fallback: "Store | None" = None
    prefix: str = OWN

    def path(self, config: Config) -> Path:
        """A config's file, there already or not."""
        return self.folder / f"{config.name}.safetensors"

    def has(self, config: Config) -> bool:
        """Whether a file for this config is here or in the fallback; it may be damaged."""
        return self.path(config).exists() or bool(self.fallback and self.fallback.has(config))

    @inference_mode(False)
    def network(self, config: Config, device: str = "cpu") -> Run | None:
        """The run of exactly this config, None if it is not stored.

        Raises StoreError for a file that cannot be read, is damaged, or holds another network.
        """
        if self.fallback and (run := self.fallback.network(config, device)):
            return run
        path = self.path(config)
        if not path.exists():
            return None
        with _reading(path, "is no checkpoint of this network", "delete it: only it is then trained again"):
            path.open("rb").close()  # safetensors calls every failure to open "no such file"
            with safe_open(path, framework="pt") as content:  # never a pickle
                sealed = json.loads((content.metadata() or {})["mnistae"])
                weights = {name: content.get_tensor(name) for name in sorted(content.keys())}
            about = sealed["about"]
            if sealed["sha256"] != _digest(about, weights):
                raise ValueError("its checksum does not match")
            differing = {*map(str, about["config"].items())} ^ {*map(str, self._identity(config).items())}
            if differing:
                raise ValueError(f"it holds another config (differing: {', '.join(sorted(differing))})")
            network = restored(config, weights)
        return Run(config, network.to(device), about["history"], about["cpu_seconds"], self.dataset)

    def save(self, config: Config, trained: Trained) -> None:
        """Store a network: its weights, its config and data set, and how it was made. Raises OSError."""
        weights = {name: tensor.contiguous() for name, tensor in sorted(trained.weights.items())}
        about = {**trained._asdict(), "config": self._identity(config)}
        del about["weights"]
        sealed = {"about": about, "sha256": _digest(about, weights)}
        # One key, because safetensors shuffles several.
        content = save(weights, {"mnistae": json.dumps(sealed, sort_keys=True)})
        atomic_write(self.path(config), content)

    def _identity(self, config: Config) -> dict[str, Any]:
        values = {**asdict(config), "channels": list(config.channels), "dataset": self.dataset}
        return {key: value for key, value in values.items() if value != LATER_FIELDS.get(key, ("", None))[1]}

    def outcomes(self, experiments: Iterable[Any]) -> dict[Any, Any]:
        """The stored ones of these experiments, of one kind. Raises StoreError for a damaged table."""
        wanted = list(experiments)
        found = self.fallback.outcomes(wanted) if self.fallback else {}
        for prefix in (STUDY, OWN) if wanted else ():
            rows = self._rows(kind := type(wanted[0]), prefix)
            for e in wanted:
                name, draw = self._key(e)
                if values := rows.get(name, {}).get(draw):
                    named = zip(NUMBERS[kind], values, strict=False)  # older rows lack later numbers
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
                values = (getattr(outcome, number) for number in NUMBERS[kind])
                rows.setdefault(name, {})[draw] = [float(f"{value:.5g}") for value in values]
            atomic_write(path, self._sealed(kind, rows).encode())

    def _table(self, kind: type, prefix: str) -> Path:
        return self.folder / f"{prefix}{kind.__name__.lower()}.json"

    def _key(self, e: Transfer | Probe) -> tuple[str, str]:
        usual = DEFAULTS[type(e)] | {"scheme": e.scheme, "encoder": e.encoder, "draw": e.draw}
        values = ((of.name, getattr(e, of.name)) for of in fields(e))
        changed = [f"{name}={value}" for name, value in values if value != usual.get(name)]
        return f"{e.scheme}({', '.join(changed)}) of {e.encoder.name}", str(e.draw)

    def _sealed(self, kind: type, rows: Rows) -> str:
        rows = {name: dict(sorted(draws.items())) for name, draws in sorted(rows.items())}
        head = {"dataset": self.dataset, "defaults": DEFAULTS[kind]}
        head["sha256"] = _digest([*head.values(), rows])
        # One line per setting, for small diffs.
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(draws)}" for name, draws in rows.items())
        return f'{json.dumps(head)[:-1]}, "outcomes": {{\n{lines}\n}}}}\n'

    def _rows(self, kind: type, prefix: str) -> Rows:
        path = self._table(kind, prefix)
        if not path.exists():
            return {}
        with _reading(path, "is damaged", "move it away: its outcomes are then computed again"):
            sealed = json.loads(path.read_text("utf-8"))
            defaults, rows = sealed["defaults"], sealed["outcomes"]
            if sealed["sha256"] != _digest([sealed["dataset"], defaults, rows]):
                raise ValueError("its checksum does not match")
        if sealed["dataset"] != self.dataset:
            said = f"{path} holds outcomes of {sealed['dataset']}, not of {self.dataset}"
            raise StoreError(f"{said}. Move it away: what it should hold is then computed.")
        for name, then in defaults.items():
            if name not in DEFAULTS[kind]:
                said = f"{path} was written with {kind.__name__}.{name}={then!r}, no longer a field"
                raise StoreError(
                    f"{said}. Add it with that default, or move the table away: all is recomputed."
                )
            if then != (now := DEFAULTS[kind][name]):
                raise StoreError(
                    f"The default of {kind.__name__}.{name} is {now!r}, but was {then!r} for {path}, whose "
                    f"rows leave defaults out. Set it back to {then!r}, and give {name}={now!r} where needed."
                )
        return rows


def store_for(dataset: str, prefix: str = OWN) -> Store:
    """The project's store of a data set; on the embedded sample what was stored of MNIST serves as well."""
    committed = Store(data.ROOT / "checkpoints", "MNIST", prefix=prefix)
    if dataset == "MNIST":
        return committed
    return Store(data.ROOT / "report" / "build" / "sample", dataset, committed, prefix)


@contextmanager
def _reading(path: Path, fault: str, otherwise: str) -> Iterator[None]:
    # Turns failures into an error that says what to do; only bad content is to be replaced.
    try:
        yield
    except OSError as error:
        said = f"cannot be read ({error.strerror}): check what it is and who may read it."
        raise StoreError(f"{path} {said}") from error
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        cure = f"Restore it (`git restore {path.name}` in {path.parent}, if it is committed)"
        raise StoreError(f"{path} {fault}: {error}. {cure}, or {otherwise}.") from error


def _digest(content: Any, weights: Mapping[str, Tensor] | None = None) -> str:
    sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, tensor in sorted((weights or {}).items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()


def atomic_write(target: Path, content: bytes) -> None:
    """Replace a file at once: readers see the old or the new one, after a kill too. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Half-written files of killed processes of this machine are removed.
    for left in target.parent.glob(f".*.{platform.node()}.*.part"):
        process = left.name.split(".")[-3]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            with suppress(PermissionError):  # another user's
                left.unlink(missing_ok=True)
    part = _part(target.parent, platform.node())
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _part(folder: Path, host: str) -> Path:
    # Each of two threads has its own; without the target's name, since a name has 255 bytes at most.
    return folder / f".new.{host}.{os.getpid()}.{uuid.uuid4().hex}.part"

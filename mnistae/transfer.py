"""Transfer learning from tens of labels: one experiment, one line of a kept table."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mnistae import checkpoints, data, measures
from mnistae.data import Split
from mnistae.networks import Classifier
from mnistae.training import (
    Config,
    build,
    check_ranges,
    classify,
    distorted,
    fit,
    in_parallel,
    one_thread,
    trained,
    trained_all,
)

SCHEMES = ("frozen", "fine_tuned", "from_scratch", "logistic_code", "logistic_pca", "logistic_pixels")
USE_ENCODER = ("frozen", "fine_tuned", "logistic_code")
LIMITS = {
    "labels_per_class": (int, 1, 5_000),
    "draw": (int, 0, 2**31),
    "hidden": (int, 1, 4_096),
    "steps": (int, 1, 100_000),
    "head_rate": (float, 1e-6, 10),
    "encoder_rate": (float, 1e-6, 10),
    "weight_decay": (float, 0, 10),
    "noise": (float, 0, 10),
    "distortion": (float, 0, 10),
    "penalty": (float, 1e-6, 1e6),
}
COPIES = 24  # distorted ones of each labelled image, where there are any
TUNING = 1_000  # draws from here on are judged on validation images, those below on test images


@dataclass(frozen=True)
class Transfer:
    """One classifier learnt from 10 · labels_per_class training images, `draw` saying which.

    scheme: one of SCHEMES. encoder: config of the auto-encoder whose encoder is taken.
    hidden: units of the head. steps: of gradient descent, each on as many images as there are labels (with
    distorted copies rounded to whole passes over them all, of 25 steps).
    head_rate and encoder_rate: peak learning rates of AdamW. noise: added to codes while training, in their
    standard deviations. distortion: of COPIES further copies of each labelled image, as in `Config`.
    fixed_norm: batch norm keeps its statistics. The logistic schemes heed `penalty` (1/C) alone.
    Raises ValueError or TypeError, naming field, value and range.
    """

    scheme: str
    encoder: Config
    labels_per_class: int
    draw: int
    hidden: int = 64
    steps: int = 200
    head_rate: float = 0.01
    encoder_rate: float = 0.001
    weight_decay: float = 0.01
    noise: float = 0.3
    distortion: float = 0.0
    fixed_norm: bool = True
    penalty: float = 1.0

    def __post_init__(self):
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme={self.scheme!r}: allowed is one of {', '.join(SCHEMES)}")
        if not isinstance(self.encoder, Config) or self.encoder.task != "reconstruct":
            raise ValueError(f"encoder={self.encoder!r}: allowed is the Config of an auto-encoder")
        check_ranges(self, LIMITS)


class Outcome(NamedTuple):
    """accuracy: on the 10,000 test images (5,000 validation images for tuning draws). train_accuracy: on the
    labelled images. moved: how far fine-tuning moved the codes, as a share of their spread (else 0)."""

    accuracy: float
    train_accuracy: float
    moved: float


class _Noise(nn.Module):
    # In units of each coordinate's own spread, so that one strength fits every encoder and every d.
    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength

    def forward(self, z: Tensor) -> Tensor:
        return z + self.strength * z.detach().std(0) * torch.randn_like(z) if self.training else z


def learnt(e: Transfer) -> Classifier:
    """The classifier that experiment `e` ends with, in eval mode.

    Raises ValueError for a logistic scheme, and as `balanced_draw` does.
    """
    if e.scheme not in SCHEMES[:3]:
        raise ValueError(f"scheme={e.scheme!r} has no network: allowed is one of {', '.join(SCHEMES[:3])}")
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(e.draw)
        network = Classifier(nn.Identity(), e.encoder.latent_dim, e.hidden)  # the same head for every scheme
        network.head.insert(0, _Noise(e.noise))
        encoder = _initial_encoder(e)
        few, size = _labelled(e), 10 * e.labels_per_class
        if e.distortion:
            chance = torch.Generator().manual_seed(e.draw)
            copies = [distorted(few.images, e.distortion, chance) for _ in range(COPIES)]
            few = Split(torch.cat([few.images, *copies]), few.labels.repeat(1 + COPIES))
        groups = [{"params": network.head.parameters(), "lr": e.head_rate}]
        if e.scheme == "frozen":  # encoded once: no gradient can reach the encoder, no statistic can change
            few = Split(measures.apply(encoder, few.images), few.labels)
        else:
            network.encoder = encoder.requires_grad_(True)
            groups += [{"params": encoder.parameters(), "lr": e.encoder_rate}]
            if e.fixed_norm:
                _fix_norm(encoder)
        optimizer = torch.optim.AdamW(groups, weight_decay=e.weight_decay)
        epochs = max(1, e.steps * size // len(few.labels))
        fit(network, few, classify, optimizer, epochs=epochs, batch_size=size, seed=e.draw)
    network.encoder = encoder
    return network.eval()


def transfer(e: Transfer) -> Outcome:
    """Learn from the drawn labels by the experiment's scheme, and score. Raises as `balanced_draw` does."""
    few = _labelled(e)
    split = "validation" if e.draw >= TUNING else "test"
    judge = getattr(data.load(), split)
    if e.scheme.startswith("logistic"):
        return _logistic(e, few, split)
    network = learnt(e)
    with one_thread():
        before = None if e.scheme == "from_scratch" else _codes(e.encoder, split)
        after = before
        if e.scheme != "frozen":
            after = measures.apply(network.encoder, judge.images)
        return Outcome(
            measures.accuracy(network.head, after, judge.labels),
            measures.accuracy(network, *few),
            0.0 if before is None else ((after - before).norm() / (before - before.mean(0)).norm()).item(),
        )


@lru_cache
def _codes(config: Config, split: str) -> Tensor:
    # The same for hundreds of experiments.
    return measures.apply(trained(config, progress=False).network.encoder, getattr(data.load(), split).images)


def _labelled(e: Transfer) -> Split:
    train = data.load().train
    drawn = data.balanced_draw(train.labels, e.labels_per_class, e.draw)
    return Split(train.images[drawn], train.labels[drawn])


def _initial_encoder(e: Transfer) -> nn.Module:
    if e.scheme == "from_scratch":
        return build(replace(e.encoder, seed=TUNING + e.draw)).encoder.eval()
    return trained(e.encoder, progress=False).network.encoder


def _fix_norm(module: nn.Module) -> None:
    # train() would switch batch norm to the statistics of a few dozen images; this pins it to its own.
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
            layer.train = lambda mode=True, layer=layer: layer


def _logistic(e: Transfer, few: Split, split: str) -> Outcome:
    judge = getattr(data.load(), split)
    if e.scheme == "logistic_code":
        encoder = trained(e.encoder, progress=False).network.encoder
        x, seen = measures.apply(encoder, few.images).numpy(), _codes(e.encoder, split).numpy()
    elif e.scheme == "logistic_pca":
        pca = _pca(e.encoder.latent_dim)
        x, seen = (pca.transform(part.images.flatten(1).numpy()) for part in (few, judge))
    else:
        x, seen = (part.images.flatten(1).numpy() for part in (few, judge))
    from sklearn.linear_model import LogisticRegression  # as late as in measures

    spread = x.std(0).mean()  # one scale for all coordinates, so that one penalty fits codes and pixels
    model = LogisticRegression(C=1 / e.penalty, max_iter=2_000).fit(x / spread, few.labels)
    return Outcome(model.score(seen / spread, judge.labels), model.score(x / spread, few.labels), 0.0)


@lru_cache
def _pca(latent_dim: int):
    return measures.pca(data.load().train.images, latent_dim)


def transfer_all(experiments: Iterable[Transfer], progress: bool = True) -> dict[Transfer, Outcome]:
    """The outcomes of many experiments, those not yet kept run side by side, one process a core.

    Kept in transfer.json beside the networks; an interrupted call goes on where it was.
    Raises CheckpointError if that file is damaged.
    """
    experiments = list(dict.fromkeys(experiments))
    path = checkpoints.folder(data.load().name) / "transfer.json"
    kept = _kept(path)
    missing = [e for e in experiments if _key(e) not in kept]
    trained_all({e.encoder for e in missing if e.scheme in USE_ENCODER}, progress=progress)
    try:
        for e, outcome in in_parallel(transfer, missing, progress=progress, unit="experiment"):
            kept[_key(e)] = [round(value, 6) for value in outcome]
            if len(kept) % 50 == 0:
                _keep(path, kept)
    finally:
        if missing:
            _keep(path, kept)
    return {e: Outcome(*kept[_key(e)]) for e in experiments}


def _kept(path: Path) -> dict[str, list[float]]:
    if not path.exists():
        return {}
    try:
        sealed = json.loads(path.read_text())
        kept, seal = sealed["outcomes"], sealed["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        kept, seal = None, error
    if seal != checkpoints.digest({}, kept):
        raise checkpoints.CheckpointError(
            f"{path} is damaged ({seal} is no checksum of it). Delete it and run again."
        )
    return kept


def _keep(path: Path, kept: dict[str, list[float]]) -> None:
    kept = _kept(path) | kept  # with what another process has found meanwhile
    rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(values)}" for key, values in sorted(kept.items()))
    seal = f'"sha256": "{checkpoints.digest({}, kept)}"'
    # A line an experiment, for small diffs.
    checkpoints.atomic_write(path, f'{{{seal}, "outcomes": {{\n{rows}\n}}}}\n'.encode())


def _key(e: Transfer) -> str:
    fields = {name: value for name, value in asdict(e).items() if name not in ("scheme", "encoder")}
    return f"{e.scheme}({', '.join(f'{name}={value}' for name, value in fields.items())}) of {e.encoder.name}"

"""Transfer learning from tens of labels: one experiment, one line of a kept table."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mnistae import checkpoints, data, measures
from mnistae.config import Config, Scheme, Transfer
from mnistae.data import Split
from mnistae.networks import Classifier, Noise
from mnistae.parallel import in_parallel, one_thread
from mnistae.training import build, classify, fit, trained, trained_all

SCHEMES: tuple[Scheme, ...] = ("frozen", "fine_tuned", "from_scratch")  # those that end in a network
YARDSTICKS: tuple[Scheme, ...] = ("logistic_code", "logistic_pca", "logistic_pixels")
USE_ENCODER = ("frozen", "fine_tuned", "logistic_code")
COPIES = 24  # distorted ones of each labelled image, where there are any
Key = tuple[str, str]  # of a kept outcome: the experiment but for its draw, and the draw


class Outcome(NamedTuple):
    """What an experiment measures."""

    accuracy: float  # on the images of the split
    train_accuracy: float  # on the labelled ones
    moved: float  # how far fine-tuning moved the codes, as a share of their spread; 0 for other schemes


def _classify_with_fixed_norm(network: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    for layer in network.encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # it keeps its statistics: a few dozen images have poor ones
    return classify(network, inputs, labels)


def learnt(experiment: Transfer) -> Classifier:
    """The classifier that an experiment ends with, in eval mode. Raises ValueError for a logistic scheme."""
    e = experiment
    if e.scheme in YARDSTICKS:
        raise ValueError(f"scheme={e.scheme!r} has no network: allowed is one of {SCHEMES}")
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(e.draw)
        network = Classifier(nn.Identity(), e.encoder.latent_dim, e.hidden)  # the same head for every scheme
        network.head.insert(0, Noise(e.noise))
        if e.scheme == "from_scratch":
            encoder = build(replace(e.encoder, seed=1_000 + e.draw)).encoder  # no seed of a pre-trained one
        else:
            encoder = _encoder(e.encoder)
        labelled, batch_size = _labelled(e), 10 * e.labels_per_class
        if e.distortion:
            generator = torch.Generator().manual_seed(e.draw)
            copies = [data.distorted(labelled.images, e.distortion, generator) for _ in range(COPIES)]
            labelled = Split(torch.cat([labelled.images, *copies]), labelled.labels.repeat(1 + COPIES))
        groups = [{"params": network.head.parameters(), "lr": e.head_rate}]
        if e.scheme == "frozen":  # encoded once: no gradient can reach the encoder, no statistic can change
            labelled = Split(measures.infer(encoder, labelled.images), labelled.labels)
        else:
            network.encoder = encoder.requires_grad_(True)
            groups += [{"params": encoder.parameters(), "lr": e.encoder_rate}]
        optimizer = torch.optim.AdamW(groups, weight_decay=e.weight_decay)
        objective = _classify_with_fixed_norm if e.fixed_norm else classify
        epochs = max(1, e.steps * batch_size // len(labelled.labels))
        fit(network, labelled, objective, optimizer, epochs=epochs, batch_size=batch_size, seed=e.draw)
    network.encoder = encoder
    return network.eval()


def transfer(experiment: Transfer) -> Outcome:
    """Learn from the drawn labels by the experiment's scheme, and score. Raises as `balanced_draw` does."""
    e, labelled = experiment, _labelled(experiment)
    judge = getattr(data.load(), e.split)
    if e.scheme in YARDSTICKS:
        return _logistic(e, labelled, judge)
    network, frozen, moved = learnt(e), e.scheme == "frozen", 0.0
    with one_thread():
        codes = _codes(e.encoder, e.split) if frozen else measures.infer(network.encoder, judge.images)
        if e.scheme == "fine_tuned":
            before = _codes(e.encoder, e.split)
            moved = ((codes - before).norm() / (before - before.mean(0)).norm()).item()
        accuracy = measures.accuracy(network.head, codes, judge.labels)
        return Outcome(accuracy, measures.accuracy(network, *labelled), moved)


def _encoder(config: Config) -> nn.Module:
    return trained(config, progress=False).network.encoder


@lru_cache
def _codes(config: Config, split: str) -> Tensor:  # the same for hundreds of experiments
    return measures.infer(_encoder(config), getattr(data.load(), split).images)


def _labelled(e: Transfer) -> Split:
    train = data.load().train
    drawn = data.balanced_draw(train.labels, e.labels_per_class, e.draw)
    return Split(train.images[drawn], train.labels[drawn])


def _logistic(e: Transfer, labelled: Split, judge: Split) -> Outcome:
    from sklearn.linear_model import LogisticRegression  # as late as in measures

    x, seen = (_features(e, part.images) for part in (labelled, judge))
    spread = x.std(0).mean()  # one scale for all coordinates, so that one penalty fits codes and pixels
    model = LogisticRegression(C=1 / e.penalty, max_iter=2_000).fit(x / spread, labelled.labels)
    return Outcome(model.score(seen / spread, judge.labels), model.score(x / spread, labelled.labels), 0.0)


def _features(e: Transfer, images: Tensor) -> np.ndarray:
    if e.scheme == "logistic_code":
        return measures.infer(_encoder(e.encoder), images).numpy()
    pixels = images.flatten(1).numpy()
    return _pca(e.encoder.latent_dim).transform(pixels) if e.scheme == "logistic_pca" else pixels


@lru_cache
def _pca(latent_dim: int) -> Any:
    return measures.pca(data.load().train.images, latent_dim)


def transfer_all(experiments: Iterable[Transfer], progress: bool = True) -> dict[Transfer, Outcome]:
    """The outcomes of many experiments, those not yet kept run side by side, one process a core.

    Kept in transfer.json beside the networks; an interrupted call goes on where it was. On the embedded
    sample MNIST's outcomes serve too, others are kept apart. Raises CheckpointError for a damaged file.
    """
    experiments = list(dict.fromkeys(experiments))
    path = checkpoints.folder(data.load().name) / "transfer.json"
    kept = _kept(checkpoints.folder("MNIST") / "transfer.json") | _kept(path)
    missing = [e for e in experiments if _key(e) not in kept]
    trained_all({e.encoder for e in missing if e.scheme in USE_ENCODER}, progress=progress)
    found: dict[Key, list[float]] = {}
    try:
        for e, outcome in in_parallel(transfer, missing, progress=progress, unit="experiment"):
            found[_key(e)] = [round(value, 4) for value in outcome]
            if len(found) % 50 == 0:
                _keep(path, found)
    finally:
        if found:
            _keep(path, found)
    kept |= found
    return {e: Outcome(*kept[_key(e)]) for e in experiments}


def _kept(path: Path) -> dict[Key, list[float]]:
    if not path.exists():
        return {}
    try:
        sealed = json.loads(path.read_text())
        if sealed["sha256"] != _seal(sealed["outcomes"]):
            raise ValueError("its checksum does not match")
    except (ValueError, KeyError, TypeError) as error:
        raise checkpoints.CheckpointError(f"{path} is damaged ({error}). Delete it and run again.") from error
    outcomes = sealed["outcomes"].items()
    return {(name, draw): values for name, draws in outcomes for draw, values in draws.items()}


def _keep(path: Path, found: dict[Key, list[float]]) -> None:
    outcomes: dict[str, dict[str, list[float]]] = {}
    for (name, draw), values in sorted((_kept(path) | found).items()):  # another process may have found more
        outcomes.setdefault(name, {})[draw] = values
    # A line a setting, for small diffs.
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(draws)}" for name, draws in outcomes.items())
    content = f'{{"sha256": "{_seal(outcomes)}", "outcomes": {{\n{rows}\n}}}}\n'
    checkpoints.atomic_write(path, content.encode())


def _seal(outcomes: dict[str, dict[str, list[float]]]) -> str:
    return hashlib.sha256(json.dumps(outcomes, sort_keys=True).encode()).hexdigest()


def _key(e: Transfer) -> Key:
    # Fields at their default are left out, for a smaller file: who changes a default deletes transfer.json.
    others = [field for field in fields(e) if field.name not in ("scheme", "encoder", "draw")]
    changed = [f"{f.name}={getattr(e, f.name)}" for f in others if getattr(e, f.name) != f.default]
    return f"{e.scheme}({', '.join(changed)}) of {e.encoder.name}", str(e.draw)

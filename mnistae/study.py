"""The study's experiments, as data: change a list, run the notebooks, and a new question is answered.

`python -m mnistae.study` trains whatever of it has no checkpoint yet.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from mnistae import data
from mnistae.config import Config, Scheme, Transfer
from mnistae.runs import trained_all, transfer_all
from mnistae.store import STUDY_TABLE, Store, store_for
from mnistae.transfer import BASELINES, SCHEMES

Setting = dict[str, Any]
SEEDS = (0, 1, 2)
LATENT_DIMS = (2, 4, 8, 10, 16, 32, 64)
BASE = Config()


def with_all_seeds(*configs: Config) -> list[Config]:
    """Each experiment under each seed of the study."""
    return [replace(config, seed=seed) for config in configs for seed in SEEDS]


SIZES = with_all_seeds(*(replace(BASE, latent_dim=d) for d in LATENT_DIMS))

# Chapter 1 (ii), all at d = 10: depth; width and kernel at three layers.
THREE = replace(BASE, channels=(8, 32, 64))
ARCHITECTURES = {
    "1 layer": replace(BASE, channels=(8,)),
    "2 layers": replace(BASE, channels=(8, 32)),
    "3 layers": THREE,
    "4 layers (base)": BASE,
    "5 layers": replace(BASE, channels=(8, 32, 64, 88, 128)),
    "3 layers, width ×½": replace(THREE, channels=(4, 16, 32)),
    "3 layers, width ×2": replace(THREE, channels=(16, 64, 128)),
    "3 layers, kernel 5": replace(THREE, kernel_size=5),
}

# Ablation: the recipe with one part changed, after one epoch; measured on validation images.
SHORT = replace(BASE, epochs=1)
RECIPES = {
    "as in the study": SHORT,
    "AdamW instead of Muon": replace(SHORT, optimizer="adamw", learning_rate=0.008),
    "batches of 128": replace(SHORT, batch_size=128),
    "no weight decay": replace(SHORT, weight_decay=0.0),
    "distorted images": replace(SHORT, distortion=1.0),
}
STARTS = [replace(SHORT, images=6_400, seed=seed) for seed in range(20)]  # does any seed collapse?

# Chapter 1 (iii): wider and longer; how much weight decay that takes is decided on validation images.
WIDE = replace(BASE, channels=(16, 64, 128, 176), epochs=18)
CANDIDATES = [replace(WIDE, weight_decay=decay) for decay in (0.025, 0.05)]
LONG_PLANE = with_all_seeds(
    replace(BASE, latent_dim=2, epochs=18)
)  # d = 2, trained as long as the best network

# Chapter 2: classifiers trained on real digits, which never see a reconstruction in training. Ten, because
# on images unlike any digit, such as blended ones, they disagree more than auto-encoders do.
CLASSIFIER = replace(BASE, task="classify", latent_dim=64, epochs=4, distortion=1.0)
CLASSIFIERS = [replace(CLASSIFIER, seed=seed) for seed in range(10)]

# Chapter 2: does a regularised code give better midpoints? At d = 64 in several strengths; d = 10 as control.
REGULARISED = with_all_seeds(
    *(replace(BASE, latent_dim=64, noise=noise) for noise in (0.25, 0.5, 1.0)),
    *(replace(BASE, latent_dim=64, kl_weight=weight) for weight in (3e-5, 1e-4, 3e-4, 1e-3)),
    replace(BASE, noise=0.5),
    replace(BASE, kl_weight=1e-4),
)

# Chapter 4: three encoders, four numbers of labels, the same labelled images and heads for every scheme.
TRANSFER_DIMS = (4, 10, 64)
LABELS_PER_CLASS = (1, 2, 5, 10)
DRAWS = range(21)  # seven for each seed of the encoder

# Equal effort: for each scheme and number of labels as many settings, from the same ranges, on the same
# labelled images. Ranges are logarithmic, except those that begin at 0.
RANGES: dict[str, tuple[float, float]] = {
    "hidden": (16, 1_024),
    "steps": (50, 400),  # not more: with rates as wide as these it would only cost time
    "head_rate": (1e-4, 0.1),
    "encoder_rate": (3e-5, 0.03),
    "weight_decay": (1e-3, 10),
    "noise": (0, 1.5),
    "distortion": (0.3, 8),
    "fixed_norm": (0, 1),
    "penalty": (1e-3, 1e3),
}
# Settings of these come from one random stream, in this order; a range that is added has its own stream, so
# that it changes no setting in use.
ONE_STREAM = (
    *("hidden", "steps", "head_rate", "encoder_rate", "weight_decay"),
    *("noise", "distortion", "fixed_norm", "penalty"),
)
MLP_FIELDS = ("hidden", "steps", "head_rate", "weight_decay", "noise", "distortion")
FIELDS_USED: dict[Scheme, Sequence[str]] = {
    "frozen": MLP_FIELDS,
    "fine_tuned": (*MLP_FIELDS, "encoder_rate", "fixed_norm"),
    "from_scratch": (*MLP_FIELDS, "encoder_rate", "fixed_norm"),
    **dict.fromkeys(BASELINES, ("penalty",)),  # all that logistic regression has
}
TUNING_DRAWS = range(1_000, 1_012)  # no reported number uses them


def settings(scheme: Scheme) -> list[Setting]:
    """48 random settings from RANGES, the same for every scheme; each takes the fields that it uses."""
    streams = {name: random.Random(name) for name in RANGES} | dict.fromkeys(ONE_STREAM, random.Random(0))
    kinds: dict[str, Any] = {"hidden": int, "steps": int, "fixed_norm": lambda value: value > 0.5}

    def value(name: str) -> Any:
        (low, high), share = RANGES[name], streams[name].random()
        exact = low * (high / low) ** share if low else high * share
        return kinds.get(name, float)(float(f"{exact:.2g}"))

    rows = [{name: value(name) for name in dict.fromkeys((*ONE_STREAM, *RANGES))} for _ in range(48)]
    return [{name: row[name] for name in FIELDS_USED[scheme]} for row in rows]


def with_seed(encoder: Config, draw: int) -> Config:
    """The encoder of a draw: draws use the seeds in turn."""
    return replace(encoder, seed=SEEDS[draw % len(SEEDS)])


def trials(scheme: Scheme, labels_per_class: int, setting: Setting, draws: Sequence[int]) -> list[Transfer]:
    """One setting's tuning experiments, at d = 10, measured on validation images."""
    return [
        Transfer(scheme, with_seed(BASE, draw), labels_per_class, draw, split="validation", **setting)
        for draw in draws
    ]


@lru_cache
def search(scheme: Scheme, labels_per_class: int, run: Any = transfer_all) -> tuple[list[float], Setting]:
    """The mean validation accuracy of each setting on three draws, and the setting that is chosen.

    The best eight are tried on nine more draws; of these the best on all twelve is chosen. run: from
    experiments to their outcomes.
    """
    tried = settings(scheme)

    def scores(chosen: list[Setting], draws: Sequence[int]) -> list[float]:
        rows = [trials(scheme, labels_per_class, setting, draws) for setting in chosen]
        outcomes = run(experiment for row in rows for experiment in row)
        return [sum(outcomes[experiment].accuracy for experiment in row) / len(row) for row in rows]

    first = scores(tried, TUNING_DRAWS[:3])
    order = sorted(range(len(tried)), key=first.__getitem__, reverse=True)
    finalists = [tried[i] for i in order[:8]]
    second = scores(finalists, TUNING_DRAWS)
    return first, finalists[second.index(max(second))]


def transfers(
    scheme: Scheme, encoders: Sequence[Config] = (), tuned_at: int = 0, run: Any = transfer_all
) -> list[Transfer]:
    """One experiment per draw, for each encoder and number of labels, with the setting tuned at that number.

    encoders: by default the base network's at each size, or at d = 10 alone where a scheme reads no code.
    tuned_at: labels per class whose setting is used for all numbers; 0: each its own. run: as in `search`.
    """
    dims = (BASE.latent_dim,) if scheme in ("from_scratch", "logistic_pixels") else TRANSFER_DIMS
    return [
        Transfer(scheme, with_seed(encoder, draw), k, draw, **search(scheme, tuned_at or k, run)[1])
        for encoder in encoders or [replace(BASE, latent_dim=d) for d in dims]
        for k in LABELS_PER_CLASS
        for draw in DRAWS
    ]


def best_candidate() -> Config:
    """The candidate with the lowest validation error."""
    runs = trained_all(CANDIDATES)
    return min(runs, key=lambda config: runs[config].history[-1]["validation"])


def everything() -> list[Config]:
    """All networks of the study, but for those further seeds that await the choice of the best candidate."""
    named = with_all_seeds(*ARCHITECTURES.values(), *RECIPES.values())
    return list(
        dict.fromkeys([*CANDIDATES, *LONG_PLANE, *SIZES, *named, *STARTS, *REGULARISED, *CLASSIFIERS])
    )


def main(store: Store | None = None) -> None:
    """Train what is missing, with the time it takes; a second call has nothing to do."""
    store = store or store_for(data.load().name, STUDY_TABLE)
    run = partial(transfer_all, store=store)
    trained_all(everything(), store)
    trained_all(with_all_seeds(best_candidate()), store)
    for scheme in (*SCHEMES, *BASELINES):
        run(transfers(scheme, run=run))
    run(transfers("frozen", [best_candidate()], run=run))
    for scheme in ("frozen", "fine_tuned"):
        run(transfers(scheme, [BASE], tuned_at=5, run=run))


if __name__ == "__main__":
    main()

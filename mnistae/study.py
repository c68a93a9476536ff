"""The study's experiments, as data: change a list, run the notebooks, and a new question is answered.

`python -m mnistae.study` trains the networks that have no checkpoint yet.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from mnistae import data
from mnistae.config import Config, Probe, Scheme, Transfer
from mnistae.runs import evaluate_all, trained_all
from mnistae.store import STUDY, Store, store_for
from mnistae.transfer import BASELINES, SCHEMES

Setting = dict[str, Any]
Configs = Sequence[Config]
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
# d = 2, trained as long as the best network, and as wide.
LONG_PLANE = with_all_seeds(replace(BASE, latent_dim=2, epochs=18))
WIDE_PLANE = with_all_seeds(replace(WIDE, latent_dim=2, weight_decay=0.025))

# Chapter 1 (ii): is the base network better than its three rivals at half the learning rate, too?
RIVALS = ("5 layers", "3 layers, width ×2", "3 layers, kernel 5")
HALF_RATE = {name: replace(ARCHITECTURES[name], learning_rate=0.015) for name in RIVALS}

# Chapter 2: classifiers trained on real digits alone. Ten, because they disagree on images unlike any digit,
# such as blended ones, more than auto-encoders do.
CLASSIFIER = replace(BASE, task="classify", latent_dim=64, epochs=4, distortion=1.0)
CLASSIFIERS = [replace(CLASSIFIER, seed=seed) for seed in range(10)]
SECOND_OPINION = replace(CLASSIFIER, downsampling="max_pool", channels=(16, 32, 64))

# Chapter 2: does a regularised code give better midpoints? At d = 64 in several strengths; d = 10 as control.
REGULARISED = with_all_seeds(
    *(replace(BASE, latent_dim=64, noise=noise) for noise in (0.25, 0.5, 1.0)),
    *(replace(BASE, latent_dim=64, kl_weight=weight) for weight in (3e-5, 1e-4, 3e-4, 1e-3)),
    replace(BASE, noise=0.5),
    replace(BASE, kl_weight=1e-4),
)

L1 = with_all_seeds(replace(BASE, latent_dim=64, loss="l1"))  # does squared error cause the blends?

# Chapter 3: the same function with an ill-conditioned code; decoders for half of the directions of a code.
OPTIMIZERS = with_all_seeds(SHORT, RECIPES["AdamW instead of Muon"])
ILL_CONDITIONED = [Probe("ill_conditioned_start", config, amount=1_000) for config in OPTIMIZERS]
RETRAINED = [Probe("retrained_decoder", replace(BASE, latent_dim=64, seed=seed), amount=32) for seed in SEEDS]

# Chapter 4: three encoders, four numbers of labels, the same labelled images and heads for all schemes.
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
# Settings of these come from one random stream, in this order. A range that is added has its own stream, so
# that it changes no setting in use.
ONE_STREAM = ["hidden", "steps", "head_rate", "encoder_rate", "weight_decay", "noise", "distortion"]
ONE_STREAM += ["fixed_norm", "penalty"]
MLP_FIELDS = ("hidden", "steps", "head_rate", "weight_decay", "noise", "distortion")
FIELDS_USED: dict[Scheme, Sequence[str]] = {
    **dict.fromkeys(SCHEMES, (*MLP_FIELDS, "encoder_rate", "fixed_norm")),
    "frozen": MLP_FIELDS,
    **dict.fromkeys(BASELINES, ("penalty",)),  # all that logistic regression has
}
TUNING_DRAWS = range(1_000, 1_012)  # no reported number uses them


def settings(scheme: Scheme) -> list[Setting]:
    """48 random settings from RANGES, the same for all schemes; each takes the fields that it uses."""
    streams = {name: random.Random(name) for name in RANGES} | dict.fromkeys(ONE_STREAM, random.Random(0))
    kinds: dict[str, Any] = {"hidden": int, "steps": int, "fixed_norm": lambda value: value > 0.5}

    def value(name: str) -> Any:
        (low, high), share = RANGES[name], streams[name].random()
        exact = low * (high / low) ** share if low else high * share
        return kinds.get(name, float)(float(f"{exact:.2g}"))

    rows = [{name: value(name) for name in dict.fromkeys((*ONE_STREAM, *RANGES))} for _ in range(48)]
    return [{name: row[name] for name in FIELDS_USED[scheme]} for row in rows]


# Label spreading: the settings to choose from, and what the small controls have in common.
GRID: list[Setting] = [
    {"nodes": nodes, "neighbours": neighbours, "alpha": alpha}
    for nodes, neighbours, alpha in product((20_000, 55_000), (10, 15, 25), (0.9, 0.99, 0.999))
]
CONTROL_NODES = 20_000

# Classifiers taught by spread labels, hard or soft: eight settings for each scheme.
SPREAD_MLP = {"batch_size": 256, "steps": 860, "noise": 0.0}  # four epochs of all training images
SPREAD_WHOLE = {"batch_size": 64, "steps": 312}  # one epoch of 20,000
TAUGHT: dict[Scheme, list[Setting]] = {
    "frozen": [
        SPREAD_MLP | {"hidden": 64},
        SPREAD_MLP | {"hidden": 256},
        SPREAD_MLP | {"hidden": 256, "head_rate": 0.003},
        SPREAD_MLP | {"hidden": 256, "noise": 0.3},
    ],
    "fine_tuned": [SPREAD_WHOLE | {"encoder_rate": rate} for rate in (3e-4, 1e-3, 3e-3)]
    + [SPREAD_WHOLE | {"encoder_rate": 1e-3, "noise": 0.0, "fixed_norm": False}],
}


def candidates(scheme: Scheme, variant: str = "") -> list[Setting]:
    """The settings that are tried for a scheme.

    variant: "" for `settings`; "plain" without distorted copies and noise; "taught" for `TAUGHT`.
    """
    if variant == "taught":
        teachers = ("spread", "spread_soft")
        return [setting | {"teacher": teacher} for setting in TAUGHT[scheme] for teacher in teachers]
    if variant == "plain":
        return [setting | {"noise": 0.0, "distortion": 0.0} for setting in settings(scheme)]
    return settings(scheme)


def with_seed(encoder: Config, draw: int) -> Config:
    """The encoder of a draw: draws use the seeds in turn."""
    return replace(encoder, seed=SEEDS[draw % len(SEEDS)])


def trials(scheme: Scheme, labels_per_class: int, setting: Setting, draws: Sequence[int]) -> list[Transfer]:
    """One setting's tuning experiments, at d = 10, measured on validation images."""
    setting = setting | {"split": "validation"}
    return [Transfer(scheme, with_seed(BASE, draw), labels_per_class, draw, **setting) for draw in draws]


def search(
    scheme: Scheme, labels_per_class: int, variant: str = "", run: Any = evaluate_all
) -> tuple[list[float], Setting]:
    """The mean validation accuracy of each candidate on three draws, and the one that is chosen.

    Of more than eight candidates the best eight are tried on nine more draws; of these the best on all twelve
    is chosen. run: from experiments to their outcomes.
    """
    tried = candidates(scheme, variant)

    def scores(chosen: list[Setting], draws: Sequence[int]) -> list[float]:
        rows = [trials(scheme, labels_per_class, setting, draws) for setting in chosen]
        outcomes = run(experiment for row in rows for experiment in row)
        return [sum(outcomes[experiment].accuracy for experiment in row) / len(row) for row in rows]

    first = scores(tried, TUNING_DRAWS[:3])
    order = sorted(range(len(tried)), key=first.__getitem__, reverse=True)
    finalists = [tried[i] for i in order[:8]]
    if len(tried) <= 8:
        return first, finalists[0]
    second = scores(finalists, TUNING_DRAWS)
    return first, finalists[second.index(max(second))]


def experiments(scheme: Scheme, encoders: Configs, setting: Callable[[int], Setting]) -> list[Transfer]:
    """One experiment per encoder, number of labels and draw. setting: from labels per class to a setting."""
    chosen = {k: setting(k) for k in LABELS_PER_CLASS}
    return [
        Transfer(scheme, with_seed(encoder, draw), k, draw, **chosen[k])
        for encoder in encoders
        for k in LABELS_PER_CLASS
        for draw in DRAWS
    ]


def transfers(
    scheme: Scheme, encoders: Configs = (), tuned_at: int = 0, variant: str = "", run: Any = evaluate_all
) -> list[Transfer]:
    """The experiments of a scheme with the setting that was tuned at each number of labels.

    encoders: by default the base network's at each size, or at d = 10 alone where a scheme reads no code.
    tuned_at: labels per class whose setting is used for all numbers; 0: each its own. variant, run: as in
    `search`. probe_then_fine_tuned takes the settings of fine_tuned.
    """
    alone = scheme in ("from_scratch", "logistic_pixels", "probe_then_fine_tuned") or variant
    dims = (BASE.latent_dim,) if alone else TRANSFER_DIMS
    tuned: Scheme = "fine_tuned" if scheme == "probe_then_fine_tuned" else scheme
    encoders = encoders or [replace(BASE, latent_dim=d) for d in dims]
    return experiments(scheme, encoders, lambda k: search(tuned, tuned_at or k, variant, run)[1])


def grid_trials() -> list[Transfer]:
    """Label spreading with each setting of the grid, on the tuning draws and validation images."""
    asked = product(LABELS_PER_CLASS, GRID)
    return [e for k, setting in asked for e in trials("spreading_code", k, setting, TUNING_DRAWS)]


def best_grid(run: Any = evaluate_all) -> Setting:
    """The one setting of label spreading with the highest validation accuracy over all numbers of labels."""
    outcomes = run(grid_trials())

    def mean(setting: Setting) -> float:
        own = [o.accuracy for e, o in outcomes.items() if all(getattr(e, n) == v for n, v in setting.items())]
        return sum(own) / len(own)

    return max(GRID, key=mean)


def spreading(run: Any = evaluate_all, store: Store | None = None) -> list[Transfer]:
    """Label spreading with the chosen setting: base and best network, and the controls on a smaller graph."""
    chosen = best_grid(run)
    small = chosen | {"nodes": CONTROL_NODES}
    sizes = [replace(BASE, latent_dim=d) for d in LATENT_DIMS]
    return [
        *experiments("spreading_code", [BASE, best_candidate(store)], lambda k: chosen),
        *experiments("spreading_code", sizes, lambda k: small),
        *experiments("spreading_pca", sizes, lambda k: small),
        *experiments("spreading_pixels", [BASE], lambda k: small),
    ]


def best_candidate(store: Store | None = None, candidates: Configs = CANDIDATES) -> Config:
    """The candidate with the lowest validation error."""
    runs = trained_all(candidates, store)
    return min(runs, key=lambda config: runs[config].history[-1]["validation"])


def everything() -> list[Config]:
    """All networks of the study, except the extra seeds of the best candidate."""
    named = with_all_seeds(*ARCHITECTURES.values(), *RECIPES.values())
    chapter_1 = [*CANDIDATES, *LONG_PLANE, *WIDE_PLANE, *SIZES, *named, *STARTS, *HALF_RATE.values()]
    return list(dict.fromkeys([*chapter_1, *REGULARISED, *L1, *CLASSIFIERS, SECOND_OPINION]))


def main(store: Store | None = None) -> None:
    """Train what is missing, with the time it takes; a second call has nothing to do."""
    store = store or store_for(data.load().name, STUDY)
    run = partial(evaluate_all, store=store)
    trained_all(everything(), store)
    trained_all(with_all_seeds(best := best_candidate(store)), store)
    run([*ILL_CONDITIONED, *RETRAINED])
    for scheme in (*SCHEMES, *BASELINES):
        run(transfers(scheme, run=run))
    run(transfers("frozen", [best], run=run))
    for scheme in SCHEMES[:2]:
        run(transfers(scheme, [BASE], tuned_at=5, run=run))
        for variant in ("plain", "taught"):
            run(transfers(scheme, variant=variant, run=run))
    run(spreading(run, store))


if __name__ == "__main__":
    main()

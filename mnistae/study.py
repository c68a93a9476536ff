"""The study's experiments, as data: change a list, run the notebooks, and a new question is answered.

`python -m mnistae.study` trains whatever of it has no checkpoint yet.
"""

import random
import time
from dataclasses import replace

import joblib

from mnistae import checkpoints, data
from mnistae.training import Config, build, cost, fit, one_thread, optimizer_for, reconstruct, trained_all
from mnistae.transfer import SCHEMES, TUNING, Transfer, transfer_all

SEEDS = (0, 1, 2)
LATENT_DIMS = (2, 4, 8, 10, 16, 32, 64)
BASE = Config()


def seeded(config: Config) -> list[Config]:
    """The same experiment under each seed of the study."""
    return [replace(config, seed=seed) for seed in SEEDS]


BY_LATENT_DIM = {d: seeded(replace(BASE, latent_dim=d)) for d in LATENT_DIMS}

# Chapter 1 (ii), all at d = 10: depth; width and kernel at three layers.
THREE = replace(BASE, channels=(8, 32, 64))
ARCHITECTURES = {
    "1 layer": seeded(replace(BASE, channels=(8,))),
    "2 layers": seeded(replace(BASE, channels=(8, 32))),
    "3 layers": seeded(THREE),
    "4 layers (base)": seeded(BASE),
    "5 layers": seeded(replace(BASE, channels=(8, 32, 64, 88, 128))),
    "3 layers, width ×½": seeded(replace(THREE, channels=(4, 16, 32))),
    "3 layers, width ×2": seeded(replace(THREE, channels=(16, 64, 128))),
    "3 layers, kernel 5": seeded(replace(THREE, kernel_size=5)),
}

# Chapter 2: independent judges of digits, which never see a reconstruction while they learn. Ten, because
# on images unlike any digit, such as blended ones, they disagree more than auto-encoders do.
JUDGES = [
    replace(BASE, task="classify", latent_dim=64, epochs=4, distortion=1.0, seed=seed) for seed in range(10)
]

# What each part of the recipe brings, after one epoch; chosen on validation images.
SHORT = replace(BASE, epochs=1)
RECIPES = {
    "as in the study": seeded(SHORT),
    "AdamW for Muon": seeded(replace(SHORT, optimizer="adamw", learning_rate=0.008)),
    "batches of 128": seeded(replace(SHORT, batch_size=128)),
    "no weight decay": seeded(replace(SHORT, weight_decay=0.0)),
    "distorted images": seeded(replace(SHORT, distortion=1.0)),
}
STARTS = [replace(SHORT, images=6_400, seed=seed) for seed in range(20)]  # does any seed collapse?

# Chapter 1 (iii): wider and longer; how much weight decay that takes is decided on validation images.
WIDE = replace(BASE, channels=(16, 64, 128, 176), epochs=18)
CANDIDATES = {decay: replace(WIDE, weight_decay=decay) for decay in (0.025, 0.05)}


# Chapter 4: three encoders, four numbers of labels, the same draws and heads for every scheme.
TRANSFER_DIMS = (4, 10, 64)
LABELS_PER_CLASS = (1, 2, 5, 10)
DRAWS = range(21)  # seven for each seed of the encoder

# Equal effort: 20 settings drawn from the same ranges for each scheme, tried on 6 draws of their own.
RANGES = {
    "hidden": (32, 64, 128, 256),
    "steps": (50, 100, 200),
    "head_rate": (0.003, 0.01, 0.03),
    "encoder_rate": (0.0001, 0.0003, 0.001, 0.003),
    "weight_decay": (0.01, 0.1, 1.0),
    "noise": (0.0, 0.3, 0.6, 0.9),
    "distortion": (0.0, 1.0, 2.0, 3.0),
    "fixed_norm": (True, False),
    "penalty": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
}


def settings(count: int = 20) -> list[dict]:
    """Settings of a Transfer drawn at random from RANGES."""
    chance = random.Random(0)
    return [{name: chance.choice(values) for name, values in RANGES.items()} for _ in range(count)]


def with_seed(encoder: Config, draw: int) -> Config:
    """The draws take the seeds of the encoder in turn."""
    return replace(encoder, seed=SEEDS[draw % len(SEEDS)])


def search(scheme: str) -> dict[int, list[Transfer]]:
    """Setting's number -> its tuning experiments, with 50 labels at d = 10, judged on validation images."""
    draws = range(TUNING, TUNING + 6)
    return {
        i: [Transfer(scheme, with_seed(BASE, draw), 5, draw, **setting) for draw in draws]
        for i, setting in enumerate(settings())
    }


def tuned(scheme: str) -> dict:
    """The setting with the highest mean validation accuracy."""
    trials = search(scheme)
    outcomes = transfer_all(experiment for trial in trials.values() for experiment in trial)
    return settings()[max(trials, key=lambda i: sum(outcomes[e].accuracy for e in trials[i]))]


def transfers(scheme: str) -> dict[tuple[int, int], list[Transfer]]:
    """(latent_dim, labels_per_class) -> one experiment a draw, with the scheme's tuned setting."""
    setting = tuned(scheme)
    dims = (BASE.latent_dim,) if scheme in ("from_scratch", "logistic_pixels") else TRANSFER_DIMS  # no code
    return {
        (d, k): [
            Transfer(scheme, with_seed(replace(BASE, latent_dim=d), draw), k, draw, **setting)
            for draw in DRAWS
        ]
        for d in dims
        for k in LABELS_PER_CLASS
    }


def transfers_of_best() -> dict[int, list[Transfer]]:
    """labels_per_class -> one experiment a draw: the frozen scheme on the encoder of the best network."""
    setting, best = tuned("frozen"), best_candidate()
    return {
        k: [Transfer("frozen", with_seed(best, draw), k, draw, **setting) for draw in DRAWS]
        for k in LABELS_PER_CLASS
    }


def best_candidate() -> Config:
    """The candidate with the lowest validation error."""
    runs = trained_all(CANDIDATES.values())
    return min(runs, key=lambda config: runs[config].history[-1]["validation"])


def everything() -> list[Config]:
    """All networks of the study, but for those further seeds that await the choice of the best candidate."""
    lists = [*BY_LATENT_DIM.values(), *ARCHITECTURES.values(), *RECIPES.values(), STARTS, JUDGES]
    return list(dict.fromkeys([*CANDIDATES.values(), *(config for configs in lists for config in configs)]))


def _seconds(configs: list[Config]) -> float:
    # A few steps of the base network tell how fast this machine is; `cost` tells the rest.
    trial = replace(BASE, images=1_280, epochs=1)
    train = data.load().train
    few = data.Split(*(part[: trial.images] for part in train))
    real = [replace(config, images=min(config.images, len(train.labels))) for config in configs]
    network = build(trial)
    optimizer = optimizer_for(network, trial)
    with one_thread():
        for _ in range(2):  # the first warms up
            start = time.perf_counter()
            fit(network, few, reconstruct, optimizer, epochs=1, batch_size=trial.batch_size, seed=0)
    return (time.perf_counter() - start) * sum(map(cost, real)) / cost(trial)


def main() -> None:
    """Print the plan, then train what is missing."""
    home = checkpoints.folder(data.load().name)
    configs = everything()

    def lacking(wanted: list[Config]) -> list[Config]:
        return [config for config in wanted if not (home / f"{config.name}.safetensors").exists()]

    # Until the best candidate can be told, the first stands for it: its further seeds take as long.
    undecided = lacking(list(CANDIDATES.values()))
    best = next(iter(CANDIDATES.values())) if undecided else best_candidate()
    missing = lacking([*configs, *seeded(best)[1:]])
    if missing:
        workers = joblib.cpu_count()
        minutes = _seconds(missing) / 60
        longest = minutes * max(map(cost, missing)) / sum(map(cost, missing))
        print(
            f"{len(missing)} networks to train, about {minutes / workers:.0f} minutes on {workers} cores; "
            f"the longest, {longest:.0f} minutes each, come first",
            flush=True,
        )
    trained_all(configs)
    trained_all(seeded(best_candidate()))
    for scheme in SCHEMES:
        transfer_all(experiment for draws in transfers(scheme).values() for experiment in draws)
    transfer_all(experiment for draws in transfers_of_best().values() for experiment in draws)


if __name__ == "__main__":
    main()

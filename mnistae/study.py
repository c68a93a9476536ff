"""The study's experiments, as data: change a list, run the notebooks, and a new question is answered.

`python -m mnistae.study` trains whatever of it has no checkpoint yet.
"""

from dataclasses import replace

from mnistae.training import Config

SEEDS = (0, 1, 2)
LATENT_DIMS = (2, 4, 8, 10, 16, 32, 64)
BASE = Config()


def seeded(config: Config) -> list[Config]:
    """The same experiment under each seed of the study."""
    return [replace(config, seed=seed) for seed in SEEDS]


BY_LATENT_DIM = {d: seeded(replace(BASE, latent_dim=d)) for d in LATENT_DIMS}

# Chapter 1 (ii), all at d = 10: depth at the base widths; width and kernel at three layers.
THREE = replace(BASE, channels=(16, 32, 64))
ARCHITECTURES = {
    "1 layer": seeded(replace(BASE, channels=(16,))),
    "2 layers": seeded(replace(BASE, channels=(16, 32))),
    "3 layers": seeded(THREE),
    "4 layers (base)": seeded(BASE),
    "3 layers, width ×½": seeded(replace(THREE, channels=(8, 16, 32))),
    "3 layers, width ×2": seeded(replace(THREE, channels=(32, 64, 128))),
    "3 layers, kernel 5": seeded(replace(THREE, kernel_size=5)),
}

# Chapter 2: an independent judge of digits, which never sees a reconstruction while it learns.
JUDGES = seeded(replace(BASE, task="classify", latent_dim=64, epochs=4, distortion=1.0))

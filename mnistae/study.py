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
THREE = replace(BASE, channels=(8, 32, 64))
ARCHITECTURES = {
    "1 layer": seeded(replace(BASE, channels=(8,))),
    "2 layers": seeded(replace(BASE, channels=(8, 32))),
    "3 layers": seeded(THREE),
    "4 layers (base)": seeded(BASE),
    "3 layers, width ×½": seeded(replace(THREE, channels=(4, 16, 32))),
    "3 layers, width ×2": seeded(replace(THREE, channels=(16, 64, 128))),
    "3 layers, kernel 5": seeded(replace(THREE, kernel_size=5)),
}

# Chapter 2: an independent judge of digits, which never sees a reconstruction while it learns.
JUDGES = seeded(replace(BASE, task="classify", latent_dim=64, epochs=4, distortion=1.0))

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

# Chapter 1 (iii): wider and longer; whether to distort the training images is decided on validation images.
WIDE = replace(BASE, channels=(16, 64, 128, 176), epochs=14)
CANDIDATES = {"plain": WIDE, "distorted": replace(WIDE, distortion=1.0)}

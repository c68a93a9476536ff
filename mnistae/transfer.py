"""Transfer learning from tens of labels: one experiment, one line of a cached table."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from mnistae import checkpoints, data, measures
from mnistae.data import Split
from mnistae.networks import Classifier
from mnistae.training import Config, build, classify, fit, in_parallel, one_thread, trained

SCHEMES = ("frozen", "fine_tuned", "from_scratch", "logistic_code", "logistic_pca", "logistic_pixels")
TUNING_DRAWS = 1_000  # draws from here on are judged on validation images, those below on test images


@dataclass(frozen=True)
class Transfer:
    """One classifier learnt from labels_per_class · 10 training images.

    scheme: one of SCHEMES. encoder: the auto-encoder whose encoder is used (its seed follows the draw).
    draw: which images, and the head's initial weights. head_rate, encoder_rate: peak learning rates of AdamW.
    noise: of the codes while training, in their standard deviations. fixed_norm: keep batch-norm statistics.
    For the logistic schemes `penalty` (1/C) alone counts.
    """

    scheme: str
    encoder: Config
    labels_per_class: int
    draw: int
    hidden: int = 64
    steps: int = 200
    head_rate: float = 0.01
    encoder_rate: float = 0.0
    weight_decay: float = 0.01
    noise: float = 0.3
    fixed_norm: bool = True
    penalty: float = 0.1

    def __post_init__(self):
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme={self.scheme!r}: allowed is one of {', '.join(SCHEMES)}")


class Outcome(NamedTuple):
    """accuracy: on all test images (validation images for tuning draws); moved: see `encoder_moved`."""

    accuracy: float
    train_accuracy: float
    moved: float


class _Noise(nn.Module):
    # In units of each coordinate's own spread, so one strength fits every encoder and every d.
    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength

    def forward(self, z: Tensor) -> Tensor:
        if not (self.training and self.strength):
            return z
        return z + self.strength * z.std(0).detach() * torch.randn_like(z)

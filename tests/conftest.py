"""Tests run on small data of their own; MNIST itself is only read where a test says so."""

import matplotlib
import pytest
import torch

from mnistae import checkpoints, data

matplotlib.use("Agg")


@pytest.fixture
def small_data(monkeypatch, tmp_path):
    """400 blurred blobs in place of MNIST, and an empty folder in place of the checkpoints."""
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 10
    centres = torch.stack([5 + 2 * labels, 22 - 2 * labels], 1) + torch.randn(400, 2, generator=chance)
    grid = torch.arange(28.0)
    x = torch.exp(-((grid - centres[:, :1]) ** 2) / 20)
    y = torch.exp(-((grid - centres[:, 1:]) ** 2) / 20)
    images = (y[:, :, None] * x[:, None, :])[:, None]
    split = data.Split(images, labels)
    small = data.Data(
        split, data.Split(images[:100], labels[:100]), data.Split(images[100:200], labels[100:200]), "MNIST"
    )
    monkeypatch.setattr(data, "load", lambda: small)
    monkeypatch.setattr(checkpoints, "folder", lambda dataset: tmp_path / "checkpoints")
    return small

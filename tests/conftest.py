"""Tests run on small data of their own; MNIST itself is only read where a test says so."""

import matplotlib
import pytest
import torch

from mnistae import checkpoints, data

matplotlib.use("Agg")


@pytest.fixture
def small_data(monkeypatch, tmp_path):
    """600 blurred blobs in place of MNIST, and an empty folder in place of the checkpoints."""
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 10
    centres = torch.stack([5 + 2 * labels, 22 - 2 * labels], 1) + torch.randn(600, 2, generator=chance)
    grid = torch.arange(28.0)
    x = torch.exp(-((grid - centres[:, :1]) ** 2) / 20)
    y = torch.exp(-((grid - centres[:, 1:]) ** 2) / 20)
    images = (y[:, :, None] * x[:, None, :])[:, None]
    parts = zip(images.split([400, 100, 100]), labels.split([400, 100, 100]), strict=True)
    small = data.Data(*(data.Split(x.clone(), y.clone()) for x, y in parts), "MNIST")
    monkeypatch.setattr(data, "load", lambda: small)
    monkeypatch.setattr(checkpoints, "folder", lambda dataset: tmp_path / "checkpoints")
    return small

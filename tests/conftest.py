"""Tests run on small data of their own; MNIST itself is only read where a test says so."""

import matplotlib
import pytest
from small import small

from mnistae import checkpoints, data

matplotlib.use("Agg")


@pytest.fixture
def small_data(monkeypatch, tmp_path):
    """Blurred blobs in place of MNIST, and an empty folder in place of the checkpoints."""
    blobs = small()
    monkeypatch.setattr(data, "load", lambda: blobs)
    monkeypatch.setattr(checkpoints, "folder", lambda dataset: tmp_path / "checkpoints")
    return blobs

"""Tests run on small data of their own; MNIST itself is only read where a test says so."""

import matplotlib
import pytest
from small import small

from mnistae import checkpoints, data

matplotlib.use("Agg")


@pytest.fixture(scope="session", autouse=True)
def _committed_networks_stay_as_they_are():
    home = checkpoints.folder("MNIST")
    before = {path.name: path.stat().st_mtime_ns for path in home.iterdir()}
    yield
    assert {path.name: path.stat().st_mtime_ns for path in home.iterdir()} == before


@pytest.fixture
def small_data(monkeypatch, tmp_path):
    """Blurred blobs in place of MNIST, and an empty folder in place of the checkpoints."""
    blobs = small()
    monkeypatch.setattr(data, "load", lambda: blobs)
    monkeypatch.setattr(checkpoints, "folder", lambda dataset: tmp_path / "checkpoints")
    return blobs

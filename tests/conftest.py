"""Tests run on small data of their own; MNIST itself is only read where a test says so."""

import matplotlib
import pytest
from small import small

from mnistae import data
from mnistae.store import Store

matplotlib.use("Agg")
COMMITTED = data.ROOT / "checkpoints"


@pytest.fixture(scope="session", autouse=True)
def _committed_networks_stay_as_they_are():
    before = {path.name: path.stat().st_mtime_ns for path in COMMITTED.iterdir()}
    yield
    assert {path.name: path.stat().st_mtime_ns for path in COMMITTED.iterdir()} == before


@pytest.fixture
def mnist():
    return small()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "MNIST")

"""Tests run on small data of their own; MNIST itself is only read where a test says so."""

import os

import matplotlib
import pytest
from small import small

from mnistae import data
from mnistae.store import OWN, Store

matplotlib.use("Agg")
if os.name == "nt":  # these interrupt processes as Unix does, link files, or run make
    collect_ignore = ["test_project.py", "test_runs.py", "test_store.py", "test_study.py"]
COMMITTED = data.ROOT / "checkpoints"


def committed():
    """When each stored file changed last, without the user's own outcomes."""
    return {
        path.name: path.stat().st_mtime_ns for path in COMMITTED.iterdir() if not path.name.startswith(OWN)
    }


@pytest.fixture(scope="session", autouse=True)
def _committed_networks_stay_as_they_are():
    """The user may train own ones meanwhile, in JupyterLab or in a notebook under nbval."""
    before = committed()
    yield
    assert before.items() <= committed().items()


@pytest.fixture
def mnist():
    return small()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "MNIST")

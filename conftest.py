"""Notebooks are compared with what they show on MNIST, never with what they show on the stand-in."""

import os
import warnings

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the kernels too: steadier, and no slower side by side


def pytest_collection_modifyitems(items):
    cells = [item for item in items if type(item).__module__.startswith("nbval")]
    if not cells:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mnistae import data

        name = data.load().name
    if name != "MNIST":
        for cell in cells:
            cell.add_marker(pytest.mark.skip(reason=f"the data is {name}: stored outputs are MNIST's"))

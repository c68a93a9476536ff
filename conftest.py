"""Notebooks are compared with what they show on MNIST; on the embedded sample they are executed only."""

import os
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the kernels too: steadier, and no slower side by side
ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "report"))


def pytest_configure(config):
    if not getattr(config.option, "nbval", False):
        return
    from run import Failed, own_settings

    from mnistae import data

    config.empty = tempfile.TemporaryDirectory()  # goes with the session
    try:
        os.environ |= own_settings(config.empty.name, ROOT / "notebooks")
    except Failed as failure:
        raise pytest.UsageError(str(failure)) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = data.load().name
    if name != "MNIST":  # so what a cell shows is not compared, but an error still fails
        os.environ["MNISTAE_DATA"] = "sample"  # so that no kernel waits for a download again
        config.option.nbval, config.option.nbval_lax = False, True


def pytest_report_header(config):
    if getattr(config.option, "nbval_lax", False):
        return "notebooks: executed on the embedded sample, outputs not compared with MNIST's"

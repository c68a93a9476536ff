"""Claims that are checked where they are made, and numbers on their way to the report."""

import json
from typing import Any

import numpy as np
from IPython.display import Markdown, display

from mnistae import data
from mnistae.checkpoints import atomic_write

FILE = data.ROOT / "report" / "build" / "results.json"


def claim(sentence: str, holds: bool) -> None:
    """Show a sentence that the cell has just proved. On the stand-in, whose story may differ, only show it.

    Raises AssertionError if the sentence does not hold.
    """
    if data.load().name != "MNIST":
        display(Markdown(f"(a claim about MNIST, not checked on {data.STAND_IN}) {sentence}"))
        return
    assert holds, f"does not hold: {sentence}"
    display(Markdown(f"✓ {sentence}"))


def record(chapter: str, values: Any) -> None:
    """Put a chapter's headline numbers into the run's results, rounded to 4 significant digits.

    The run's file is report/build/results.json; `make refresh` makes it report/results.json, on MNIST alone.
    """
    dataset = data.load().name
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    if known.get("dataset") != dataset:
        known = {"dataset": dataset}  # nothing of one data set may stand beside another's
    known[chapter] = _rounded(values)
    atomic_write(FILE, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _rounded(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_rounded(value) for value in values]
    if isinstance(values, float):
        return float(f"{values:.4g}")
    return values


def mean_sd(values: list[float], digits: int = 4) -> str:
    """ "mean ± sd" over seeds or draws (sample standard deviation), for tables and sentences."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"

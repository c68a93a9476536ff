"""Claims that are checked where they are made, and numbers on their way to the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import Markdown, display

from mnistae import data
from mnistae.checkpoints import atomic_write

FOLDER = data.ROOT / "report" / "build" / "results"


def claim(sentence: str, holds: bool, about_mnist: bool = True) -> None:
    """Show a sentence that the cell has just proved; on the stand-in, one about MNIST goes unchecked.

    Raises AssertionError if the sentence does not hold.
    """
    if about_mnist and data.load().name != "MNIST":
        display(Markdown(f"(of MNIST, not checked on the {data.STAND_IN}) {sentence}"))
        return
    if not holds:
        raise AssertionError(f"does not hold: {sentence}")
    display(Markdown(f"✓ {sentence}"))


def record(chapter: str, values: Any) -> None:
    """Keep a chapter's headline numbers, rounded to 6 significant digits, with the name of their data.

    One file a chapter, since chapters run side by side; `collected` joins them.
    """
    kept = {"dataset": data.load().name, "values": _rounded(values)}
    atomic_write(FOLDER / f"{chapter}.json", (json.dumps(kept, indent=1) + "\n").encode())


def collected(folder: Path = FOLDER) -> dict[str, Any]:
    """All recorded chapters by name, and "dataset". Raises ValueError if they were run on different data."""
    chapters = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    datasets = {kept["dataset"] for kept in chapters.values()}
    if len(datasets) > 1:
        raise ValueError(f"{folder} mixes {' and '.join(sorted(datasets))}: run all the notebooks again")
    return {"dataset": "".join(datasets), **{name: kept["values"] for name, kept in chapters.items()}}


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _rounded(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_rounded(value) for value in values]
    if isinstance(values, float):
        return float(f"{values:.6g}")
    return values


def mean_sd(values: list[float], digits: int = 4) -> str:
    """ "mean ± sd" over seeds or draws (sample standard deviation), for tables and sentences."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"

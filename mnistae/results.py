"""Tidy tables, claims that are checked where they are made, and numbers on their way to the report."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from mnistae import data
from mnistae.checkpoints import atomic_write

FOLDER = data.ROOT / "report" / "build" / "results"


def announce(loaded: data.Data) -> None:
    """Say which images a chapter works on, to its readers and in the output's metadata to the report."""
    sizes = "{:,} training, {:,} validation and {:,} test images".format(*(len(s.labels) for s in loaded[:3]))
    text = f"Data: {loaded.name}, {sizes}."
    if loaded.name != "MNIST":
        text = (
            f"**NOT RESULTS.** Data: the {loaded.name} of MNIST's *training* images, {sizes}. The committed "
            f"networks have seen these images while they learnt, so all errors are training errors, and "
            f"what the text says of numbers need not hold. With MNIST at hand, this notebook gives results."
        )
    display(Markdown(text), metadata={"mnistae": {"data": loaded.name}})


def table(results: Mapping[Any, Any]) -> pd.DataFrame:
    """A tidy table: one row an experiment, with its fields and its result's.

    results: experiment (a dataclass) -> result (a named tuple), as of `trained_all` and `transfer_all`.
    """
    return pd.DataFrame(vars(experiment) | result._asdict() for experiment, result in results.items())


def mean_sd(values: Sequence[float] | pd.Series, digits: int = 4) -> str:
    """Mean ± sample standard deviation over seeds or draws, as text."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def falls(frame: pd.DataFrame, y: str, by: str) -> bool:
    """Whether y falls at every step of `by` by more than the spread: all of a group below all of the last."""
    return all(max(after) < min(before) for before, after in pairwise(v for _, v in frame.groupby(by)[y]))


def claim(sentence: str, holds: bool, about_mnist: bool = True) -> None:
    """Show a sentence that the cell has just proved; AssertionError if it does not hold.

    One about MNIST goes unchecked on the embedded sample.
    """
    if about_mnist and data.load().name != "MNIST":
        display(Markdown(f"(of MNIST, not checked on the {data.load().name}) {sentence}"))
    elif holds:
        display(Markdown(f"✓ {sentence}"))
    else:
        raise AssertionError(f"does not hold: {sentence}")


def answer(text: str) -> None:
    """Show an answer to the exercise; on the embedded sample it is marked as none."""
    mark = "" if data.load().name == "MNIST" else f"(on the {data.load().name}, no result) "
    display(Markdown(mark + text))


def record(chapter: str, values: Any, headlines: Mapping[str, str]) -> None:
    """Keep a chapter's numbers, rounded to 6 significant digits, in its own file; `collected` joins them.

    chapter: number and name, as "1_reconstruction". headlines: question -> answer, its rows in the README.
    """
    exact = json.dumps(values, default=np.generic.item)
    rounded = json.loads(exact, parse_float=lambda digits: float(f"{float(digits):.6g}"))
    kept = {"dataset": data.load().name, "values": rounded, "headlines": dict(headlines)}
    atomic_write(FOLDER / f"{chapter}.json", json.dumps(kept).encode())


def collected(folder: Path = FOLDER) -> dict[str, Any]:
    """All recorded chapters by name, their "headlines", and the "dataset"; ValueError if there are two."""
    files = sorted(folder.glob("*.json"))
    chapters = {path.stem.split("_", 1)[-1]: json.loads(path.read_text()) for path in files}
    datasets = {kept["dataset"] for kept in chapters.values()}
    if len(datasets) > 1:
        raise ValueError(f"{folder} mixes {' and '.join(sorted(datasets))}: run all the notebooks again")
    headlines = {question: text for kept in chapters.values() for question, text in kept["headlines"].items()}
    values = {name: kept["values"] for name, kept in chapters.items()}
    return {"dataset": "".join(datasets), "headlines": headlines, **values}

"""A chapter's tables, claims and numbers, each with the name of the data that it was made from."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

from mnistae import data
from mnistae.store import atomic_write

FOLDER = data.ROOT / "report" / "build" / "results"


def tidy(results: Mapping[Any, Any]) -> pd.DataFrame:
    """A tidy table: one row per experiment, with its fields and those of its result.

    results: experiment (a dataclass) -> result (a named tuple), see `trained_all` and `evaluate_all`.
    """
    return pd.DataFrame(vars(experiment) | result._asdict() for experiment, result in results.items())


def mean_sd(values: Sequence[float] | pd.Series, digits: int = 4) -> str:
    """Mean ± sample standard deviation over seeds or draws, as text; a small deviation with one digit."""
    sd = np.std(values, ddof=1)
    small = 0 < sd < 0.5 * 10**-digits  # would be rounded to zero
    said = np.format_float_positional(sd, 1, fractional=False) if small else f"{sd:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {said}"


def decreases(frame: pd.DataFrame, y: str, by: str) -> bool:
    """Whether y decreases at every step of `by`, so that the ranges of neighbouring groups do not overlap."""
    return all(max(after) < min(before) for before, after in pairwise(v for _, v in frame.groupby(by)[y]))


@dataclass(frozen=True)
class Chapter:
    """What a notebook shows and records, marked by the data set that it works on.

    name: number and name, as "1_reconstruction". On the embedded sample claims are not checked, and answers,
    figures and tables are marked as no result.
    """

    name: str
    dataset: str = ""  # none: theory
    folder: Path = FOLDER  # for the recorded numbers

    @classmethod
    def on(cls, name: str, mnist: data.Data) -> "Chapter":
        """A chapter on these data, which it names to its readers and, in the metadata, to the report."""
        train, validation, test = (f"{len(split.labels):,}" for split in mnist[:3])
        text = f"Data: {mnist.name}, {train} training, {validation} validation and {test} test images."
        if mnist.name == data.SAMPLE:
            text = (
                f"**NOT RESULTS.** {text} The committed networks were trained on these images. So errors are "
                f"training errors, and numbers may differ from the text. Run it with MNIST to get results."
            )
        display(Markdown(text), metadata={"mnistae": {"data": mnist.name}})
        return cls(name, mnist.name)

    def note(self, stored: pd.DataFrame | None = None) -> str:
        """The note on a figure or table that says which data it shows, "" on MNIST.

        stored: the tidy table of stored results that it is made of, if it shows nothing else.
        """
        if self.dataset != data.SAMPLE:
            return ""
        if stored is not None and set(stored.dataset) == {"MNIST"}:
            return "MNIST's stored results"
        return f"NOT RESULTS: {self.dataset}, seen in training"

    def show(self, stored: pd.DataFrame | None = None) -> None:
        """Show the current figure and close it; its `note` is written across it in red."""
        figure, content, note = plt.gcf(), io.BytesIO(), self.note(stored)
        if note:
            red: dict[str, Any] = {"color": "red", "fontsize": 13, "alpha": 0.45, "zorder": 10}
            figure.text(0.5, 0.5, note, ha="center", va="center", **red)
        options: dict[str, Any] = {"dpi": figure.dpi, "bbox_inches": "tight", "metadata": {"Software": None}}
        figure.savefig(content, format="png", **options)
        plt.close(figure)
        picture = base64.b64encode(content.getvalue()).decode()
        # The text is what nbval compares, so it must not change with the version of matplotlib.
        display({"image/png": picture, "text/plain": "<Figure>"}, metadata=_metadata(note), raw=True)

    def table(self, frame: pd.DataFrame, stored: pd.DataFrame | None = None) -> HTML:
        """A table without its index, alike in notebook, page and PDF; its `note` is the caption, in red."""
        note = self.note(stored)
        caption = f'<caption style="color:red">{note}</caption>' if note else ""
        plain = frame.rename_axis(columns=None)  # its name would stand over an empty column
        own: tuple[Any, ...] = ("display.float_format", None, "display.max_colwidth", None)
        own += ("display.precision", 6, "display.chop_threshold", None, "display.max_seq_items", 100)
        with pd.option_context(*own):  # a reader's options must not change the digits
            cells = plain.to_html(index=False, border=0, na_rep="", max_rows=None, max_cols=None)
        return HTML(cells.replace("<thead>", f"{caption}<thead>"), metadata=_metadata(note))

    def claim(self, sentence: str, holds: object, about_mnist: bool = True) -> None:
        """Show a sentence that the cell has just checked; AssertionError if it does not hold.

        A sentence about MNIST is not checked on the embedded sample.
        """
        if about_mnist and self.dataset == data.SAMPLE:
            display(Markdown(f"(of MNIST, not checked on the {self.dataset}) {sentence}"))
        elif holds:
            display(Markdown(f"✓ {sentence}"))
        else:
            raise AssertionError(f"does not hold: {sentence}")

    def answer(self, text: str) -> None:
        """Show an answer to the exercise; on the embedded sample it is marked as no result."""
        mark = f"(on the {self.dataset}, no result) " if self.dataset == data.SAMPLE else ""
        display(Markdown(mark + text))

    def record(self, values: Any, headlines: Mapping[str, str], part: str = "") -> None:
        """Keep numbers, rounded to 6 significant digits, in a file for `collected`.

        headlines: question -> answer, rows of the README's table. part: ending of the key for more numbers.
        """
        exact = json.dumps(values, default=np.generic.item)
        rounded = json.loads(exact, parse_float=lambda digits: float(f"{float(digits):.6g}"))
        kept = {"dataset": self.dataset, "values": rounded, "headlines": dict(headlines)}
        atomic_write(self.folder / f"{self.name}{part}.json", json.dumps(kept).encode())


def _metadata(note: str) -> dict[str, Any]:
    return {"mnistae": {"note": note}} if note else {}


def collected(folder: Path = FOLDER) -> dict[str, Any]:
    """All recorded numbers by key, their "headlines", and the "dataset"; ValueError if there are two."""
    files = sorted(folder.glob("*.json"))
    chapters = {path.stem.split("_", 1)[-1]: json.loads(path.read_text()) for path in files}
    datasets = {kept["dataset"] for kept in chapters.values()}
    if len(datasets) > 1:
        raise ValueError(f"{folder} mixes {' and '.join(sorted(datasets))}: run all the notebooks again")
    headlines = {question: text for kept in chapters.values() for question, text in kept["headlines"].items()}
    values = {name: kept["values"] for name, kept in chapters.items()}
    return {"dataset": "".join(datasets), "headlines": headlines, **values}

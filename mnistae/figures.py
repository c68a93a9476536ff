"""One look for all figures of the report; functions take tables and tensors, never files."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import ArrayLike
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn.functional import pad

COLOURS = sns.color_palette("colorblind")  # all readers can tell them apart; in grey, markers do
MARKERS = ["o", "s", "D", "^", "v", "P", "X", ">"]
HALO = [withStroke(linewidth=3, foreground="white")]  # keeps letters legible on dots and lines


def style() -> None:
    """Set the look of the figures, independent of the reader's own settings."""
    rc: dict[str, Any] = {"figure.figsize": (5.8, 3.5), "figure.constrained_layout.use": True}
    rc |= {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.4}
    rc |= {"legend.frameon": False, "image.cmap": "gray_r"}  # ink on paper: digits print dark
    plt.rcdefaults()  # a reader's matplotlibrc may ask for LaTeX
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.95, rc=rc)
    warnings.filterwarnings("ignore", "The figure layout has changed to tight")  # seaborn's grids do so
    warnings.filterwarnings("ignore", "Calling float on a single element Series")  # pandas 2, one point


def image_grid(rows: Mapping[str, Tensor], columns: Sequence[str] = (), size: float = 0.62) -> Figure:
    """Rows of images with their names on the left. rows: name -> (N, 1, 28, 28) in [0, 1].

    columns: headings, from the left. size: inches an image. One picture, since an axis an image is slow.
    """
    tiles = pad(torch.stack(list(rows.values()))[:, :, 0], (2, 2, 2, 2))  # (rows, N, 32, 32)
    count = tiles.shape[1]
    sheet = tiles.transpose(1, 2).reshape(32 * len(rows), 32 * count)
    names = max(len(name) for name in rows) * 0.085 + 0.1  # inches
    figure, axis = plt.subplots(figsize=(names + count * size, len(rows) * size + 0.2))
    axis.imshow(sheet.numpy(), vmin=0, vmax=1, interpolation="nearest")
    axis.set_yticks(np.arange(len(rows)) * 32 + 15.5, rows, fontsize=10)
    axis.set_xticks(np.arange(len(columns)) * 32 + 15.5, columns, fontsize=9)
    axis.tick_params(length=0, labeltop=True, labelbottom=False, pad=3)
    axis.grid(False)
    sns.despine(ax=axis, left=True, bottom=True)
    return figure


def sweep(frame: pd.DataFrame, x: str, y: str, hue: str | None = None, **options: Any) -> Axes:
    """Means of a tidy table with bars of one sample standard deviation, and each run as a faint dot.

    hue: the column that separates curves, by colour and marker. options: what seaborn takes, such as ax.
    """
    bars = {"errorbar": "sd", "err_style": "bars", "err_kws": {"capsize": 3}}
    marks: dict[str, Any] = {"marker": "o"}
    if hue:
        marks = {"style": hue, "markers": MARKERS[: frame[hue].nunique()], "dashes": False}
    axis = sns.lineplot(frame, x=x, y=y, hue=hue, **(bars | marks | options))
    dots = {name: options[name] for name in ("color", "palette", "hue_order") if name in options}
    return sns.scatterplot(frame, x=x, y=y, hue=hue, s=14, alpha=0.4, legend=False, ax=axis, **dots)


def correlation_map(axis: Axes, r: np.ndarray, title: str, bar: bool = False) -> None:
    """Heat map of correlations r: (d, d), coordinates ordered so that groups stand together, on -1 to 1."""
    distance = squareform(1 - np.abs(r), checks=False)
    order = leaves_list(linkage(distance, "average", optimal_ordering=True))
    options = {"cmap": "RdBu_r", "square": True, "xticklabels": False, "yticklabels": False}
    options |= {"cbar": bar, "cbar_kws": {"label": "Pearson r"}}
    sns.heatmap(r[np.ix_(order, order)], vmin=-1, vmax=1, ax=axis, **options)
    axis.set_title(title)


def ticks_at(axis: Axes, values: Sequence[float], label: str) -> None:
    """A logarithmic x axis with a tick at each value of a sweep, and no other."""
    axis.set(xscale="log", xlabel=label)
    axis.set_xticks(values, [f"{value:,}" for value in values], fontsize=10)
    axis.xaxis.set_minor_locator(NullLocator())


def plain_log(axis: Axes, label: str) -> None:
    """A logarithmic y axis for errors, labelled 0.01 rather than with powers."""
    axis.set(yscale="log", ylabel=label)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def digit_scatter(axis: Axes, points: ArrayLike, labels: ArrayLike) -> None:
    """Points (N, 2) coloured by digit, each digit's number at its median for readers without colour.

    A number that would cover another one is moved to its right.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    x, y = points.T
    axis.scatter(x, y, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=4, alpha=0.5, linewidths=0)
    size = np.ptp(np.quantile(points, (0.02, 0.98), axis=0), axis=0)
    places: list[np.ndarray] = []
    for digit in np.unique(labels):
        place = np.median(points[labels == digit], axis=0)
        while any(np.linalg.norm((place - other) / size) < 0.05 for other in places):
            place[0] += 0.05 * size[0]
        places.append(place)
        letters: dict[str, Any] = {"size": 15, "weight": "bold", "ha": "center", "va": "center"}
        colour = mpl.colormaps["tab10"](int(digit))
        axis.annotate(str(digit), place, color=colour, path_effects=HALO, **letters)

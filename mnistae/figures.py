"""One look for every figure of the report. Functions take tensors and numbers, never configs or files."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

COLOURS = sns.color_palette("colorblind")  # told apart by all readers; markers tell them apart in grey
MARKERS = "osD^vPX*"

_note = ""


def style(dataset: str = "MNIST") -> None:
    """Set the report's look; figures on anything but MNIST carry the data set's name in red."""
    global _note
    _note = "" if dataset == "MNIST" else f"NOT MNIST: {dataset}"
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.95)
    mpl.rcParams.update(
        {
            "figure.figsize": (7.2, 4.2),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "figure.hooks": ["mnistae.figures:stamp"],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.4,
            "legend.frameon": False,
            "lines.markersize": 6,
            "image.cmap": "gray_r",  # ink on paper: digits print dark
        }
    )


def stamp(figure: Figure) -> None:
    """Matplotlib calls this on each new figure: the stand-in names itself on every one."""
    if _note:
        figure.text(
            0.5, 0.5, _note, color="red", fontsize=18, ha="center", va="center", alpha=0.45, zorder=10
        )


def image_grid(rows: Mapping[str, Tensor], columns: Sequence[str] = (), size: float = 0.62):
    """Rows of images with their names on the left. rows: name -> (N, 1, 28, 28) in [0, 1], N equal in all.

    columns: N headings. size: inches an image. Returns the Figure.
    """
    count = max(len(images) for images in rows.values())
    names = max(len(name) for name in rows) * 0.085 + 0.1  # inches
    figure, axes = plt.subplots(
        len(rows),
        count,
        squeeze=False,
        layout="constrained",
        figsize=(names + count * size, len(rows) * size + 0.15),
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for strip, (name, images) in zip(axes, rows.items(), strict=True):
        for axis in strip:
            axis.set_axis_off()
        for axis, image in zip(strip, images, strict=False):
            axis.imshow(image[0].numpy(), vmin=0, vmax=1)
        strip[0].text(-0.1, 0.5, name, transform=strip[0].transAxes, ha="right", va="center", fontsize=10)
    for axis, heading in zip(axes[0], columns, strict=False):
        axis.set_title(heading, fontsize=9, pad=2)
    return figure


def sweep(
    axis: Axes, x: Sequence[float], runs: Sequence[Sequence[float]], label: str, index: int = 0
) -> None:
    """A curve of means with bars of one sample standard deviation, and each run as a faint dot.

    runs: for each x, the values of its seeds or draws. index: which colour and marker.
    """
    mean = [np.mean(values) for values in runs]
    sd = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in runs]
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    axis.errorbar(x, mean, sd, color=colour, marker=marker, capsize=3, label=label)
    for position, values in zip(x, runs, strict=True):
        axis.plot([position] * len(values), values, ".", color=colour, alpha=0.35, markersize=4)


def correlation_map(axis: Axes, r: np.ndarray, title: str, bar: bool = False) -> None:
    """Heat map of correlations r: (d, d), coordinates ordered so that groups stand together, on -1 to 1."""
    distance = squareform(1 - np.abs(r), checks=False)
    order = leaves_list(linkage(distance, "average", optimal_ordering=True))
    sns.heatmap(
        r[np.ix_(order, order)],
        ax=axis,
        vmin=-1,
        vmax=1,
        center=0,
        cmap="RdBu_r",
        square=True,
        cbar=bar,
        cbar_kws={"label": "Pearson r"},
        xticklabels=False,
        yticklabels=False,
    )
    axis.set_title(title)


def table(columns: Mapping[str, Sequence]) -> HTML:
    """A table without row numbers, which reads alike in the notebook, on a page and in the PDF."""
    return HTML(pd.DataFrame(columns).to_html(index=False, border=0))


def size_axis(axis: Axes, latent_dims: Sequence[int]) -> None:
    """A logarithmic x axis for the size of the code, with a tick at each size of the study."""
    axis.set(xscale="log", xlabel="size of the code d")
    axis.set_xticks(latent_dims, latent_dims, fontsize=10)
    axis.xaxis.set_minor_locator(NullLocator())


def plain_log(axis: Axes) -> None:
    """A logarithmic y axis for errors, labelled 0.01 rather than with powers."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def digit_scatter(axis: Axes, points: np.ndarray, labels: Tensor) -> None:
    """Points coloured by digit, each digit's name at its median for eyes and printers without colour.

    points: (N, 2); labels: (N,) in 0..9.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    axis.scatter(*points.T, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=4, alpha=0.5, linewidths=0)
    for digit in np.unique(labels):
        text = axis.text(*np.median(points[labels == digit], axis=0), str(digit), fontsize=15, weight="bold")
        text.set(color=mpl.colormaps["tab10"](int(digit)), ha="center", va="center")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])

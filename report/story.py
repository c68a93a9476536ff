"""The study in one picture, from report/results.json: what a larger code does for pixels and for digits."""

import io
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from run import ROOT, Failed

from mnistae import figures

PICTURE = ROOT / "report" / "story.png"
SENTENCE = "Around d = 10 a code describes the digit best; at d = 64 it describes the pixels best."
ALT = (
    "Four panels against the size of the code d (2 to 64) for auto-encoder and PCA. The test error falls "
    "for both. Midpoints are most often one of the two digits at d = 8 and 10, at 64 no more often than "
    "blended pixels. The participation ratio over d falls for both. Accuracy with 50 labels is highest near "
    "d = 10. In error, midpoints and accuracy the auto-encoder is better than PCA at every d."
)
CODE, PCA, PIXELS = "auto-encoder", "PCA", "the pixels themselves"


def by_size(kept, name):
    """{d: numbers} from {d: {name: numbers}}."""
    return {d: row[name] for d, row in kept.items()}


def tidy(rows, method, size, value, names):
    """{method: {d: numbers}} from rows with these fields. names: what they call CODE, PCA and PIXELS."""
    frame = pd.DataFrame(rows).set_index([method, size])[value]
    return {ours: frame[theirs].to_dict() for ours, theirs in zip((CODE, PCA, PIXELS), names, strict=True)}


BLENDING = ("auto-encoder", "PCA", "pixel blending")
SPREADING = ("spreading_code", "spreading_pca", "spreading_pixels")
# A panel a chapter. Key in results.json: the numbers that are drawn of it, {method: {d: one or a list}},
# title, label. The d of PIXELS is not used.
PANELS = {
    "reconstruction": (
        lambda kept: {CODE: by_size(kept["by_latent_dim"], "test_mse"), PCA: kept["pca"]},
        "Error falls with d",
        "test error\n(MSE per pixel)",
    ),
    "interpolation_midpoints": (
        lambda kept: tidy(kept["methods"], "method", "d", "sure_end", BLENDING),
        "Midpoints: best at 8 and 10",
        "surely one of the\ntwo digits (share)",
    ),
    "decorrelation_invariant": (
        lambda kept: {CODE: by_size(kept, "network"), PCA: by_size(kept, "pca")},
        "Evenness falls with d",
        "participation\nratio / d",
    ),
    "transfer_spreading": (
        lambda kept: tidy(
            [row for row in kept if row["labels_per_class"] == 5],
            *("scheme", "latent_dim", "test_accuracy", SPREADING),
        ),
        "50 labels: best near d = 10",
        "test accuracy,\nlabel spreading",
    ),
}


def measured(results):
    """What is drawn, as a tidy table: chapter, method, d, value. Raises Failed for a key that is missing."""
    rows = []
    for chapter, (key, (read, *_)) in enumerate(PANELS.items(), start=1):
        if key not in results:
            raise Failed(
                f"results.json has no '{key}', of chapter {chapter}: run all notebooks with `make refresh`"
            )
        try:
            for method, sizes in read(results[key]).items():
                rows += [(chapter, method, int(d), v) for d in sizes for v in np.ravel(sizes[d]).tolist()]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Failed(f"'{key}' of chapter {chapter} has another form than story.py: {error!r}") from None
    return pd.DataFrame(rows, columns=["chapter", "method", "d", "value"])


def means(table):
    """The mean of the numbers for each chapter, method and d."""
    return table.groupby(["chapter", "method", "d"]).value.mean()


def unsupported(table):
    """What sentence, titles and ALT say without support from the numbers."""
    (error, sure, even, labels), pca = ([means(table)[n, m] for n in (1, 2, 3, 4)] for m in (CODE, PCA))
    blending = means(table)[2, PIXELS].mean()
    better = (pca[0] > error).all() and (sure > pca[1]).all() and (labels > pca[3]).all()
    falling = [error, pca[0], even, pca[2]]
    said = {
        "error and participation ratio fall": all(curve.is_monotonic_decreasing for curve in falling),
        "midpoints are best at d = 8 and 10": set(sure.nlargest(2).index) == {8, 10},
        "the largest code's midpoints are like blended pixels": abs(sure.iloc[-1] - blending) < 0.03,
        "50 labels go furthest near d = 10": labels.idxmax() in (8, 10, 16),
        "the auto-encoder is better than PCA": better,
    }
    return [words for words, holds in said.items() if not holds]


def numbers(table):
    """The means that are drawn, as text. A picture holds its own, to be compared with the results."""
    return json.dumps([[*place, float(f"{value:.6g}")] for place, value in means(table).items()])


def picture(results):
    """The picture as PNG. Raises Failed if the numbers do not support what it says."""
    table = measured(results)
    if words := unsupported(table):
        raise Failed(f"the numbers do not support report/story.py: {'; '.join(words)}. Change its words.")
    figures.style()
    figure, axes = plt.subplots(2, 2, figsize=(7, 4.9))
    panels = zip(axes.flat, table.groupby("chapter"), PANELS.values(), strict=True)
    for axis, (chapter, part), (_, title, label) in panels:
        curves, pixels = part[part.method != PIXELS], part[part.method == PIXELS]
        look = {"hue_order": [CODE, PCA], "dashes": {CODE: "", PCA: (4, 1.5)}}
        figures.sweep(curves, "d", "value", hue="method", ax=axis, **look)
        if len(pixels):
            axis.axhline(pixels.value.mean(), color="black", linestyle=":", label=PIXELS)
            handles = axis.get_legend_handles_labels()
        axis.get_legend().remove()
        figures.ticks_at(axis, sorted(curves.d.unique()), "size of the code d" if chapter > 2 else "")
        axis.set_ylabel(label)
        axis.set_title(f"{chapter}  {title}", loc="left", size=11.5)
    figures.plain_log(axes[0, 0], PANELS["reconstruction"][2])
    figure.legend(*handles, loc="outside upper center", ncols=3)
    about = {"Software": None, "Comment": numbers(table)}
    figure.savefig(content := io.BytesIO(), format="png", dpi=160, metadata=about)
    plt.close(figure)
    return content.getvalue()

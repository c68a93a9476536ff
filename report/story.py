"""The study in one picture, from report/results.json: what a larger code does for pixels and for digits."""

import io
import json

import matplotlib.pyplot as plt
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
KEYS = ["chapter", "method", "d"]
CODE, PCA, PIXELS = "auto-encoder", "PCA", "the pixels themselves"


def tidy(rows, value, *names):
    """{method: {d: row[value]}} from rows with method and d. names: what they call CODE, PCA and PIXELS."""
    ours = dict(zip(names, (CODE, PCA, PIXELS), strict=True))
    found = {name: {} for name in ours.values()}
    for row in rows:
        if row["method"] in ours:
            found[ours[row["method"]]][row["d"]] = row[value] if value else row
    return found


def by_size(kept, name):
    """{d: kept[d][name]}."""
    return {d: row[name] for d, row in kept.items()}


# A panel a chapter. Key in results.json: what is drawn of it, title, label. What is drawn: {method: {d: ...}}
# with a number, a list of runs, or {"mean": ..., "std": ...}. The d of PIXELS is not used.
PANELS = {
    "reconstruction": (
        lambda kept: {CODE: by_size(kept["by_latent_dim"], "test_mse"), PCA: kept["pca"]},
        "Error falls with d",
        "test error\n(MSE per pixel)",
    ),
    "interpolation_midpoints": (
        lambda kept: tidy(kept, "sure_end", "auto-encoder", "PCA", "pixel blending"),
        "Midpoints: best at 8 and 10",
        "surely one of the\ntwo digits (share)",
    ),
    "decorrelation_invariant": (
        lambda kept: {CODE: by_size(kept, "network"), PCA: by_size(kept, "pca")},
        "Evenness falls with d",
        "participation\nratio / d",
    ),
    "transfer_by_size": (
        lambda kept: tidy(kept, None, "spreading, code", "spreading, PCA", "spreading, pixels"),
        "50 labels: best near d = 10",
        "test accuracy,\nlabel spreading",
    ),
}


def measured(results):
    """Mean and sd of what is drawn, by chapter, method and d. Raises Failed for a key that is missing."""
    rows = []
    for chapter, (key, (read, *_)) in enumerate(PANELS.items(), start=1):
        if key not in results:
            raise Failed(f"results.json has no '{key}': run chapter {chapter}, or all with `make refresh`")
        try:
            for method, sizes in read(results[key]).items():
                if not sizes:
                    raise KeyError(method)
                for d, kept in sizes.items():
                    runs = kept if isinstance(kept, dict) else pd.Series(kept).agg(["mean", "std"])
                    rows.append((chapter, method, int(d), runs["mean"], runs["std"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Failed(f"'{key}' of chapter {chapter} has another form than story.py: {error!r}") from None
    return pd.DataFrame(rows, columns=[*KEYS, "mean", "sd"]).set_index(KEYS).sort_index()


def unsupported(table):
    """What sentence, titles and ALT say without support from the numbers."""
    (error, sure, even, labels), pca = ([table["mean"][n, m] for n in (1, 2, 3, 4)] for m in (CODE, PCA))
    blending = table["mean"][2, PIXELS].mean()
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
    return json.dumps([[*place, float(f"{value:.6g}")] for place, value in table["mean"].items()])


def picture(results):
    """The picture as PNG. Raises Failed if the numbers do not support what it says."""
    table = measured(results)
    if words := unsupported(table):
        raise Failed(f"the numbers do not support report/story.py: {'; '.join(words)}. Change its words.")
    figures.style()
    figure, axes = plt.subplots(2, 2, figsize=(7, 4.9))
    looks = {CODE: {"marker": "o", "color": figures.COLOURS[0]}}
    looks[PCA] = {"marker": "s", "color": figures.COLOURS[1], "linestyle": "--"}
    panels = zip(axes.flat, PANELS.values(), strict=True)
    for chapter, (axis, (_, title, label)) in enumerate(panels, start=1):
        for method, look in looks.items():
            curve = table.loc[chapter, method]
            axis.errorbar(curve.index, curve["mean"], curve.sd, capsize=3, label=method, **look)
        if (chapter, PIXELS) in table.index:
            axis.axhline(table["mean"][chapter, PIXELS].mean(), color="black", linestyle=":", label=PIXELS)
            pixels, *curves = axis.get_legend_handles_labels()[0]
        named = [d for d in curve.index if d != 8]  # or 8 and 10 would read as one number
        figures.ticks_at(axis, named, "size of the code d" if chapter > 2 else "")
        axis.set_ylabel(label)
        axis.set_title(f"{chapter}  {title}", loc="left", size=11.5)
    figures.plain_log(axes[0, 0], PANELS["reconstruction"][2])
    figure.legend(handles=[*curves, pixels], loc="outside upper center", ncols=3)
    about = {"Software": None, "Comment": numbers(table)}
    figure.savefig(content := io.BytesIO(), format="png", dpi=160, metadata=about)
    plt.close(figure)
    return content.getvalue()

"""The live page in one file: live.html with live.js, the networks of weights.py and a few hundred images."""

import base64
import io
import json
from string import Template

import torch
from run import ROOT
from weights import exported, networks

from mnistae import data, figures, measures

LINK = '<a href="live.html">Live</a>'
PER_DIGIT = 30  # test images, which stand by digit
SOURCES = {
    "MNIST": "of MNIST's test images (LeCun, Cortes and Burges, 1998)",
    data.SAMPLE: "images of the embedded sample, on which the networks were trained",
}


def options(stem):
    """Pandoc's options for a page that points to the live page in its text, not only in its links."""
    return ["--variable=live"] if stem.startswith(("01", "02")) else []


def page(index):
    """The page. index: the index page, from which it takes the look, the links and, off MNIST, the stamp."""
    mnist = data.load()
    images = mnist.test.images[data.balanced_draw(mnist.test.labels, PER_DIGIT, seed=0)]
    found, ten, rows = networks(mnist.train.images), images[::PER_DIGIT], {}
    for name, net in found.items():
        path = measures.interpolate(*net.encoder(ten[:2]), torch.linspace(1, 0, 10))
        rows |= {name: net(ten), f"{name}, from 0 to 1": net.decoder(path)}
    figures.style()
    figures.image_grid({"test images": ten} | rows).savefig(strips := io.BytesIO(), format="png")
    shown = {name: exported(network, images) for name, network in found.items()}
    pixels = base64.b64encode((images * 255).round().byte().numpy().tobytes()).decode()
    text = {name: (ROOT / "report" / name).read_text("utf-8") for name in ("live.html", "live.js")}
    return Template(text["live.html"]).substitute(
        style=index.partition("<style>")[2].partition("</style>")[0],
        header=index.partition("<header>")[2].partition("</header>")[0],
        count=len(images),
        source=SOURCES[mnist.name],
        strips=base64.b64encode(strips.getvalue()).decode(),
        data=json.dumps({"methods": shown, "images": pixels}),
        script=text["live.js"],
    )

"""The PDF, the pages and the zip: on a small study made here, then on the real notebooks."""

import base64
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path
from statistics import mean

import nbformat
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageChops
from pypdf import PdfReader

from mnistae import data
from mnistae.results import Chapter

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "report"))
build = importlib.import_module("build")
live = importlib.import_module("live")
run = importlib.import_module("run")
story = importlib.import_module("story")
submission = importlib.import_module("submission")
weights = importlib.import_module("weights")

WHO = {"name": "Ada Lovelace", "id": "012345678", "user": "ada"}
STATE, VIEW = run.STATE, run.VIEW
REPRS = re.compile(r"<Figure|<Axes|<matplotlib|object at 0x|Image\(|[VH]Box\(|Stack\(|Slider\(|text/plain")
RAW_TEX = re.compile(
    r"\$\$|\\(frac|sum|prod|mathbb|mathcal|mathrm|begin|end|left|right|nabla|partial|[lr]V?ert|hat|text|alpha)\b"
)
TABLE = """<table class="dataframe"><thead><tr style="text-align: right;"><th>d</th>
<th>test MSE</th></tr></thead>
<tbody><tr><td>2</td><td>0.0381 ± 0.0004</td></tr><tr><td>10</td><td>-0.0108</td></tr></tbody></table>"""


def shown(metadata=None, **data):
    content = {key.replace("__", "/"): value for key, value in data.items()}
    return new_output("display_data", content, metadata=metadata or {})


def announced(name):
    return code("data", shown({"mnistae": {"data": name}}, text__markdown=f"Data: {name}."))


def code(name, *outputs, source="1 + 1", **metadata):
    metadata = {"tags": [], **metadata}
    return new_code_cell(source, id=name, execution_count=1, outputs=[*outputs], metadata=metadata)


def picture(note=""):
    buffer = io.BytesIO()
    Image.new("L", (200, 100), 128).save(buffer, "PNG")
    metadata = {"mnistae": {"note": note}} if note else {}
    content = base64.b64encode(buffer.getvalue()).decode()
    return shown(metadata, image__png=content, text__plain="<Figure>")


def widget(kind, **state):
    return {"model_name": f"{kind}Model", "state": {"_model_name": f"{kind}Model", **state}}


def caption(words, name=None):
    return new_markdown_cell(words, metadata={"tags": ["caption"]}, **({"id": name} if name else {}))


def slider():
    """The stored state of an α slider of two pairs and three steps, as ipywidgets writes it."""
    frames = [f'<img src="data:image/gif;base64,{n}" alt="frame {n}">' for n in range(6)]
    parts = [
        widget("Dropdown", _options_labels=["4 → 9", "a < b"]),
        widget("SelectionSlider", _options_labels=["0.00", "0.50", "1.00"], index=1),
        widget("Play"),
        *(widget("HTML", value=text) for text in ("<b>names</b>", *frames, "Drag.")),
    ]
    state = {str(n): part for n, part in enumerate(parts, 1)}
    return state | {"0": widget("VBox", children=[f"IPY_MODEL_{n}" for n in state])}


def study(folder, *cells, state=None):
    """One executed notebook of every kind of cell, with `cells` at its end; returns its folder."""
    sample = any("embedded sample" in str(cell) for cell in cells)
    note = "NOT RESULTS: embedded sample" if sample else ""
    view = {VIEW: {"model_id": "0", "version_major": 2, "version_minor": 0}}
    words = {"text/plain": "VBox(children=(IntSlider(value=0),))"}
    box = new_output("execute_result", view | words, execution_count=1)
    formula = r"$$\frac{1}{N} \sum_{i=1}^{N} \lVert x_i \rVert^2, \quad \lvert a \rvert \le \alpha$$"
    links = "See [there](#question)."
    said = {"mnistae": {"note": note}}
    proved = {"tags": ["answer"], "figure": "words", "question": "How far?"}
    nb = new_notebook(
        cells=[
            new_markdown_cell(f"# 1  First\n\n{links}\n\n{formula}", id="title"),
            new_markdown_cell("## Question\n\n> How far does it go?", id="question"),
            code("table", shown({"text/html": said}, text__html=TABLE, text__plain="    test MSE")),
            caption("**Table:** Error against $d$."),
            code("figure", picture(note), alt="a grey box", width="40%", source="plt.hidden_code()"),
            caption("**Figure:** A *grey* box."),
            code("words", picture(note and "MNIST's stored results"), alt="a box, half dark"),
            caption("**Figure:** Another box."),
            code("slider", box),
            code("claims", *(shown(text__markdown=f"✓ {text} holds.") for text in ("This", "That"))),
            code("print", new_output("stream", name="stdout", text="α ∈ [0, 1], a ≤ b ± 1 − 2 " + "x" * 200)),
            code("answer", shown(text__markdown="**Answer (i).** It goes to $d = 10$."), **proved),
            *cells,
        ]
    )
    state = slider() if state is None else state
    nb.metadata.widgets = {STATE: {"state": state, "version_major": 2, "version_minor": 0}}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, folder / "01_first.ipynb")
    return folder


def texts(pdf):
    return [unicodedata.normalize("NFKC", page.extract_text()) for page in PdfReader(io.BytesIO(pdf)).pages]


def squeezed(text):
    """Letters and signs without spaces and hyphens, so that line breaks do not matter."""
    return re.sub(r"[\s\u00ad\u200b\u2010-]", "", unicodedata.normalize("NFKC", text)).lower()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return study(tmp_path_factory.mktemp("small") / "notebooks")


def test_the_chapter_is_typeset(small):
    pdf = build.build_pdf(small)
    pages = texts(pdf)
    text = "\n".join(pages[:5])
    parts = "Table 1.1: Error against; Figure 1.1: A grey box.; 0.0381 ± 0.0004; −0.0108; ✓; This holds."
    parts += "; α ∈ [0, 1], a ≤ b ± 1 − 2; (chapter 1, p. 3, Figure 1.2, p. 3); How far does it go?"
    assert [part for part in parts.split("; ") if part not in text] == []
    assert not RAW_TEX.search(text)
    assert not REPRS.search(text)
    assert "hidden_code" not in text
    assert "dataframe" not in text
    assert story.SENTENCE in " ".join(pages[0].split())
    assert "The mnistae authors" in pages[0]
    answers = pages[1].partition("Contents")
    assert "How far?" in answers[0]
    assert "Answer (i)." in answers[0]
    assert "Question" in answers[2]
    assert "torch 2." in pages[0]
    assert "sha256" not in pages[-1]
    assert b"/Alt" in pdf, "figures can be heard"


def test_the_same_notebooks_give_the_same_bytes_and_code_can_be_shown(small):
    pdf = build.build_pdf(small, code=True)
    assert pdf == build.build_pdf(small, code=True)
    assert build.build_pages(small) == build.build_pages(small)
    assert "plt.hidden_code()" in "\n".join(texts(pdf)[2:5])


def test_pictures_are_embedded_without_loss(small):
    """Fewer colours would grey the digits' labels."""
    [embedded] = PdfReader(io.BytesIO(build.build_pdf(small))).pages[0].images
    shown, stored = (image.convert("RGB") for image in (embedded.image, Image.open(story.PICTURE)))
    assert ImageChops.difference(shown, stored).getbbox() is None


OTHER = shown(image__png="", text__plain="<Figure size>")
UNSAID = code("faulty", shown(text__html=TABLE))
FAULT = new_output("error", ename="E", evalue="", traceback=[])
CANNOT_BE_SET = {  # what is said: the cells at the end of the notebook
    "notacommand": [new_markdown_cell(r"A formula: $\notacommand{x}$.", id="faulty")],
    "not read as a formula": [code("faulty", shown(text__markdown=r"$$\frac{1}{$$"))],
    "gone": [new_markdown_cell("[nowhere](#gone)", id="faulty")],
    "lack `alt`": [code("faulty", picture())],
    "cannot be set": [code("faulty", picture(), alt="a", width="wide"), caption("**Figure:** c")],
    "neither figure nor table": [code("faulty", shown(text__plain="42")), caption("**Table:** c")],
    "begins with": [code("box", picture(), alt="a"), caption("A box.", "faulty")],
    "no caption above": [code("faulty", tags=["answer"], figure="nowhere")],
    "figure or table that does not say its data": [code("faulty", OTHER, alt="a")],
    "table that does not say its data": [announced("embedded sample"), UNSAID],
    "ended in an error": [code("faulty", FAULT)],
    "was not executed": [new_code_cell("1", id="faulty")],
}


@pytest.mark.parametrize("words", CANNOT_BE_SET)
def test_what_cannot_be_set_stops_the_build_with_its_place(tmp_path, words):
    target = tmp_path / "ex2.pdf"
    folder = study(tmp_path / "nb", *CANNOT_BE_SET[words])
    with pytest.raises(SystemExit) as stopped:
        build.main(["pdf", "--notebooks", str(folder), "--output", str(target)])
    assert "01_first.ipynb: cell 'faulty'" in stopped.value.code
    assert words in stopped.value.code
    assert not target.exists()


def test_a_widget_without_its_state_stops_the_pages_and_not_the_pdf(tmp_path):
    folder = study(tmp_path / "nb", state={})
    with pytest.raises(SystemExit) as stopped:
        build.main(["html", "--notebooks", str(folder), "--output", str(tmp_path / "html")])
    assert "01_first.ipynb: cell 'slider'" in stopped.value.code
    assert "report/run.py" in stopped.value.code  # the way out
    assert not (tmp_path / "html").exists()
    assert build.build_pdf(folder)


def test_data_and_identity_are_named_as_the_notebook_says(tmp_path):
    folder = study(tmp_path / "nb", announced("embedded sample"))
    named = texts(build.build_pdf(folder, identity=WHO))
    assert "Made on the embedded sample, not on MNIST" in " ".join(named[0].split())
    assert all("embedded sample, no results" in page for page in named[1:])
    assert "Figure 1.1 (embedded sample, no result)" in "".join(named)
    assert "Figure 1.2 (MNIST’s stored results)" in "".join(named).replace("'", "’")
    assert all(value in named[0] for value in WHO.values())
    assert all("Made on the embedded sample" in page for page in build.build_pages(folder).values())


def test_mnist_is_named_and_mixed_data_are_refused(tmp_path):
    folder = study(tmp_path / "nb", announced("MNIST"))
    pages = texts(build.build_pdf(folder))
    assert "MNIST (LeCun, Cortes and Burges, 1998)" in pages[0]
    assert "no result" not in "".join(pages)
    study(tmp_path / "other", announced("embedded sample"))
    (tmp_path / "other/01_first.ipynb").rename(folder / "02_second.ipynb")
    with pytest.raises(build.Failed, match="mix data"):
        build.build_pdf(folder)


def test_every_notebook_of_the_project_must_be_there_executed_as_it_is(small, tmp_path):
    """Else a second `make` that was stopped would leave a report of half the chapters."""
    sources = tmp_path / "sources"
    shutil.copytree(small, sources)
    assert build.build_pdf(small, sources=sources)
    source = (sources / "01_first.ipynb").read_text()
    (sources / "01_first.ipynb").write_text(source.replace("1 + 1", "1 + 2", 1))
    with pytest.raises(build.Failed, match=r"01_first.ipynb was executed before 01_first.ipynb was changed"):
        build.build_pdf(small, sources=sources)
    (sources / "02_second.ipynb").write_text(source)
    with pytest.raises(build.Failed, match=r"lacks 02_second.ipynb: run `make` first"):
        build.build_pages(small, sources)


@pytest.mark.parametrize(
    "content", ["", "{}", "<<<<<<< HEAD\n{}", '{"nbformat": 4, "nbformat_minor": 5, "cells": []}']
)
def test_a_file_that_is_no_notebook_is_named(small, tmp_path, content):
    shutil.copytree(small, tmp_path / "nb")
    (tmp_path / "nb" / "02_second.ipynb").write_text(content)
    for main in (build.main, run.main):
        given = ["pdf", "--notebooks", str(tmp_path / "nb")] if main is build.main else []
        with pytest.raises(SystemExit, match=r"02_second.ipynb (is no notebook|has no cells)") as stopped:
            main(given or [str(tmp_path / "nb" / "02_second.ipynb"), "--output", str(tmp_path / "out")])
        assert len(stopped.value.code) < 300


BAD = {
    "name": ["", "  ", "Ada\nLovelace", "Ada\x07", "x" * 81, "王小明", "Ada 🎓"],
    "id": ["", "1234", "1234567890", "12345a", "١٢٣٤٥٦", "../12345"],
    "user": ["", "Ada", "a", "ada lovelace"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_bad_identity_is_refused_and_leaves_no_zip(small, capsys, key, value):
    before = sorted((ROOT / "report").glob("ex2_*"))
    given = [part for k, v in (WHO | {key: value}).items() for part in (f"--{k}", v)]
    with pytest.raises(SystemExit, match="2"):
        build.main(["submission", "--notebooks", str(small), *given])
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {key.upper()} " in error
    assert f'give --{key} "{submission.IDENTITY[key][2]}"' in error
    assert sorted((ROOT / "report").glob("ex2_*")) == before


def test_the_report_s_fonts_have_every_sign_of_a_name():
    def allowed(name):
        return not submission.fault(WHO | {"name": name})

    signs = [c for c in map(chr, range(32, 0x20000)) if unicodedata.category(c) != "Cn" and allowed(f"A{c}")]
    assert {*"Aéžλж -.'’שָ"} <= {*signs}
    fonts = (ROOT / "report/template.typ").read_text().partition("#let horizontalrule")[0]
    body = '#set text(font: serif)\n#for sign in input("name").codepoints() [#sign ]'
    inputs = {"ignore_system_fonts": True, "sys_inputs": {"name": "".join(signs)}}
    text = "".join(texts(build.typst.compile((fonts + body).encode(), **inputs)))
    assert [c for c in signs if unicodedata.normalize("NFKC", c) not in text] == []


@pytest.fixture(params=["git", "unpacked"])
def project(request, tmp_path):
    """A project's tree, in git or not."""

    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"# {name}\n")

    write("README.md", "mnistae/data.py", "notebooks/01.ipynb", "checkpoints/a.safetensors", ".ci/run")
    (tmp_path / ".ci/run").chmod(0o755)
    if request.param == "git":
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    write("data/MNIST/x.gz", "mnistae/__pycache__/d.pyc", "report/build/r.json", "report/ex2_1.zip")
    write(".env", "notebooks/.ssh/key", "checkpoints/own_transfer.json.lock")
    return tmp_path


def test_the_zip_holds_code_checkpoints_pdf_and_name(project):
    packed = submission.packed(project, b"%PDF", WHO)
    assert packed == submission.packed(project, b"%PDF", WHO)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == [
            *(".ci/run", "README.md", "checkpoints/a.safetensors"),
            *("ex2.pdf", "mnistae/data.py", "notebooks/01.ipynb", "report/ex2.pdf"),
        ]
        readme = archive.read("README.md").decode()
        assert archive.read("ex2.pdf") == archive.read("report/ex2.pdf") == b"%PDF"
        assert archive.getinfo(".ci/run").external_attr >> 16 == 0o755
    assert all(value in readme for value in WHO.values())
    assert readme.endswith("# README.md\n")
    assert (project / "README.md").read_text() == "# README.md\n"  # nothing personal in the tree


@pytest.mark.parametrize("project", ["git"], indirect=True)
def test_without_git_and_in_a_clone_of_another_owner(project, monkeypatch):
    """Both are met on shared machines. git's own words say what to do about the second."""
    git = project / "bin" / "git"
    git.parent.mkdir()
    monkeypatch.setenv("PATH", str(git.parent))
    assert {path.as_posix() for path in submission.listed(project)} >= {"README.md", ".ci/run"}
    words = "fatal: detected dubious ownership\\nTo add:\\n\\tgit config --global --add safe.directory x"
    git.write_text(f"#!/bin/sh\nprintf '{words}' >&2\nexit 128\n")
    git.chmod(0o755)
    with pytest.raises(build.Failed, match=r"dubious.*git config --global --add safe\.directory x$"):
        submission.listed(project)
    git.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(build.Failed, match=r"exit status 3.*Mend the clone, or clone again\.$"):
        submission.listed(project)


def test_a_page_holds_all_that_it_needs(small, tmp_path):
    build.main(["html", "--notebooks", str(small), "--output", str(tmp_path)])
    page, index = ((tmp_path / name).read_text() for name in ("01_first.html", "index.html"))
    elsewhere = r'(?:src|srcset|href)="(?!data:|#|index|live|01_first)[^"]*"|url\(|@import'
    assert re.findall(elsewhere, page + index) == []
    assert "<math" in page
    assert not RAW_TEX.search(re.sub(r"(?s)<(script|style|annotation).*?</\1>", "", page))
    assert not REPRS.search(page)
    assert "<strong>Figure 1.1:</strong> A <em>grey</em> box." in page
    assert re.findall(r'<img [^>]*png[^>]*alt="(.*?)"', page) == ["a grey box", "a box, half dark"]
    assert re.findall(r"<option>([^<]*)", page) == ["4 → 9", "a &lt; b"]
    assert len(re.findall("<img[^>]* hidden", page)) == 6
    assert '<a href="#question"' in page  # the contents
    assert "plt.hidden_code()" in page.split("<summary>Code</summary>", 1)[1]
    assert 'href="01_first.html#01_first-answer"' in index
    assert "Answer (i)." in index
    assert 'class="live"><a href="live.html">Draw a digit' in page
    assert '<a href="live.html">Draw a digit' in index
    assert "<nav" in page
    assert "<nav" not in index, "its header links to all chapters"
    assert index.index(story.ALT) < index.index("Answer (i).")


# The study in one picture


def made_up(**changes):
    """Results as the chapters record them, with numbers that support the picture's words."""
    sizes = (2, 4, 8, 10, 16, 32, 64)
    sure, labels = (0.3, 0.4, 0.6, 0.6, 0.5, 0.4, 0.4), (0.7, 0.8, 0.9, 0.95, 0.9, 0.9, 0.9)
    results = {
        "reconstruction": {
            "by_latent_dim": {str(d): {"test_mse": [0.1 / d, 0.11 / d]} for d in sizes},
            "pca": {str(d): 0.2 / d for d in sizes},
        },
        "interpolation_midpoints": [
            *({"method": "auto-encoder", "d": d, "sure_end": [v]} for d, v in zip(sizes, sure, strict=True)),
            *({"method": "PCA", "d": d, "sure_end": [0.1]} for d in sizes),
            {"method": "pixel blending", "d": 0, "sure_end": [0.41]},
            {"method": "real images", "d": 0, "sure_end": [1.0]},
        ],
        "decorrelation_invariant": {str(d): {"network": [1 / d, 1.1 / d], "pca": 1.2 / d} for d in sizes},
        "transfer_by_size": [
            {"method": f"spreading, {name}", "d": d, "mean": v - worse, "std": 0.01}
            for name, worse in (("code", 0), ("PCA", 0.2))
            for d, v in zip(sizes, labels, strict=True)
        ],
    }
    pixels = {"method": "spreading, pixels", "d": 10, "mean": 0.8, "std": 0.01}
    results["transfer_by_size"].append(pixels)
    return results | changes


def test_the_picture_shows_the_means_of_the_results_and_holds_them():
    content = story.picture(made_up())
    held = json.loads(Image.open(io.BytesIO(content)).text["Comment"])
    assert [1, "PCA", 2, 0.1] in held
    assert [2, story.PIXELS, 0, 0.41] in held
    assert [3, story.CODE, 10, 0.105] in held
    assert [4, story.CODE, 10, 0.95] in held
    assert len(held) == 4 * 2 * 7 + 2
    assert content == story.picture(made_up())


@pytest.mark.parametrize("chapter", [1, 2, 3, 4])
def test_the_picture_names_what_is_missing_or_has_another_form(chapter):
    key = list(story.PANELS)[chapter - 1]
    lacking = {name: kept for name, kept in made_up().items() if name != key}
    with pytest.raises(build.Failed, match=f"no '{key}': run chapter {chapter}"):
        story.picture(lacking)
    with pytest.raises(build.Failed, match=f"'{key}' of chapter {chapter} has another form"):
        story.picture(made_up(**{key: [{"method": "PCA"}]}))


def test_the_picture_is_not_drawn_if_the_numbers_contradict_its_words():
    best_at_64 = made_up()["interpolation_midpoints"]
    best_at_64[6]["sure_end"] = [0.9]
    with pytest.raises(build.Failed, match=r"do not support .*midpoints are best at d = 8 and 10"):
        story.picture(made_up(interpolation_midpoints=best_at_64))


def test_the_stored_picture_is_that_of_the_results():
    table = story.measured(json.loads((ROOT / "report/results.json").read_text()))
    assert Image.open(story.PICTURE).text["Comment"] == story.numbers(table), "run `build.py story`"


# The live page, as far as it can be tested without a browser


@pytest.fixture(scope="module")
def networks():
    return weights.networks(live.data.load().train.images)


def test_folded_networks_are_the_original_ones(networks):
    images = live.data.load().test.images[:200]
    for network in networks.values():
        encoder, decoder = weights.folded(network.encoder), weights.folded(network.decoder)
        z = network.encoder(images)
        assert "BatchNorm2d" not in f"{encoder}{decoder}"
        assert (encoder(images) - z).abs().max() <= 1e-5
        assert (decoder(z) - network.decoder(z)).abs().max() <= 1e-5


def test_the_live_page_is_one_small_file_that_says_what_it_is(networks, monkeypatch):
    monkeypatch.setattr(live, "networks", lambda images: networks)
    mnist = live.data.load()
    for name in ("MNIST", live.data.SAMPLE):
        monkeypatch.setattr(live.data, "load", lambda name=name: mnist._replace(name=name))
        page = live.page(f"<style></style><header>Made on {name}</header>")
        assert len(page.encode()) <= 2.5e6
        assert (
            re.findall(r"""(?:src|href)="(?!data:|#)(?!0[12]_\w+\.html)|url\(|@import|https?:""", page) == []
        )
        said = (f"<header>Made on {name}</header>", "seed 0", "half precision", "not a generative model")
        assert all(words in page for words in said)
        assert ("of the embedded sample, on which the networks were trained" in page) == (name != "MNIST")


# The report itself

QUESTIONS = """using lower and higher latent space dimension d
encoder/decoder architecture with more or fewer layers/weights
Include the resulting images obtained by such latent space interpolation; Try different pairs of digits
an AE trained using the higher embedding dimension; Which is better?
Pearson correlations; come up with a single value; with respect to the latent space dimension
small fraction of the annotated training data; which option performs best?
composition of linear functions is a linear function
composition of affine transformations remains an affine function
What is the stopping condition of this iterative scheme
conditions for classifying a stationary point as local maximum or minimum
accounts for the circularity of this quantity; Differentiate the following terms"""


@pytest.fixture(scope="module")
def report():
    """The texts of the report's pages before the environment, from the committed notebooks."""
    pdf = build.build_pdf(ROOT / "notebooks")
    assert len(pdf) < 4e6
    pages = texts(pdf)
    assert 20 <= len(pages) <= 40
    return pages[:-1]


def test_every_question_and_answer_is_in_the_report(report):
    start = next(
        n for n, page in enumerate(report) if page.count("1 Reconstruction") == 2
    )  # header and title
    text = squeezed("".join(report[start:]))
    questions = re.split("; |\n", QUESTIONS)
    assert [question for question in questions if squeezed(question) not in text] == []
    assert text.count(squeezed("Answer (")) >= 10
    assert "Answer (" in report[1]
    assert "returnabs(delta)" in squeezed("".join(report[1:3])), "the pseudo-code"
    assert "Contents" in report[2], "the answers take at most two pages, with the contents"
    assert start == 3


def test_no_page_holds_raw_tex_or_a_python_repr(report):
    faults = [(n, form.findall(page)) for n, page in enumerate(report, 1) for form in (RAW_TEX, REPRS)]
    assert [(n, found) for n, found in faults if found] == []


def test_headline_numbers_are_those_of_the_results(report):
    results = json.loads((ROOT / "report/results.json").read_text())
    assert results["dataset"] == "MNIST"
    text = squeezed("".join(report))
    answers = results["headlines"].values()
    assert [answer for answer in answers if squeezed(re.split(r" \(|; ", answer)[0]) not in text] == []
    for d, row in results["reconstruction"]["by_latent_dim"].items():
        assert f"{mean(row['test_mse']):.5f}" in text, f"test MSE at d = {d}"


def test_each_answer_has_a_question_and_is_short():
    """Six words and, in the practical chapters, sixty."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if "answer" not in cell.metadata.get("tags", []):
                continue
            place = f"{path.stem}: {cell.id}"
            assert 1 <= len(cell.metadata.get("question", "").split()) <= 6, place
            said = [output["data"].get("text/markdown", "✓") for output in cell.get("outputs", [])]
            text = " ".join(words for words in said if not words.startswith("✓"))
            text = text.partition(".** ")[2] or text  # without its name
            assert path.stem > "05" or len(text.split()) <= 60, place
            assert not re.search(r"\((table|figure) (above|below)\)", text), place


def test_the_note_of_a_real_table_is_found():
    frame = pd.DataFrame({"dataset": ["MNIST"]})
    content, about = DisplayFormatter().format(Chapter("1_x", data.SAMPLE).table(frame))
    assert "<table" in content["text/html"]
    assert "NOT RESULTS" in build.note_of({"metadata": about})["note"]


def test_a_chapter_without_data_needs_no_note():
    cells = [new_markdown_cell("# 5  Theory", id="title"), code("figure", picture(), alt="a box")]
    nb = new_notebook(cells=[*cells, caption("**Figure:** A box.")])
    chapters, _ = build.prepared({"05_theory": nb}, data.SAMPLE)
    assert chapters["05_theory"][1][1]["metadata"]["caption"].startswith("**Figure 1.1:** A box.")

"""Build the report, the pages and the submission from executed notebooks (how: --help).

Here cells get their numbers; pandoc reads them, notebook.lua sets them in template.typ or page.html.
The same notebooks give the same bytes: no clock, no system font.
"""

import argparse
import base64
import copy
import html
import json
import re
import sys
import tempfile
import tomllib
import unicodedata
from importlib import metadata
from pathlib import Path

import live
import pypandoc
import story
import submission
import typst
from run import KERNEL, ROOT, VIEW, Failed, data_of, widgets_of
from run import read as read_notebook

from mnistae.results import collected
from mnistae.store import atomic_write

REPORT = ROOT / "report"
TITLE = "Auto-encoders on MNIST"
SUBTITLE = "Reconstruction, interpolation, decorrelation, transfer learning, theory"
AUTHOR = "The mnistae authors"
SOURCE = "MNIST (LeCun, Cortes and Burges, 1998)"
TABLE_START, TABLE_END = "<!-- results -->", "<!-- end of results -->"
FORMS = ("image/png", "text/markdown", "text/html", "text/plain")  # the fullest first


def read(folder, sources=None):
    """The executed notebooks of a folder, {stem: notebook}, the name of their data, and that if not MNIST.

    sources: the folder of the notebooks that must all be there, executed as they are now.
    """
    names = [path.name for path in sorted((sources or folder).glob("*.ipynb"))]
    if lacking := [name for name in names if not (folder / name).exists()]:
        raise Failed(f"{folder} lacks {', '.join(lacking)}: run `make` first, or give --notebooks")
    if not names:
        raise Failed(f"no notebook in {folder}: run `make` first, or give --notebooks")
    books = {Path(name).stem: read_notebook(folder / name) for name in names}
    for stem, book in books.items():
        now = read_notebook(sources / f"{stem}.ipynb") if sources else book
        if [cell.source for cell in book.cells] != [cell.source for cell in now.cells]:
            raise Failed(f"{folder / stem}.ipynb was executed before {stem}.ipynb was changed: run `make`")
    data = {name: stem for stem, book in books.items() if (name := data_of(book))}
    if len(data) > 1:
        mixed = " and ".join(f"{stem} on {name}" for name, stem in data.items())
        raise Failed(f"the notebooks mix data ({mixed}): run all of them again")
    name = "".join(data)
    return books, name, "" if name == "MNIST" else name


def note_of(output):
    """What `Chapter` says of an output's data, a dict; IPython files that of a table under its type."""
    about = output.get("metadata", {})
    return about.get("mnistae") or about.get("text/html", {}).get("mnistae", {})


def check(cell, place, stamp):
    """Raises Failed for a code cell that cannot be shown, or whose figures do not say what they must."""
    failed = any(output.output_type == "error" for output in cell.outputs)
    if failed or (cell.source.strip() and not cell.execution_count):
        raise Failed(f"{place} ended in an error or was not executed: run `make` first")
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data and "alt" not in cell.metadata:
            cure = "say there what it shows, for readers who cannot see it"
            raise Failed(f"{place} has a figure whose metadata lack `alt`: {cure}")
        bare = "image/png" in data and data.get("text/plain") != "<Figure>"
        shown = "image/png" in data or "<table" in data.get("text/html", "")
        if bare or (stamp and shown and not note_of(output)):
            raise Failed(
                f"{place} has a figure or table that does not say its data: chapter.show(), chapter.table()"
            )


def unfold(state, model):
    """The state of a widget and of all that it holds, depth first."""
    own = state[model.removeprefix("IPY_MODEL_")]["state"]
    return [own, *(part for child in own.get("children", []) for part in unfold(state, child))]


def widget(parts):
    """The α slider as HTML, from its stored state (mnistae.sliders), or a note in place of another widget."""
    kinds = {part["_model_name"]: part for part in parts}
    if "PlayModel" not in kinds:
        return (
            '<p class="live">This part works only in the running notebook: Python computes its pictures. '
            'The <a href="live.html">live page</a> interpolates between two digits without Python.</p>'
        )
    names, *frames, words = (part["value"] for part in parts if part["_model_name"] == "HTMLModel")
    options = map(html.escape, kinds["DropdownModel"]["_options_labels"])
    steps, start = (kinds["SelectionSliderModel"][key] for key in ("_options_labels", "index"))
    return f"""<div class="slider" data-steps="{" ".join(steps)}">
<label>pair <select><option>{"<option>".join(options)}</select></label>
<label>α <input type="range" max="{len(steps) - 1}" value="{start}"></label> <output></output>
<button type="button">Play</button>{names}
{"".join(frames).replace("<img", "<img hidden")}<p>{words}</p></div>"""


def fullest(output, place, state, paper):
    """An output in its fullest form alone: a widget as HTML or, on paper, left out."""
    data = output.get("data", {})
    if VIEW in data and not paper and data[VIEW].model_id not in state:
        way_out = "dropped by the editor that saved it? `python report/run.py` brings it back"
        raise Failed(f"{place} has a widget without stored state, {way_out}")
    if VIEW in data:
        data = {} if paper else {"text/markdown": widget(unfold(state, data[VIEW].model_id))}
    form = next((form for form in FORMS if form in data), None)
    return output | {"data": {form: data[form]} if form else {}}


def shown(book, stem, stamp, paper, code):
    """Copies of a chapter's cells as they are shown: the fullest outputs, code only if asked for."""
    cells = copy.deepcopy(book.cells)
    for cell in cells:
        place = cell.metadata.place = f"{stem}.ipynb: cell '{cell.id}'"
        if cell.cell_type == "code":
            check(cell, place, stamp)
            cell.outputs = [fullest(output, place, widgets_of(book), paper) for output in cell.outputs]
            cell.source = "" if paper and not code else cell.source
    return cells


def captioned(cells, chapter, stamp):
    """The cells without captions, each caption moved to the figure or table above it; and {cell id: name}."""
    names, kept = {}, []
    for cell in cells:
        if "caption" not in cell.metadata.get("tags", []):
            kept.append(cell)
            continue
        if not (found := re.match(r"\*\*(Figure|Table):\*\* ", cell.source)):
            raise Failed(f"{cell.metadata.place} is a caption: it begins with **Figure:** or **Table:**")
        above = kept[-1]
        name = f"{found[1]} {chapter}.{1 + sum(name.startswith(found[1]) for name in names.values())}"
        said = [note_of(output) for output in above.get("outputs", [])]
        notes = sorted({about["note"] for about in said if "note" in about})
        mark = f" ({stamp}, no result)" if stamp else ""
        if stamp and notes and not any("NOT RESULTS" in note for note in notes):
            mark = f" ({'; '.join(notes)})"
        above.metadata.caption = f"**{name}{mark}:** {cell.source[found.end() :]}"
        names[above.id] = name
    return kept, names


def answers_of(cells, stem, chapter, names, paper):
    """The cells of the page of all answers: what each answer says, and links to it and to what proves it."""
    target, names, found = f"#{stem}-" if paper else f"{stem}.html#{stem}-", dict(names), []
    for cell in cells:
        about, place = cell.metadata, cell.metadata.place
        if "answer" not in about.get("tags", []):
            continue
        names[cell.id], proof = f"chapter {chapter}", about.get("figure", cell.id)
        if proof not in names:
            raise Failed(f"{place} refers to '{proof}', which has no caption above it")
        links = [f"[{names[id]}]({target}{id})" for id in dict.fromkeys([cell.id, proof])]
        said = [output["data"].get("text/markdown", "✓") for output in cell.get("outputs", [])]
        text = "\n\n".join(words for words in said if not words.startswith("✓")) or cell.source
        asked = {"ask": about.question} if "question" in about else {}
        found.append(summarised(text, see=f"({', '.join(links)})", place=place, **asked))
    return found


def summarised(text, **about):
    """A cell of the page of all answers."""
    about = {"tags": ["summary"], "place": text, **about}
    return {"cell_type": "markdown", "source": text, "metadata": about}


def front(stamp, words="", picture=None):
    """The cells before the answers: words, and the study in one picture (PNG; default: the stored one)."""
    if picture is None and not story.PICTURE.exists():
        raise Failed("report/story.png is missing: `python report/build.py story` draws it from results.json")
    about = {"tags": ["front"], "place": "the picture of the study", "alt": story.ALT, "width": "96%"}
    mark = " (MNIST's stored results)" if stamp else ""
    about["caption"] = f"**{story.SENTENCE}** Each panel is the main result of one chapter{mark}."
    content = base64.b64encode(picture or story.PICTURE.read_bytes()).decode()
    shown = {"output_type": "display_data", "data": {"image/png": content}, "metadata": {}}
    cell = {"cell_type": "code", "id": "story", "source": "", "execution_count": None, "outputs": [shown]}
    return [summarised(words, tags=["front"]), cell | {"metadata": about}]


def prepared(books, stamp, paper=True, code=False):
    """The chapters as {stem: (title, cells)}, and the cells of the page of all answers."""
    chapters, answers = {}, []
    for chapter, (stem, book) in enumerate(books.items(), start=1):
        title = book.cells[0].source.partition("\n")[0].strip("# ")
        own = stamp if data_of(book) else ""  # theory holds for any images
        cells, names = captioned(shown(book, stem, own, paper, code), chapter, own)
        answers.append(summarised(f"### {title}" if paper else f"### [{title}]({stem}.html)"))
        answers += answers_of(cells, stem, chapter, names, paper)
        chapters[stem] = title, [cell | {"id": f"{stem}-{cell.id}"} for cell in cells]
    return chapters, answers


def pandoc(cells, to, template, *options):
    """The cells as one text; raises RuntimeError with pandoc's words."""
    notebook = {"cells": cells, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    options = ["--ipynb-output=all", "--fail-if-warnings", "--wrap=preserve", *options]
    options += [f"--template={REPORT / template}", f"--lua-filter={REPORT / 'notebook.lua'}"]
    return pypandoc.convert_text(json.dumps(notebook), to, "ipynb", options, verify_format=False)


def build_pdf(notebooks, code=False, identity=None, sources=None, picture=None):
    """The report as bytes. picture: of the whole study, if not the stored one."""
    books, data, stamp = read(notebooks, sources)
    chapters, answers = prepared(books, stamp, code=code)
    cells = [cell for _, cells in chapters.values() for cell in cells]
    cells = [*front(stamp, picture=picture), *answers, *cells]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[^\w-]", entry)[0] for entry in project["dependencies"]]
    pins = "\n".join(f"{name} {metadata.version(name)}" for name in names)
    inputs = {"title": TITLE, "subtitle": SUBTITLE, "pins": pins, "stamp": stamp}
    inputs |= {"data": f"Data: {stamp or SOURCE}" if data else "", **(identity or {})}
    inputs["name"] = inputs.get("name") or AUTHOR
    options = {"ignore_system_fonts": True, "sys_inputs": inputs}
    with tempfile.TemporaryDirectory() as folder:
        media = f"--extract-media={folder}"
        text = pandoc(cells, "typst-smart", "template.typ", media).replace(folder, "")
        try:
            pdf, warnings = typst.compile_with_warnings(text.encode(), root=folder, **options)
        except typst.TypstError as error:
            warnings = [error]
    if warnings:
        said = warnings[0].diagnostic
        line = max(map(int, re.findall(r":(\d+):", said)), default=0)  # in the text, beyond the template
        places = re.findall("^// (.*: cell .*)", "\n".join(text.splitlines()[:line]), re.MULTILINE)
        raise Failed(f"{['the report', *places][-1]} cannot be set:\n{said}")
    return pdf


def build_pages(notebooks, sources=None):
    """{file name: page}, index.html among them; a page holds all that it needs."""
    books, _, stamp = read(notebooks, sources)
    chapters, answers = prepared(books, stamp, paper=False)
    words = f"# {TITLE}\n\n{SUBTITLE}. [Draw a digit](live.html) and see what the networks make of it."
    cells = [*front(stamp, words), summarised("## The answers"), *answers]
    chapters = {"index": (TITLE, cells)} | chapters
    links = "".join(f'<a href="{s}.html">{html.escape(title)}</a>' for s, (title, _) in chapters.items())
    links += live.LINK
    options = ["--mathml", "--embed-resources", f"-Vlinks={links}", f"-Vstamp={stamp}"]
    pages = {}
    for stem, (title, cells) in chapters.items():
        own = ["--toc", "--toc-depth=2"] if stem != "index" else []  # its header links to all chapters
        own += [f"-Mtitle={title}", *live.options(stem)]
        pages[f"{stem}.html"] = pandoc(cells, "html5", "page.html", *options, *own)
    return pages


def result_table(results):
    """The README's table of headline numbers."""
    rows = [f"| {question} | {answer} |" for question, answer in results["headlines"].items()]
    return "\n".join(["| | result |", "|---|---|", *rows])


def refreshed():
    """Results, picture, README table and PDF, {path: bytes}, of a run on MNIST that rewrote notebooks/."""
    results = collected()
    if {results["dataset"], read(ROOT / "notebooks")[1]} != {"MNIST"}:
        raise Failed("the run was not on MNIST: only MNIST's results are committed")
    picture, readme = story.picture(results), (ROOT / "README.md").read_text("utf-8")
    before, after = readme.split(TABLE_START)[0], readme.split(TABLE_END)[1]
    return {
        REPORT / "results.json": (json.dumps(results, indent=1) + "\n").encode(),
        ROOT / "README.md": f"{before}{TABLE_START}\n{result_table(results)}\n{TABLE_END}{after}".encode(),
        story.PICTURE: picture,
        REPORT / "ex2.pdf": build_pdf(ROOT / "notebooks", picture=picture),
    }


def main(argv=None):
    parser = argparse.ArgumentParser(description="Build the report from executed notebooks.")
    parser.add_argument("command", choices=("pdf", "html", "submission", "refresh", "story"))
    parser.add_argument("--notebooks", type=Path, help="a folder of executed ones; default: report/build")
    parser.add_argument("--output", type=Path, help="default: report/build/ex2.pdf, report/html")
    parser.add_argument("--code", action="store_true", help="show the code of the cells in the PDF")
    for key, (_, words, _) in submission.IDENTITY.items():
        parser.add_argument(f"--{key}", default="", help=words)
    options = parser.parse_args(argv)
    given = {key: getattr(options, key).strip() for key in submission.IDENTITY}
    identity = {key: unicodedata.normalize("NFC", value) for key, value in given.items()}  # é as one sign
    if options.command == "submission" and (fault := submission.fault(identity)):
        parser.error(fault)
    # The default folder may hold other or older notebooks than the project does by now.
    sources = None if options.notebooks else ROOT / "notebooks"
    notebooks = options.notebooks or REPORT / "build/notebooks"
    try:
        if options.command == "html":
            folder = options.output or REPORT / "html"
            pages = build_pages(notebooks, sources)
            pages["live.html"] = live.page(pages["index.html"])
            built = {folder / name: page.encode() for name, page in pages.items()}
        elif options.command == "refresh":
            built = refreshed()
        elif options.command == "story":
            built = {story.PICTURE: story.picture(json.loads((REPORT / "results.json").read_text("utf-8")))}
        else:
            pdf = build_pdf(notebooks, options.code, identity, sources)
            built = {options.output or REPORT / "build/ex2.pdf": pdf}
        if options.command == "submission":
            built = {REPORT / f"ex2_{identity['id']}.zip": submission.packed(ROOT, pdf, identity)}
    except RuntimeError as error:  # pandoc's too
        sys.exit(f"error: {error}")
    for path, content in built.items():
        atomic_write(path, content)
        print(path)


if __name__ == "__main__":
    main()

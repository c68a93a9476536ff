"""Build the report, the pages and the submission from executed notebooks.

    python report/build.py pdf        [--notebooks DIR] [--output FILE] [--code] [--name N --id I --user U]
    python report/build.py html       [--notebooks DIR] [--output DIR] [--offline DIR]
    python report/build.py submission --name N --id I --user U [--notebooks DIR]

A chapter goes notebook -> Markdown (chapters.py) -> Typst (pandoc, filter.lua) -> PDF (typst, template.typ).
The same notebooks give the same bytes: no clock, no system font.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pypandoc
import submission
import typst
from chapters import MARKDOWN, BuildError, breakable, fenced, quoted, read_chapter, read_notebooks
from headlines import headlines

from mnistae.checkpoints import atomic_write
from mnistae.results import collected

REPORT = Path(__file__).resolve().parent
ROOT = REPORT.parent
COURSE = "Neural Networks for Images, exercise 2"
TITLE = "Auto-encoders on MNIST"
TABLE_START, TABLE_END = "<!-- results -->", "<!-- end of results -->"
DATES = {"MNIST": "MNIST (LeCun, Cortes and Burges, 1998)"}
SUBTITLE = "Reconstruction, interpolation, decorrelation, transfer learning, theory"


def summary(chapters):
    """The page of answers: each with its page and that of the figure or table above it."""
    blocks = []
    for chapter in chapters:
        if chapter.answers:
            blocks.append(fenced(f"#summary-chapter({quoted(chapter.title)})", "{=typst}"))
        for text, cell, last in chapter.answers:
            figure = f'kind: "{last[0]}", number: "{last[1]}"' if last else ""
            blocks.append(f'{text} (`#pageref("{cell}", {figure})`{{=typst}})')
    return "\n\n".join(blocks)


def to_typst(markdown):
    """Markdown as Typst; raises BuildError with pandoc's words where a formula cannot be set."""
    options = ["--fail-if-warnings", "--syntax-highlighting=idiomatic", "--wrap=preserve"]
    try:
        return pypandoc.convert_text(
            markdown, "typst", MARKDOWN, options, filters=[str(REPORT / "filter.lua")], verify_format=False
        )
    except RuntimeError as error:
        raise BuildError(str(error)) from None


def to_pdf(body, folder, inputs=None):
    """Compile a body beside the images in `folder`; warnings count as errors."""
    shutil.copy(REPORT / "template.typ", folder)
    main = folder / "main.typ"
    titles = f"course: {quoted(COURSE)}, title: {quoted(TITLE)}, subtitle: {quoted(SUBTITLE)}"
    main.write_text(f'#import "template.typ": *\n#show: report.with({titles})\n{body}', encoding="utf-8")
    try:
        pdf, warnings = typst.compile_with_warnings(
            main, root=folder, ignore_system_fonts=True, sys_inputs=inputs or {}
        )
    except typst.TypstError as error:
        raise BuildError(error.diagnostic) from None
    if warnings:
        raise BuildError("\n".join(warning.diagnostic for warning in warnings))
    return pdf


def blame(chapters, folder, error):
    """The same error with the name of the first notebook and cell that cannot be set alone."""
    for chapter in chapters:
        for cell, markdown in chapter.cells:
            try:
                to_pdf(to_typst(markdown), folder)
            except BuildError as found:
                return BuildError(f"{chapter.name}: cell '{cell}' cannot be set:\n{found}")
    return error


def appendix(folder):
    """The package's code and the exact environment, as Typst."""
    (folder / "mnistae").mkdir()
    files = sorted((ROOT / "mnistae").glob("*.py"))
    for file in files:
        code = breakable(file.read_text(encoding="utf-8"))
        (folder / "mnistae" / file.name).write_text(code, encoding="utf-8")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = ["".join(pin) for pin in re.findall(r"^([\w.-]+)(?:\[.*?\])?(==[^\s;\\]+)", lock, re.MULTILINE)]
    lines = ["= Appendix A: the package", *(f'#listing("mnistae/{file.name}")' for file in files)]
    lines += ["= Appendix B: the environment", "#environment((", *(f"  {quoted(pin)}," for pin in pins), "))"]
    return "\n".join(lines) + "\n"


def build_pdf(notebooks, code=False, identity=None):
    """The report as bytes."""
    data = (
        collected(notebooks.parent / "results")["dataset"] or "MNIST"
    )  # the committed notebooks are MNIST's
    inputs = {**(identity or {}), "data": f"Data: {DATES.get(data, data)}"}
    if data != "MNIST":
        inputs["stand-in"] = data
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chapters = [read_chapter(*book, folder, code) for book in read_notebooks(notebooks)]
        try:
            cut = "ENDOFSUMMARY"
            markdown = [summary(chapters), cut, *(text for chapter in chapters for _, text in chapter.cells)]
            answers, body = to_typst("\n\n".join(markdown)).split(cut, 1)
            front = f"#summary-page[\n{answers}\n]\n" if answers.strip() else ""
            front += "#outline(depth: 2)\n"
            return to_pdf(front + body + appendix(folder), folder, inputs)
        except BuildError as error:
            raise blame(chapters, folder, error) from None


def write(path, content):
    """Replace a file by bytes, or leave it as it was."""
    atomic_write(path, content)
    print(path)


def result_table(results):
    """The README's table of headline numbers."""
    rows = [f"| {question} | {answer} |" for question, answer in headlines(results)]
    return "\n".join(["| | result |", "|---|---|", *rows])


def refresh():
    """The committed results, README table and PDF from a run on MNIST that has just rewritten notebooks/."""
    try:
        results = collected()
    except ValueError as error:
        raise BuildError(str(error)) from None
    if results["dataset"] != "MNIST":
        raise BuildError(
            f"the run was on {results['dataset'] or 'nothing'}: only MNIST's results are committed"
        )
    pdf = build_pdf(ROOT / "notebooks")  # first, since it may fail
    write(REPORT / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, after = readme.split(TABLE_START)[0], readme.split(TABLE_END)[1]
    table = f"{TABLE_START}\n{result_table(results)}\n{TABLE_END}"
    write(ROOT / "README.md", (before + table + after).encode())
    write(REPORT / "ex2.pdf", pdf)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Build the report from executed notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("pdf", "html", "submission"):
        sub = commands.add_parser(command)
        sub.add_argument("--notebooks", type=Path, default=REPORT / "build/notebooks", help="executed ones")
        if command == "html":
            sub.add_argument("--output", type=Path, default=REPORT / "html")
            sub.add_argument("--offline", type=Path, help="folder with embed-amd.js and require.js to load")
        else:
            for key, (_, words, _) in submission.IDENTITY.items():
                sub.add_argument(f"--{key}", default="", help=words)
        if command == "pdf":
            sub.add_argument("--output", type=Path, default=REPORT / "build/ex2.pdf")
            sub.add_argument("--code", action="store_true", help="show the code of the cells")
    commands.add_parser("refresh")
    options = parser.parse_args(argv)
    try:
        if options.command == "refresh":
            refresh()
            return 0
        if options.command == "html":
            import pages  # here, since only this needs nbconvert, which takes a second to load

            built = pages.build(options.notebooks, TITLE, SUBTITLE, options.offline, options.output)
            for name, page in built.items():
                write(options.output / name, page.encode())
            return 0
        identity = {key: getattr(options, key).strip() for key in submission.IDENTITY}
        if options.command == "pdf":
            identity = submission.checked(identity) if any(identity.values()) else None
            write(options.output, build_pdf(options.notebooks, options.code, identity))
        else:
            identity = submission.checked(identity)
            pdf = build_pdf(options.notebooks, identity=identity)
            write(REPORT / f"ex2_{identity['id']}.zip", submission.packed(ROOT, pdf, identity))
    except submission.IdentityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Executed notebooks as Markdown: what a chapter says, without what its cells are."""

import base64
import io
import json
import re
from dataclasses import dataclass, field

import nbformat
from PIL import Image

MARKDOWN = "commonmark_x-emoji-subscript-superscript"  # nearest to Jupyter's dialect
VIEW = "application/vnd.jupyter.widget-view+json"
CODE_IN_ANSWER = re.compile(r"([^.!?\n]*:)?\s*\n+(`{3,}).*?\2", re.DOTALL)  # with the words that announce it


class BuildError(RuntimeError):
    """The report cannot be built; the message says where and why."""


@dataclass
class Chapter:
    """One notebook as Markdown, cell by cell."""

    name: str  # file name
    title: str = ""
    number: str = ""
    cells: list = field(default_factory=list)  # (cell id, Markdown)
    captions: dict = field(default_factory=dict)  # cell id -> ("Figure", "1.2")
    answers: list = field(default_factory=list)  # (Markdown, label, captions' entry above or None)


def read_notebooks(folder):
    """The executed notebooks of a folder, in order: [(file name, notebook)]."""
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise BuildError(f"no notebook in {folder}: run `make` first, or give --notebooks")
    books = [(path.name, nbformat.read(path, as_version=4)) for path in paths]
    for name, nb in books:
        for cell in nb.cells:
            if cell.cell_type != "code" or not cell.source.strip():
                continue
            if not cell.execution_count:
                raise BuildError(f"{name}: cell '{cell.id}' was not executed: run `make` first")
            if any(out.output_type == "error" for out in cell.outputs):
                raise BuildError(f"{name}: cell '{cell.id}' ended in an error")
    return books


def breakable(text):
    """Text whose words may break where they are longer than a line."""
    return re.sub(r"\S{80}(?=\S)", "\\g<0>\u200b", text)


def fenced(text, mark):
    """Text as a verbatim block, without a terminal's colours."""
    text = breakable(re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip("\n"))
    ticks = "`" * max(4, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks} {mark}\n{text}\n{ticks}"


def quoted(text):
    """A Typst string."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)


def slim(picture):
    """The same pixels on white paper in fewer bytes: no transparency, and no colour where all is grey."""
    image = Image.open(io.BytesIO(picture))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode == "RGB" and len({band.tobytes() for band in image.split()}) == 1:
        image = image.getchannel(0)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def output_parts(cell, stem, folder):
    """The outputs of a code cell as [(kind, Markdown)], kind one of figure, table, markdown, text."""
    parts = []
    for n, out in enumerate(cell.outputs):
        data = out.get("data", {})
        if out.output_type == "stream":
            if out.name == "stdout" and out.text.strip():
                parts.append(("text", fenced(out.text, "{.output}")))
        elif VIEW in data:
            continue  # a widget: the static figure beside it stands for it
        elif "image/png" in data:
            file = f"{stem}-{cell.id}-{n}.png"
            (folder / file).write_bytes(slim(base64.b64decode(data["image/png"])))
            width, alt = cell.metadata.get("width", "auto"), cell.metadata.get("caption", "")
            options = f"width: {width}, alt: {quoted(alt)}"
            parts.append(
                ("figure", fenced(f"#align(center, picture({quoted(file)}, {options}))", "{=typst}"))
            )
        elif "text/markdown" in data:
            text = data["text/markdown"]
            parts.append(("table" if text.lstrip().startswith("|") else "markdown", text))
        elif "text/html" in data:
            parts.append(("table", fenced(data["text/html"], "{=html}")))
        elif "text/plain" in data:
            parts.append(("text", fenced(data["text/plain"], "{.output}")))
    return parts


def captioned(parts, caption, number):
    """The figures (else tables) of one cell as one block with one caption, where the first of them stood."""
    kind = "figure" if any(kind == "figure" for kind, _ in parts) else "table"
    body = [text for k, text in parts if k == kind]
    first = [k for k, _ in parts].index(kind)
    rest = [part for part in parts if part[0] != kind]
    breaks = "true" if sum(text.count("<tr") for text in body) > 30 else "false"
    key = f'.captioned kind="{kind.capitalize()}" number="{number}" breaks="{breaks}"'
    block = [f"::::: {{{key}}}", f":::: {{.caption}}\n{caption}\n::::", *body, ":::::"]
    return [*rest[:first], (kind, "\n\n".join(block)), *rest[first:]]


def read_chapter(name, nb, folder, code=False):
    """Walk one notebook; its images go to `folder`."""
    chapter, counts, last = Chapter(name), {"Figure": 0, "Table": 0}, None
    stem = name.removesuffix(".ipynb")
    for cell in nb.cells:
        tags, caption = cell.metadata.get("tags", []), cell.metadata.get("caption")
        if cell.cell_type == "markdown":
            text = cell.source
            heading = re.match(r"#\s+((?:(\d+)\s+)?.*)", text)
            if heading and not chapter.title:
                chapter.title, chapter.number = heading[1].strip(), heading[2] or stem
                text = f"{heading[0].rstrip()} {{#chapter-{stem}}}{text[heading.end() :]}"
            if re.search("^## Question", text, re.MULTILINE):
                last = None  # figures above belong to another question
            parts = [("markdown", text)]
        elif cell.cell_type == "code":
            parts = output_parts(cell, stem, folder)
            kinds = {kind.capitalize() for kind, _ in parts}
            if caption:
                label = next((kind for kind in counts if kind in kinds), None)
                if not label:
                    raise BuildError(f"{name}: cell '{cell.id}' has a caption but neither figure nor table")
                counts[label] += 1
                last = chapter.captions[cell.id] = (label, f"{chapter.number}.{counts[label]}")
                parts = captioned(parts, caption, last[1])
            if code and cell.source.strip():
                parts.insert(0, ("code", fenced(cell.source, "python")))
        else:
            continue
        if "answer" in tags:
            answers = [text for kind, text in parts if kind == "markdown" and not text.startswith("✓")]
            label = f"{stem}-{cell.id}"
            proof = cell.metadata.get("figure")  # the cell whose figure proves the answer, else the one above
            if proof and proof not in chapter.captions:
                raise BuildError(
                    f"{name}: cell '{cell.id}' refers to '{proof}', which has no caption above it"
                )
            seen = chapter.captions.get(proof, last)
            chapter.answers += [(CODE_IN_ANSWER.sub("", text).strip(), label, seen) for text in answers]
            parts.insert(0, ("label", f'`#here-is("{label}")`{{=typst}}'))
        chapter.cells.append((cell.id, "\n\n".join(text for _, text in parts)))
    return chapter

"""A page a chapter, whose sliders work without a kernel."""

import html
import os
import re
import tempfile
from pathlib import Path

import pypandoc
from chapters import MARKDOWN, read_chapter, read_notebooks
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbformat.v4 import new_output

INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 1.1rem/1.6 serif; max-width: 40rem; margin: 3rem auto }}
li {{ list-style: none }}</style>
</head><body><h1>{title}</h1><p>{subtitle}.</p><ul>{entries}</ul></body></html>
"""


class Page(HTMLExporter):
    """nbconvert's page, with formulas as MathML: they need no script and no network."""

    def __init__(self, texts):
        super().__init__(
            html_manager_semver_range="1.0.15",  # the scripts of the sliders, from their public server
            raw_template="{% extends 'index.html.j2' %}{% block html_head_js_mathjax %}{% endblock %}",
        )
        cut, options = "ENDOFCELL", ["--mathml", "--wrap=preserve"]
        joined = f"\n\n{cut}\n\n".join(texts)  # one call of pandoc for all cells
        pages = pypandoc.convert_text(joined, "html5", MARKDOWN, options, verify_format=False)
        self.rendered = dict(zip(texts, pages.split(f"<p>{cut}</p>"), strict=True))

    @pass_context
    def markdown2html(self, context, source):
        return self.rendered[source]


def texts_of(nb, captions):
    """All Markdown of a notebook, after captions were put in as Markdown outputs."""
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    for cell in nb.cells:
        outputs = cell.get("outputs", [])
        if cell.id in captions:
            text = "**{} {}:** {}".format(*captions[cell.id], cell.metadata.caption)
            outputs.append(new_output("display_data", {"text/markdown": text}))
        for data in (out.data for out in outputs if "data" in out):
            if "text/markdown" in data:
                texts.append(data["text/markdown"])
    return list(dict.fromkeys(texts))


def build(notebooks, title, subtitle, offline=None, output=None):
    """{file name: page}, index.html among them. offline: a folder with embed-amd.js and require.js."""
    pages, entries = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, nb in read_notebooks(notebooks):
            chapter = read_chapter(name, nb, Path(folder))
            page = Page(texts_of(nb, chapter.captions))
            if offline:
                page.widget_renderer_url = os.path.relpath(offline / "embed-amd.js", output)
                page.require_js_url = os.path.relpath(offline / "require.js", output)
            body, _ = page.from_notebook_node(nb, {"metadata": {"name": chapter.title}})
            file = name.replace(".ipynb", ".html")
            pages[file] = re.sub(r'(href="[\w./-]+)\.ipynb', r"\1.html", body)
            entries.append(f'<li><a href="{file}">{html.escape(chapter.title)}</a></li>')
    pages["index.html"] = INDEX.format(title=title, subtitle=subtitle, entries="".join(entries))
    return pages

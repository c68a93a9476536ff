"""The notebook runner: canonical files, and what happens when a cell fails."""

import importlib
import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbconvert import ScriptExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
run = importlib.import_module("run")

SLIDER = """
import sys
import ipywidgets as widgets
from IPython.display import display
import matplotlib.pyplot as plt
print("bar: 3 of 7 in 0.1 s", file=sys.stderr)
print("one"); print("two")
frames = widgets.Stack([widgets.HTML(value=text) for text in "ab"], selected_index=0)
slider = widgets.IntSlider(max=1)
widgets.jslink((slider, "value"), (frames, "selected_index"))
display(widgets.VBox([slider, frames]))
plt.plot([1, 2]); plt.show()
"""


def save(path, *cells, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), path)
    return path


def test_two_runs_write_the_same_bytes(tmp_path, capsys):
    first = save(
        tmp_path / "in/01.ipynb",
        new_markdown_cell("# 1  One", id="title"),
        new_code_cell(SLIDER, id="slider", metadata={"tags": ["answer"], "alt": "c", "scrolled": True}),
        custom="an editor's",
    )
    second = save(tmp_path / "in/02.ipynb", new_code_cell("import os; print(os.getcwd())", id="where"))
    for output in ("a", "b"):
        run.main([str(first), str(second), "--output", str(tmp_path / output), "--jobs", "2"])
    for name in ("01.ipynb", "02.ipynb"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a/01.ipynb").read_text()
    assert text.endswith("}\n")
    nb = json.loads(text)
    assert set(nb["metadata"]) == {"kernelspec", "language_info", "widgets"}
    cell = nb["cells"][1]
    assert (cell["id"], cell["metadata"]) == ("slider", {"tags": ["answer"], "alt": "c"})
    assert [out["output_type"] for out in cell["outputs"]] == ["stream", "display_data", "display_data"]
    assert cell["outputs"][0]["text"] == ["one\n", "two\n"]  # one stream, and not the bar's
    models = nb["metadata"]["widgets"][run.STATE]["state"]
    assert list(models) == [f"{n:032x}" for n in range(1, len(models) + 1)]
    assert cell["outputs"][1]["data"][run.VIEW]["model_id"] in models
    link = next(model for model in models.values() if model["model_name"] == "LinkModel")
    assert link["state"]["source"][0].removeprefix("IPY_MODEL_") in models
    assert str(tmp_path / "in") in (tmp_path / "a/02.ipynb").read_text()  # its working folder
    assert "02.ipynb: done" in capsys.readouterr().out


def announcing(name):
    output = f"metadata={{'mnistae': {{'data': {name!r}}}}}"
    return new_code_cell(f"display({{'text/plain': 'data'}}, raw=True, {output})", id="data")


def test_only_mnist_replaces_a_notebook(tmp_path):
    path = save(tmp_path / "01.ipynb", announcing("embedded sample"))
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=r"01.ipynb: not replaced, since it ran on the embedded sample"):
        run.main([str(path), "--in-place"])
    assert path.read_bytes() == before
    run.main([str(path), "--output", str(tmp_path / "out")])
    save(path, announcing("MNIST"))
    run.main([str(path), "--in-place"])
    assert path.read_bytes() != before


def test_figures_carry_their_alternative_text():
    def cell(**metadata):
        figure = new_output("display_data", {"image/png": "AA==", "text/plain": "<Figure>"})
        return new_code_cell("x", outputs=[figure], metadata=metadata)

    cells = [cell(alt="a curve falls"), cell()]
    nb = nbformat.reads(run.canonical(new_notebook(cells=cells)), as_version=4)
    assert [c.outputs[0].metadata for c in nb.cells] == [{"image/png": {"alt": "a curve falls"}}, {}]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("raise ValueError('no such digit')", "ValueError: no such digit"),
        ("import os; os._exit(1)", "Kernel died"),
        ("get_ipython().showtraceback((ValueError, ValueError('shown only'), None))", "shown only"),
        ("import time; time.sleep(60)", "timed out"),
    ],
)
def test_a_cell_that_fails_or_takes_too_long_stops_the_run_and_leaves_the_file(tmp_path, cell, said):
    path = save(tmp_path / "bad.ipynb", new_code_cell("x = 1", id="good"), new_code_cell(cell, id="faulty"))
    before = path.read_bytes()
    with pytest.raises(SystemExit) as stopped:
        run.main([str(path), "--in-place", *(["--timeout", "3"] if said == "timed out" else [])])
    error = stopped.value.code
    assert "bad.ipynb: failed in cell 'faulty'" in error
    assert said in error
    assert "\x1b" not in error
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["bad.ipynb"]


def test_only_widget_ids_are_renumbered():
    digest, model = "0123456789abcdef" * 2, "fedcba9876543210" * 2
    view = new_output("display_data", {run.VIEW: {"model_id": model}, "text/plain": digest})
    nb = new_notebook(cells=[new_code_cell("x", id="x", outputs=[view])])
    nb.metadata.widgets = {run.STATE: {"state": {model: {"state": {"layout": f"IPY_MODEL_{model}"}}}}}
    text = run.canonical(nb)
    assert digest in text
    assert model not in text
    assert text.count(f"{1:032x}") == 3
    assert run.canonical(nbformat.reads(text, as_version=4)) == text


def test_a_missing_notebook_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run.main([str(tmp_path / "none.ipynb")])
    assert f"no such notebook: {tmp_path / 'none.ipynb'}" in capsys.readouterr().err


def test_the_user_s_settings_do_not_reach_the_notebooks(tmp_path, monkeypatch):
    """IPython startup files, a matplotlibrc that asks for LaTeX, an exported backend."""
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "own.py").write_text("import pandas as pd; print('started')")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    asked = "import matplotlib as m; ('pd' in globals(), m.rcParams['text.usetex'], m.get_backend())"
    path = save(tmp_path / "nb/01.ipynb", new_code_cell(asked, id="asked"))
    before = dict(os.environ)
    run.main([str(path), "--in-place"])
    assert os.environ == before, "or the next kernel would look for settings that are gone"
    [cell] = nbformat.read(path, as_version=4).cells
    own = "(False, False, 'module://matplotlib_inline.backend_inline')"
    assert [output.data["text/plain"] for output in cell.outputs] == [own]


@pytest.mark.parametrize("hiding", ["types.py", "types/__init__.py"])
def test_what_hides_a_standard_module_is_named_and_a_plain_folder_is_not(tmp_path, hiding):
    (tmp_path / "venv").mkdir()
    assert run.own_settings(tmp_path, tmp_path)
    path = save(tmp_path / "01.ipynb", new_code_cell("1", id="one"))
    (tmp_path / hiding).parent.mkdir(exist_ok=True)
    (tmp_path / hiding).touch()
    with pytest.raises(SystemExit, match=r"types(\.py)? hides Python's own module 'types'.*: rename it"):
        run.main([str(path), "--output", str(tmp_path / "out")])


def test_a_notebook_becomes_a_script_with_its_ending():
    exported = ScriptExporter().from_notebook_node(
        nbformat.reads(run.canonical(new_notebook()), as_version=4)
    )
    assert exported[1]["output_extension"] == ".py"

"""Trials too long for `make test`: python tests/trials.py. MNIST and the committed checkpoints must be there.

Every notebook, in reverse order, runs twice in one kernel, started in a foreign folder and without a display:
both passes must show the same, and write in report/build alone. Then one checkpoint is taken away from a copy
of the project: chapter 1 must train that network anew, say so, and hold all its claims.
"""

import copy
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from mnistae import study

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("text/html", "text/latex", "text/markdown")


def run(nb, folder):
    """Execute a notebook in a kernel whose working folder is `folder`."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(nb, kernel_name="python3", timeout=3_600, resources=resources).execute()


def shown(cells):
    """What cells show as text, widgets left out."""
    outputs = [out.get("data", {}) for cell in cells for out in cell.outputs]
    return [data[kind] for data in outputs for kind in SHOWN if kind in data]


def written(start):
    """Files of the project that were written since, caches left out."""
    paths = (path for path in ROOT.rglob("*") if path.is_file() and path.stat().st_mtime_ns > start)
    names = {path.relative_to(ROOT) for path in paths}
    return {name for name in names if not {".venv", ".git", "__pycache__"} & {*name.parts}}


def twice(path, folder):
    nb = nbformat.read(path, as_version=4)
    first = [cell for cell in nb.cells if cell.cell_type == "code"]
    second = copy.deepcopy(first)
    for cell in second:
        cell.id += "-again"
    nb.cells = [*first, *second]
    start = (folder / "start").stat().st_mtime_ns
    run(nb, folder)
    assert shown(first) == shown(second), f"{path.name} shows something else at its second run"
    assert all(name.parts[:2] == ("report", "build") for name in written(start)), written(start)
    assert [file.name for file in folder.iterdir()] == ["start"], (
        "something was written in the working folder"
    )
    print(f"{path.name}: twice in one kernel, the same {len(shown(first))} outputs", flush=True)


def without_a_checkpoint(folder):
    project, name = folder / "project", f"{study.BASE.name}.safetensors"
    ignore = shutil.ignore_patterns(".venv", ".git", "build", "html")
    shutil.copytree(ROOT, project, ignore=ignore)
    (project / "checkpoints" / name).unlink()
    os.environ["PYTHONPATH"] = str(project)
    nb = nbformat.read(project / "notebooks/01_reconstruction.ipynb", as_version=4)
    run(nb, project / "notebooks")
    said = [out.text for cell in nb.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
    assert any(f"Training 1 network(s) that {project / 'checkpoints'} lacks" in text for text in said), said
    assert (project / "checkpoints" / name).stat().st_size > 0
    print("chapter 1 without one checkpoint: trained anew with a notice, every claim holds", flush=True)


def main():
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        os.environ.pop(name, None)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"), reverse=True):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "start").touch()
            twice(path, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        without_a_checkpoint(Path(folder))


if __name__ == "__main__":
    sys.exit(main())

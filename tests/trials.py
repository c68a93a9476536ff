"""Trials too long for `make test`: python tests/trials.py, in a copy of the project. MNIST must be there.

Each notebook runs twice in one kernel, the last notebook first, in a folder of its own and without a display:
both times it must show the same, and write in report/build alone. Then chapter 1 runs without one of its
networks: it must train that one again, say so, and hold all its claims.
"""

import copy
import os
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from mnistae import study
from mnistae.data import ROOT
from mnistae.store import store_for

VIEW = "application/vnd.jupyter.widget-view+json"  # has another id each time


def run(nb, folder):
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(nb, kernel_name="python3", timeout=3_600, resources=resources).execute()


def shown(cells):
    outputs = [out for cell in cells for out in cell.outputs if out.get("name") != "stderr"]
    return [out.get("data", out.get("text")) for out in outputs if VIEW not in out.get("data", {})]


def written(project):
    """The project's files and when they were written, without those of report/build."""
    paths = (path for path in project.rglob("*") if project / "report" / "build" not in path.parents)
    return {path: path.stat().st_mtime_ns for path in paths if path.is_file()}


def twice(path, project, folder):
    nb, before = nbformat.read(path, as_version=4), written(project)
    first = [cell for cell in nb.cells if cell.cell_type == "code"]
    second = copy.deepcopy(first)
    for cell in second:
        cell.id += "-again"
    nb.cells = [*first, *second]
    run(nb, folder)
    assert shown(first) == shown(second), f"{path.name} shows something else at its second run"
    assert written(project) == before, f"{path.name} wrote {written(project).items() ^ before.items()}"
    assert not list(folder.iterdir()), f"{path.name} wrote in its working folder"
    print(f"{path.name}: twice in one kernel, the same {len(shown(first))} outputs", flush=True)


def without_a_network(project):
    network = project / store_for("MNIST").path(study.BASE).relative_to(ROOT)
    network.unlink()
    nb = nbformat.read(project / "notebooks" / "01_reconstruction.ipynb", as_version=4)
    run(nb, project / "notebooks")
    said = [out.text for cell in nb.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
    assert any(f"Training 1 network(s) that {network.parent} lacks" in text for text in said), said
    assert network.stat().st_size > 0
    print("chapter 1 without one network: trained again and said so, every claim holds", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("MNISTAE_DATA", str(ROOT / "data"))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        project = Path(home) / "project"
        shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "data", "build", "__pycache__"))
        os.environ["PYTHONPATH"] = str(project)
        for path in sorted((project / "notebooks").glob("*.ipynb"), reverse=True):
            twice(path, project, Path(folder))
        without_a_network(project)

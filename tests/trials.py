"""Trials too long for `make test`: make trials. They work in a copy of the project; MNIST must be there.

Each notebook runs twice in one kernel, in a foreign folder and without a display: it must show the same, and
write in report/build alone. Chapter 1 without one network must train it again, say so, and hold its claims.
"""

import os
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from mnistae import data, store, study


def outputs(path, folder, times=1):
    """What the cells of a notebook put out, in a kernel that runs all of them so many times."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    cells = [nbformat.from_dict({**cell, "id": f"{cell.id}-{n}"}) for n in range(times) for cell in code]
    nb, resources = nbformat.v4.new_notebook(cells=cells), {"metadata": {"path": str(folder)}}
    NotebookClient(nb, kernel_name="python3", timeout=3_600, resources=resources).execute()
    return [out for cell in nb.cells for out in cell.outputs]


def twice(path, project, folder):
    def written():
        files = [file for file in project.rglob("*") if project / "report/build" not in file.parents]
        return {file: file.stat().st_mtime_ns for file in [*files, *folder.iterdir()] if file.is_file()}

    before, found = written(), outputs(path, folder, times=2)
    shown = [out.get("data", out.get("text")) for out in found if out.get("name") != "stderr"]
    shown = [content for content in shown if not any("widget" in kind for kind in content)]
    once, again = shown[: len(shown) // 2], shown[len(shown) // 2 :]
    assert once == again, f"{path.name} shows something else at its second run"
    assert written() == before, f"{path.name} wrote {written().items() ^ before.items()}"
    print(f"{path.name}: twice in one kernel, the same {len(once)} outputs", flush=True)


def without_a_network(project):
    network = project / store.store_for("MNIST").path(study.BASE).relative_to(data.ROOT)
    network.unlink()
    found = outputs(project / "notebooks/01_reconstruction.ipynb", project / "notebooks")
    said = "".join(out.get("text", "") for out in found)
    assert f"Training 1 network(s) that {network.parent} lacks" in said
    assert network.exists()
    print("chapter 1 without one network: trained again and said so, every claim holds", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("MNISTAE_DATA", str(data.ROOT / "data"))
    os.environ.pop("DISPLAY", None)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        project, ignored = Path(home) / "project", (".*", "data", "build", "__pycache__")
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(project)}
        shutil.copytree(data.ROOT, project, ignore=shutil.ignore_patterns(*ignored))
        for path in sorted((project / "notebooks").glob("*.ipynb"), reverse=True):
            twice(path, project, Path(folder))
        without_a_network(project)

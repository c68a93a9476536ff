"""Execute notebooks top to bottom and write them so that two runs are byte-identical (how: --help).

Each notebook gets a kernel of its own, started in the notebook's folder, on one thread and without the user's
settings.
"""

import argparse
import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from mnistae.store import atomic_write

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("tags", "alt", "width", "figure", "question")  # other cell metadata changes with the editor
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
LANGUAGE = {"name": "python", "file_extension": ".py"}  # `nbconvert --to script` asks for the ending
STATE, VIEW = "application/vnd.jupyter.widget-state+json", "application/vnd.jupyter.widget-view+json"


class Failed(RuntimeError):
    """A notebook did not run to its end, or cannot be shown; the message says where, why and the way out."""


def read(path):
    """A notebook from its file; raises Failed, which names the file, if it holds none."""
    try:
        nb = nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        reason = str(error).partition("\n")[0][:100]
        raise Failed(f"{path} is no notebook ({reason}). Mend it, or `git restore` it.") from None
    if not nb.cells:
        raise Failed(f"{path} has no cells. `git restore` it, or take it out of the folder.")
    return nb


def own_settings(folder, notebooks):
    """Environment variables for kernels that start in `notebooks` without the user's settings.

    folder: an empty one, in place of the user's IPython profile. Raises Failed for a file beside the
    notebooks that hides one of Python's own modules.
    """
    for path in notebooks.iterdir():
        if path.stem in sys.stdlib_module_names and (path.suffix == ".py" or (path / "__init__.py").exists()):
            raise Failed(
                f"{path} hides Python's own module '{path.stem}', so no kernel can start: rename it."
            )
    settings = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    settings |= {"IPYTHONDIR": str(folder), "MATPLOTLIBRC": os.devnull}
    return settings | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def widgets_of(nb):
    """The stored states of a notebook's widgets, {model id: state}."""
    return nb.metadata.get("widgets", {}).get(STATE, {}).get("state", {})


def data_of(nb):
    """The name of the data that a notebook announced, "" if it used none."""
    outputs = [out for cell in nb.cells for out in cell.get("outputs", [])]
    names = [
        out.metadata.mnistae.data for out in outputs if "data" in out.get("metadata", {}).get("mnistae", {})
    ]
    return "".join(names[:1])


def canonical(nb):
    """The notebook as text that depends on its sources and results only, not on the run that made them."""
    models, widgets = list(widgets_of(nb)), nb.metadata.get("widgets")
    nb.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    if models:
        nb.metadata.widgets = widgets
    for cell in nb.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
        if cell.cell_type == "code":  # stderr is progress bars and warnings: of the run, not of the results
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        for out in cell.get("outputs", []):
            if "image/png" in out.get("data", {}) and "alt" in cell.metadata:
                out.metadata["image/png"] = {"alt": cell.metadata.alt}
    text = nbformat.writes(nb)
    for n, model in enumerate(models, start=1):  # named at random, in order of creation
        text = text.replace(model, f"{n:032x}")
    return nbformat.writes(nbformat.reads(text, as_version=4)) + "\n"  # the writer sorts keys


async def execute(path, target, timeout, slots, env):
    """Run one notebook in its own folder and write it to `target`; raises Failed and writes nothing.

    env: all environment variables of its kernel.
    """
    async with slots:
        nb = read(path)
        running = {}
        client = NotebookClient(
            nb,
            kernel_name="python3",
            extra_arguments=["--log-level=40"],  # errors only
            timeout=timeout,
            coalesce_streams=True,
            iopub_timeout=60,  # the default of 4 s drops outputs on a busy machine
            raise_on_iopub_timeout=True,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_start=lambda cell, cell_index: running.update(cell),
        )
        print(f"{path.name}: started", flush=True)
        try:
            await client.async_execute(env=env)
        except (RuntimeError, TimeoutError, CellExecutionError) as error:
            raise Failed(f"{path.name}: failed in cell '{running.get('id')}'\n{plain(str(error))}") from None
        for cell in nb.cells:  # an error in showing a result, which does not stop the kernel
            for out in cell.get("outputs", []):
                if out.output_type == "error":
                    trace = plain("\n".join(out.traceback))
                    raise Failed(f"{path.name}: failed in cell '{cell.id}'\n{trace}")
        if target == path and data_of(nb) not in ("", "MNIST"):
            cure = "put MNIST into data/, or run without --in-place"
            raise Failed(f"{path.name}: not replaced, since it ran on the {data_of(nb)}: {cure}")
        atomic_write(target, canonical(nb).encode())
        print(f"{path.name}: done", flush=True)


def plain(text):
    """Text without the terminal's colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def main(argv=None):
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    parser = argparse.ArgumentParser(description="Execute notebooks and write them canonically.")
    parser.add_argument("notebooks", nargs="*", type=Path, default=notebooks, help="default: all, in order")
    parser.add_argument("--in-place", action="store_true", help="replace the notebooks themselves")
    parser.add_argument("--output", type=Path, default=ROOT / "report/build/notebooks", help="folder")
    parser.add_argument("--jobs", type=int, choices=range(1, 65), default=2, metavar="N", help="at once")
    parser.add_argument("--timeout", type=int, default=7200, help="seconds a cell may take")
    options = parser.parse_args(argv)
    if missing := [str(path) for path in options.notebooks if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")
    paths = [path.resolve() for path in options.notebooks]
    targets = {path: path if options.in_place else options.output / path.name for path in paths}

    async def all_of_them(env):  # the first failure stops the others
        slots = asyncio.Semaphore(options.jobs)
        await asyncio.gather(*(execute(*files, options.timeout, slots, env) for files in targets.items()))

    try:
        with tempfile.TemporaryDirectory() as empty:
            env = dict(os.environ)
            for folder in {path.parent for path in paths}:
                env |= own_settings(empty, folder)
            asyncio.run(all_of_them(env))
    except Failed as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()

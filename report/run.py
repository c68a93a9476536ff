"""Execute notebooks top to bottom and write them so that two runs are byte-identical.

    python report/run.py [NOTEBOOK ...] [--in-place | --output DIR] [--jobs N] [--timeout SECONDS]

Each notebook gets a kernel of its own, started in the notebook's folder, on one thread.
"""

import argparse
import asyncio
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from mnistae.checkpoints import atomic_write

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("tags", "caption", "width", "figure")  # all other cell metadata is an editor's, and changes with it
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
STATE, VIEW = "application/vnd.jupyter.widget-state+json", "application/vnd.jupyter.widget-view+json"
HEX_ID = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{32}(?![0-9A-Za-z])")


class Failed(RuntimeError):
    """A notebook that did not run to its end; the message names notebook, cell and traceback."""


def canonical(nb):
    """The notebook as text that depends on its sources and results only, not on the run that made them."""
    widgets = nb.metadata.get("widgets", {})
    nb.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    if widgets.get(STATE, {}).get("state"):
        nb.metadata.widgets = widgets
    for cell in nb.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
        if cell.cell_type == "code":  # stderr is progress bars and warnings: of the run, not of the results
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    # Models are named at random; number them in order of creation, then any view of a model already closed.
    ids = dict.fromkeys(widgets.get(STATE, {}).get("state", {}))
    for cell in nb.cells:
        for out in cell.get("outputs", []):
            if VIEW in out.get("data", {}):
                ids.setdefault(out.data[VIEW]["model_id"])
    number = {old: f"{n:032x}" for n, old in enumerate(ids, start=1)}
    text = HEX_ID.sub(lambda found: number.get(found[0], found[0]), nbformat.writes(nb))
    return nbformat.writes(nbformat.reads(text, as_version=4)) + "\n"  # the writer sorts keys


async def execute(path, target, timeout, slots):
    """Run one notebook in its own folder and write it to `target`; raises Failed and writes nothing."""
    async with slots:
        nb = nbformat.read(path, as_version=4)
        running, started = {}, time.perf_counter()
        client = NotebookClient(
            nb,
            kernel_name="python3",
            extra_arguments=["--log-level=40"],  # errors only
            timeout=timeout,
            record_timing=False,
            store_widget_state=True,
            coalesce_streams=True,
            iopub_timeout=60,  # the default of 4 s drops outputs on a busy machine
            raise_on_iopub_timeout=True,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_start=lambda cell, cell_index: running.update(id=cell.get("id", cell_index)),
        )
        print(f"{path.name}: started", flush=True)
        try:
            await client.async_execute()
        except (RuntimeError, TimeoutError, CellExecutionError) as error:
            trace = re.sub(r"\x1b\[[0-9;]*m", "", getattr(error, "traceback", "") or str(error))
            raise Failed(f"{path.name}: failed in cell '{running.get('id')}'\n{trace}") from None
        atomic_write(target, canonical(nb).encode())
        print(f"{path.name}: done in {time.perf_counter() - started:.1f} s", flush=True)


async def execute_all(targets, jobs, timeout):
    """Run {notebook: target file}, `jobs` side by side; the first failure stops all of them."""
    slots = asyncio.Semaphore(jobs)
    tasks = [asyncio.create_task(execute(path, target, timeout, slots)) for path, target in targets.items()]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)  # lets their kernels stop
    for task in done:
        task.result()


def main(argv=None):
    parser = argparse.ArgumentParser(description="Execute notebooks and write them canonically.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/, in order")
    parser.add_argument("--in-place", action="store_true", help="replace the notebooks themselves")
    parser.add_argument("--output", type=Path, default=ROOT / "report/build/notebooks", help="folder")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="notebooks side by side")
    parser.add_argument("--timeout", type=int, default=7200, help="seconds a cell may take")
    options = parser.parse_args(argv)
    notebooks = [p.resolve() for p in options.notebooks] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if not notebooks or options.jobs < 1:
        parser.error("no notebook to run" if not notebooks else "--jobs must be at least 1")
    for path in notebooks:
        if not path.is_file():
            parser.error(f"no such notebook: {path}")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    os.environ.pop("MPLBACKEND", None)  # an inherited backend would hide every figure
    targets = {path: path if options.in_place else options.output / path.name for path in notebooks}
    if not options.notebooks and not options.in_place:
        for path in set(options.output.glob("*.ipynb")) - set(targets.values()):
            path.unlink()  # of a notebook that is gone or has another name now
    try:
        asyncio.run(execute_all(targets, options.jobs, options.timeout))
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

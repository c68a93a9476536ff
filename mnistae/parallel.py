"""Many jobs side by side: one process per core, one thread each, with progress."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from typing import Any

import joblib
import torch
from tqdm import tqdm

_ALONE = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """One caller at a time, with torch's settings as in a new process: one thread, float32, CPU, gradients.

    Threads, default dtype and random state belong to the whole process. On one thread sums are added in one
    order, so weights do not depend on what runs at the same time or on what the caller has set.
    """
    on_cpu = torch.get_default_device().type == "cpu"
    device = nullcontext() if on_cpu else torch.device("cpu")  # the latter slows each operation
    with _ALONE, device, torch.inference_mode(False), torch.enable_grad():
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)


def in_parallel(
    work: Callable, jobs: Sequence[Any], unit: str, progress: bool, cost: Callable, processes: int = -1
) -> Iterator[tuple[Any, Any]]:
    """Yield (job, work(job)) for each job as they finish, with one progress bar.

    cost: of a job, in any unit, for the time left. processes: -1 for one per core, or as LOKY_MAX_CPU_COUNT
    says. Raises what `work` raises. KeyboardInterrupt at Ctrl-C, and RuntimeError if a process dies, say what
    is kept and how to continue.
    """
    if not jobs:
        return  # without starting processes
    workers = joblib.Parallel(n_jobs=processes, return_as="generator_unordered")
    paired = joblib.delayed(lambda job: (job, work(job)))
    results = workers(paired(job) for job in jobs)
    layout = "{desc} {percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} left"
    finished, total = f"0 of {len(jobs)} {unit}s", sum(map(cost, jobs))
    try:
        with tqdm(desc=finished, total=total, disable=not progress, leave=False, bar_format=layout) as bar:
            for n, (job, result) in enumerate(results, 1):
                finished = f"{n} of {len(jobs)} {unit}s"
                bar.set_description(finished, refresh=False)
                bar.update(cost(job))
                yield job, result
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{finished} are finished and kept. Run again to continue.") from None
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"A process was killed, most likely because memory ran out. {finished} are finished and kept. "
            "To use fewer processes, set LOKY_MAX_CPU_COUNT=1 in the environment and run again."
        ) from error

"""Many jobs side by side: one process a core, one thread each, with progress."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

_ALONE = threading.RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, and one caller at a time, since threads and random state are the process's.

    Sums come out in one order then, so weights do not depend on what runs beside them.
    """
    with _ALONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def in_parallel(
    work: Callable[..., Any],
    jobs: Sequence[Any],
    *rest: Any,
    progress: bool,
    unit: str,
    cost: Callable[[Any], float] = lambda job: 1,  # in any unit: the time left is judged by it
    processes: int = -1,  # one a core, or as LOKY_MAX_CPU_COUNT says
) -> Iterator[tuple[Any, Any]]:
    """Yield (job, work(job, *rest)) for each job as they finish, with one progress bar.

    Raises as `work`; KeyboardInterrupt at Ctrl-C and RuntimeError if a process dies, which say how to go on.
    """
    if not jobs:
        return  # without starting processes
    workers = joblib.Parallel(n_jobs=processes, return_as="generator_unordered")
    paired = joblib.delayed(lambda job: (job, work(job, *rest)))
    results = workers(paired(job) for job in jobs)
    look = "{desc} {percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} left"
    finished = f"0 of {len(jobs)} {unit}s"
    try:
        with tqdm(total=sum(map(cost, jobs)), disable=not progress, leave=False, bar_format=look) as bar:
            bar.set_description(finished)
            for n, (job, result) in enumerate(results, 1):
                finished = f"{n} of {len(jobs)} {unit}s"
                bar.set_description(finished, refresh=False)
                bar.update(cost(job))
                yield job, result
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{finished} are finished and kept. Run again to go on.") from None
    except TerminatedWorkerError as error:
        raise RuntimeError(
            f"A process was killed, most likely for want of memory. {finished} are finished and kept. "
            f"Go on with fewer processes: set LOKY_MAX_CPU_COUNT=1 in the environment and run again."
        ) from error

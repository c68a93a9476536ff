"""Load what is stored, compute the rest side by side, store it: where data, store and processes meet.

Every function takes a store and data; by default `data.load()` and the project's own store for them.
Data that are given travel to a process with each job, about a second for MNIST; by default each
process loads them once.
"""

import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, cast

import joblib
from joblib.parallel import get_active_backend
from torch import nn

from mnistae import data, measures
from mnistae.config import Config, Probe, Transfer
from mnistae.data import Data
from mnistae.parallel import in_parallel
from mnistae.probes import Probed, probe
from mnistae.store import Run, Store, StoreError, store_for
from mnistae.training import TrainingError, cost, train
from mnistae.transfer import FEATURES, Outcome, View, evaluate, view, view_options

READS = FEATURES | {"retrained_decoder": "code", "ill_conditioned_start": "pixels"}  # by scheme


def trained(
    config: Config,
    store: Store | None = None,
    device: str = "cpu",
    progress: bool = True,
    mnist: Data | None = None,
) -> Run:
    """The run of exactly this config: loaded if it is stored, else trained and stored.

    device: "cpu", "cuda", "mps", where the network then is; a stored one works on all of them. Raises
    StoreError for a damaged or foreign file, TrainingError if training diverged or collapsed, and ValueError
    for a store of other data. For a device that is not there, torch raises.
    """
    store, mnist = _resolved(store, mnist)
    if not store.has(config):
        store.save(config, train(config, mnist, device, progress))
    return cast(Run, store.network(config, device))


def trained_all(
    configs: Iterable[Config],
    store: Store | None = None,
    device: str = "cpu",
    progress: bool = True,
    mnist: Data | None = None,
) -> dict[Config, Run]:
    """The runs of many configs, missing ones trained side by side: one process per core, one thread each.

    Each network is stored as soon as it is trained, so a second call continues where the first one stopped.
    Inside `with joblib.parallel_config(backend="dask")` the processes are a cluster's, whose machines need
    the data but no common disk. Raises as `trained` and `in_parallel` do; at the end one TrainingError names
    each network that failed.
    """
    store, own = _resolved(store, mnist)
    configs = list(dict.fromkeys(configs))
    seconds = partial(cost, available=len(own.train.labels))
    missing = [config for config in configs if not store.has(config)]
    missing.sort(key=seconds, reverse=True)  # or one core would have a long one left at the end
    processes = -1 if device == "cpu" else 1  # an accelerator is one worker
    if missing and processes == 1 and "Dask" in type(get_active_backend()[0]).__name__:
        raise ValueError(f"{device=} on a Dask cluster: allowed is 'cpu'. Without the cluster it works.")
    if missing and progress:
        minutes = sum(map(seconds, missing)) / 60 / joblib.effective_n_jobs(processes)
        what = f"{len(missing)} network(s) that {store.folder} lacks"
        print(f"Training {what}: about {minutes:.0f} minutes, the longest first.", file=sys.stderr)
    work = partial(_attempt, store=store, mnist=mnist, device=device)
    for config, result in _successes(work, missing, "network", None, progress, seconds, processes):
        store.save(config, result)
    return {config: trained(config, store, device, progress, mnist) for config in configs}


def evaluate_all(
    experiments: Iterable[Any], store: Store | None = None, progress: bool = True, mnist: Data | None = None
) -> dict[Any, Any]:
    """The outcomes of many experiments, of one kind, missing ones run side by side, one process per core.

    experiments: each a `Transfer`, with an `Outcome`, or each a `Probe`, with a `Probed`. Outcomes are stored
    every second, so a second call continues where the first one stopped. Raises as `trained_all` does; at the
    end one TrainingError names each network and each experiment that failed. ValueError for mixed kinds.
    """
    store, _ = _resolved(store, mnist)
    experiments = list(dict.fromkeys(experiments))
    kinds = sorted({type(e).__name__ for e in experiments})
    if kinds not in ([], ["Probe"], ["Transfer"]):
        said = f"experiments of kind {' and '.join(kinds)}: allowed is all Transfer or all Probe"
        raise ValueError(f"{said}. Call once for each kind.")
    found = store.outcomes(experiments)
    missing = [e for e in experiments if e not in found]
    if not missing:
        return found
    # Else many processes would each train the same encoder.
    needed = (e.encoder for e in missing if READS[e.scheme] == "code")
    untrained = None
    try:
        trained_all(needed, store, progress=progress, mnist=mnist)
    except TrainingError as failure:
        able = [e for e in missing if READS[e.scheme] != "code" or store.has(e.encoder)]
        untrained = f"{failure}\n\n{len(missing) - len(able)} experiment(s) that need them did not run."
        missing = able
    missing.sort(key=_what_is_shared)
    fresh: dict[Any, Any] = {}
    stored, work = time.monotonic(), partial(_attempt, store=store, mnist=mnist)
    try:
        for e, outcome in _successes(work, missing, "experiment", untrained, progress, lambda e: 1):
            fresh[e] = outcome
            if time.monotonic() - stored > 1:  # each time the whole table is written
                store.add(fresh)
                fresh, stored = {}, time.monotonic()
    finally:
        if fresh:
            store.add(fresh)
    return store.outcomes(experiments)


def _resolved(store: Store | None, mnist: Data | None) -> tuple[Store, Data]:
    # In a worker, which may be on another machine, data.load() gives that machine's data.
    mnist = mnist or data.load()
    store = store or store_for(mnist.name)
    if store.dataset != mnist.name:
        said = f"a store of {store.dataset} with data of {mnist.name}"
        raise ValueError(f"{said} on {platform.node()}: allowed is one of both. See MNISTAE_DATA.")
    return store, mnist


def _successes(
    work: Callable, jobs: Sequence[Any], unit: str, earlier: str | None, *options: Any
) -> Iterator[tuple[Any, Any]]:
    # Each job that succeeds, as it finishes; at the end one error for all that failed, also earlier.
    failed: dict[str, list[Any]] = {}
    for job, result in in_parallel(work, jobs, unit, *options):
        if isinstance(result, TrainingError):
            failed.setdefault(str(result), []).append(job)
        else:
            yield job, result
    said = [earlier] if earlier else []
    if failed:
        count = sum(map(len, failed.values()))
        reasons = (f"{reason}\n({len(of)} {unit}(s), such as {of[0]})" for reason, of in failed.items())
        head = f"{count} of {len(jobs)} {unit}s failed. The others are kept; a second run tries only these."
        said += [head, *reasons]
    if said:
        raise TrainingError("\n\n".join(said))


def _attempt(job: Any, store: Store, mnist: Data | None, device: str = "cpu") -> Any:
    try:
        if isinstance(job, Config):
            return train(job, _resolved(store, mnist)[1], device)
        return _evaluate(job, store, mnist)
    except (TrainingError, StoreError, ValueError) as error:  # their words are enough
        return TrainingError(error)
    except Exception:
        return TrainingError(traceback.format_exc())


def _evaluate(e: Transfer | Probe, store: Store, mnist: Data | None) -> Outcome | Probed:
    source = (READS[e.scheme], e.encoder, *_resolved(store, mnist))
    if isinstance(e, Probe):
        return probe(e, _encoder(*source), source[-1])
    encoder, known = _encoder_and_view(*source, *view_options(e))
    return evaluate(e, encoder, source[-1], known)


def _what_is_shared(e: Transfer | Probe) -> tuple[Any, ...]:
    # Experiments one after the other share what a process keeps: a network, and perhaps a graph of its codes.
    return e.encoder.name, *(() if isinstance(e, Probe) else view_options(e))


@lru_cache(maxsize=2)  # the same for hundreds of experiments; a graph has 100 MB
def _encoder_and_view(
    feature: str, config: Config, store: Store, mnist: Data, *options: Any
) -> tuple[nn.Module, View]:
    encoder = _encoder(feature, config, store, mnist)
    return encoder, view(encoder, mnist, *options)


def _encoder(feature: str, config: Config, store: Store, mnist: Data) -> nn.Module:
    if feature == "pixels":
        return nn.Flatten()
    if feature == "pca":
        return measures.PrincipalComponents(mnist.train.images, config.latent_dim)
    return trained(config, store, progress=False, mnist=mnist).network.encoder

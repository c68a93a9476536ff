"""Load what is stored, compute the rest side by side, store it: where data, store and processes meet.

Every function takes a store and data; by default `data.load()` and the project's own store for them.
"""

import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import joblib
from joblib.parallel import get_active_backend
from torch import Tensor, nn

from mnistae import data, measures
from mnistae.config import Config, Probe, Transfer
from mnistae.data import Data
from mnistae.parallel import in_parallel
from mnistae.probes import Probed, probe
from mnistae.store import Run, Store, StoreError, store_for
from mnistae.training import Trained, TrainingError, cost, train
from mnistae.transfer import FEATURES, Outcome, Reach, evaluate, reach, spreads

TELLING = (TrainingError, StoreError, ValueError)  # errors whose words are enough


class _Failure(str):
    """Why a job gave no result."""


def trained(
    config: Config,
    store: Store | None = None,
    device: str = "cpu",
    progress: bool = True,
    mnist: Data | None = None,
) -> Run:
    """The run of exactly this config: loaded if it is stored, else trained and stored.

    device: "cpu", "cuda", "mps", where the network then lies; a stored one serves all of them. Raises
    StoreError for a damaged or foreign file, TrainingError if training diverged or collapsed, ValueError for
    a store of other data, and as torch does for a device that is not there.
    """
    store = _checked(store, mnist)
    while (run := store.network(config, device)) is None:
        store.save(config, train(config, mnist or data.load(), device, progress))
    return run


def trained_all(
    configs: Iterable[Config],
    store: Store | None = None,
    device: str = "cpu",
    progress: bool = True,
    mnist: Data | None = None,
) -> dict[Config, Run]:
    """The runs of many configs, missing ones trained side by side: one process per core, one thread each.

    Each network is stored as soon as it is trained, so a second call goes on where the first one stopped.
    Processes come from joblib: inside `with joblib.parallel_config(backend="dask")` they are a cluster's,
    whose machines need the data but no common disk. Raises TrainingError at the end if some networks failed,
    which names each; else as `trained` and `in_parallel` do.
    """
    configs, store = list(dict.fromkeys(configs)), _checked(store, mnist)
    missing = [config for config in configs if not store.has(config)]
    seconds = partial(cost, available=len((mnist or data.load()).train.labels))
    missing.sort(
        key=seconds, reverse=True
    )  # the costly first, so that no core has a long one left at the end
    processes = -1 if device == "cpu" else 1  # an accelerator is one worker
    engine = type(get_active_backend()[0]).__name__
    if missing and processes == 1 and "Dask" in engine:
        raise ValueError(f"{device=} on a Dask cluster: allowed is 'cpu'. Without the cluster it works.")
    if missing and progress:
        minutes = sum(map(seconds, missing)) / 60 / joblib.effective_n_jobs(processes)
        what = f"{len(missing)} network(s) that {store.folder} lacks"
        print(f"Training {what}: about {minutes:.0f} minutes, the longest first.", file=sys.stderr)
    options: dict[str, Any] = {"progress": progress, "cost": seconds, "processes": processes}
    job = (store.dataset, device, mnist)
    for config, result in _completed(_train, missing, *job, unit="network", **options):
        store.save(config, result)
    return {config: trained(config, store, device, progress, mnist) for config in configs}


def evaluate_all(
    experiments: Iterable[Any],
    store: Store | None = None,
    progress: bool = True,
    mnist: Data | None = None,
) -> dict[Any, Any]:
    """The outcomes of many experiments, of one kind, missing ones run side by side, one process per core.

    experiments: each a `Transfer`, with an `Outcome`, or each a `Probe`, with a `Probed`.

    They are stored every second, so a second call goes on where the first one stopped. Raises TrainingError
    at the end if some experiments failed; else as `trained_all` does.
    """
    experiments, store = list(dict.fromkeys(experiments)), _checked(store, mnist)
    found = store.outcomes(experiments)
    missing = [e for e in experiments if e not in found]
    # Else many processes would each train the same encoder.
    needed = [e for e in missing if FEATURES.get(e.scheme) == "code" or e.scheme == "retrained_decoder"]
    trained_all(dict.fromkeys(e.encoder for e in needed), store, "cpu", progress, mnist)
    missing.sort(key=lambda e: e.encoder.name)  # neighbours share what a process keeps of an encoder
    fresh: dict[Any, Any] = {}
    stored = time.monotonic()
    try:
        completed = _completed(_evaluate, missing, store, mnist, progress=progress, unit="experiment")
        for e, outcome in completed:
            fresh[e] = outcome
            if time.monotonic() - stored > 1:  # a table is written anew as a whole
                store.add(fresh)
                fresh, stored = {}, time.monotonic()
    finally:
        if fresh:
            store.add(fresh)
    return store.outcomes(experiments)


def _checked(store: Store | None, mnist: Data | None) -> Store:
    dataset = (mnist or data.load()).name
    if store and store.dataset != dataset:
        raise ValueError(f"a store of {store.dataset} with data of {dataset}: allowed is one of {dataset}")
    return store or store_for(dataset)


def _completed(
    work: Callable[..., Any], jobs: Sequence[Any], *rest: Any, unit: str, **options: Any
) -> Iterator[tuple[Any, Any]]:
    # Each job that succeeds, as it finishes; at the end one error for all that failed.
    failed: dict[str, list[Any]] = {}
    for job, result in in_parallel(_attempt, jobs, work, *rest, unit=unit, **options):
        if isinstance(result, _Failure):
            failed.setdefault(result, []).append(job)
        else:
            yield job, result
    if failed:
        count = sum(map(len, failed.values()))
        reasons = (f"{reason}\n({len(of)} {unit}(s), such as {of[0]})" for reason, of in failed.items())
        head = f"{count} of {len(jobs)} {unit}s failed. The others are kept; a second run tries only these."
        raise TrainingError("\n\n".join([head, *reasons]))


def _attempt(job: Any, work: Callable[..., Any], *rest: Any) -> Any:
    try:
        return work(job, *rest)
    except TELLING as error:
        return _Failure(error)
    except Exception:
        return _Failure(traceback.format_exc())


def _own_data(dataset: str) -> Data:
    # Those of this process, which may be another machine's.
    if (mnist := data.load()).name != dataset:
        raise TrainingError(f"{platform.node()} has {mnist.name}, not {dataset}: see MNISTAE_DATA")
    return mnist


def _train(config: Config, dataset: str, device: str, mnist: Data | None) -> Trained:
    return train(config, mnist or _own_data(dataset), device)


def _evaluate(e: Transfer | Probe, store: Store, mnist: Data | None) -> Outcome | Probed:
    own = mnist or _own_data(store.dataset)
    if isinstance(e, Probe):
        feature = "code" if e.scheme == "retrained_decoder" else "pixels"
        return probe(e, _encoder(feature, e.encoder, store, mnist), own)
    source = (FEATURES[e.scheme], e.encoder, store, mnist)
    graph = _reach(e.nodes, e.neighbours, e.split, *source) if spreads(e) else None
    return evaluate(e, _encoder(*source), own, _codes(e.split, *source), graph)


def _encoder(feature: str, config: Config, store: Store, mnist: Data | None) -> nn.Module:
    if feature == "pixels":
        return nn.Flatten()
    if feature == "pca":
        return _principal_components(config.latent_dim, store.dataset, mnist)
    return trained(config, store, progress=False, mnist=mnist).network.encoder


@lru_cache(maxsize=8)
def _principal_components(latent_dim: int, dataset: str, mnist: Data | None) -> nn.Module:
    return measures.PrincipalComponents((mnist or _own_data(dataset)).train.images, latent_dim)


@lru_cache(maxsize=32)  # the same for hundreds of experiments
def _codes(split: str, feature: str, config: Config, store: Store, mnist: Data | None) -> Tensor:
    images = getattr(mnist or _own_data(store.dataset), split).images
    return measures.infer(_encoder(feature, config, store, mnist), images)


@lru_cache(maxsize=2)  # 100 MB each
def _reach(
    nodes: int, neighbours: int, split: str, feature: str, config: Config, store: Store, mnist: Data | None
) -> Reach:
    codes, own = _codes(split, feature, config, store, mnist), mnist or _own_data(store.dataset)
    return reach(_encoder(feature, config, store, mnist), nodes, neighbours, own, codes)

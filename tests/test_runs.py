"""Sweeps in real processes: load, compute the rest, store; failures, kills and races lose nothing."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import joblib
import psutil
import pytest
import torch
from small import TINY, child, same, small

from mnistae import data
from mnistae.config import Probe, Transfer
from mnistae.runs import evaluate_all, trained, trained_all
from mnistae.store import Store, StoreError
from mnistae.training import TrainingError, train

SWEEP = [replace(TINY, seed=seed) for seed in range(8)]
DIVERGING = [replace(TINY, learning_rate=10.0, optimizer="adamw", seed=seed) for seed in (0, 1)]
FROZEN = Transfer("frozen", TINY, labels_per_class=3, draw=0, steps=30)
several_cores = pytest.mark.skipif(joblib.cpu_count() < 2, reason="there would be no worker process")


def times(store):
    return {path.name: path.stat().st_mtime_ns for path in store.folder.glob("*.*")}


def test_a_network_is_trained_once_and_then_loaded(mnist, store):
    first = trained(TINY, store, progress=False, mnist=mnist)
    before = times(store)
    again = trained(TINY, store, progress=False, mnist=mnist)
    assert same(first.network.state_dict(), again.network.state_dict())
    assert same(first.network.state_dict(), train(TINY, mnist).weights)
    assert first.history == again.history
    assert times(store) == before
    assert len(before) == 1


def test_only_missing_ones_are_trained_in_the_order_asked_and_the_plan_is_told(mnist, store, capsys):
    trained(SWEEP[1], store, progress=False, mnist=mnist)
    before = times(store)
    runs = trained_all(SWEEP[:3], store, mnist=mnist)
    assert f"Training 2 network(s) that {store.folder} lacks: about 0 minutes" in capsys.readouterr().err
    assert list(runs) == SWEEP[:3]
    assert before.items() <= times(store).items()
    assert all(same(run.network.state_dict(), train(c, mnist).weights) for c, run in runs.items())
    trained_all(SWEEP[:3], store, mnist=mnist)
    assert capsys.readouterr().err == "", "nothing to do"


def test_networks_that_diverge_do_not_stop_the_others(mnist, store):
    configs = [*SWEEP[:5], *DIVERGING, *SWEEP[5:]]
    with pytest.raises(TrainingError, match=r"2 of 10 networks failed\. The others are kept") as caught:
        trained_all(configs, store, progress=False, mnist=mnist)
    assert all(f"seed={config.seed}" in str(caught.value) for config in DIVERGING)
    assert str(caught.value).count("collapsed") == 2
    before = times(store)
    assert set(before) == {store.path(config).name for config in SWEEP}
    with pytest.raises(TrainingError, match="2 of 2 networks failed"):
        trained_all(configs, store, progress=False, mnist=mnist)
    assert times(store) == before


def test_outcomes_are_kept_and_only_missing_ones_run(mnist, store):
    experiments = [replace(FROZEN, draw=draw) for draw in range(4)]
    first = evaluate_all(experiments[:2], store, progress=False, mnist=mnist)
    assert store.has(TINY), "the encoder was trained first"
    forged = {experiments[0]: first[experiments[0]]._replace(accuracy=0.1234)}
    store.add(forged)
    everything = evaluate_all(experiments, store, progress=False, mnist=mnist)
    assert list(everything) == experiments
    assert everything[experiments[0]].accuracy == 0.1234, "ran again"
    assert everything[experiments[1]] == first[experiments[1]]
    assert 0.3 < everything[experiments[3]].accuracy <= 1


def test_experiments_that_fail_do_not_stop_the_others(mnist, store):
    impossible = [replace(FROZEN, labels_per_class=41, draw=draw) for draw in (0, 1)]
    others = [replace(FROZEN, scheme=scheme) for scheme in ("logistic_code", "logistic_pca", "from_scratch")]
    with pytest.raises(TrainingError, match=r"2 of 5 experiments failed(?s:.)*per_class=41: allowed is 1 to"):
        evaluate_all([*impossible, *others], store, progress=False, mnist=mnist)
    assert list(store.outcomes([*impossible, *others])) == others


def test_encoders_that_fail_do_not_stop_the_experiments_on_others(mnist, store):
    impossible = replace(FROZEN, labels_per_class=41)
    blocked = [replace(FROZEN, encoder=DIVERGING[0], draw=draw) for draw in (0, 1)]
    others = [FROZEN, replace(blocked[0], scheme="logistic_pixels")]  # of an encoder that is not needed
    experiments = [*blocked, impossible, *others]
    with pytest.raises(TrainingError, match=r"1 of 2 networks failed(?s:.)*collapsed") as caught:
        evaluate_all(experiments, store, progress=False, mnist=mnist)
    assert "2 experiment(s) that need them did not run" in str(caught.value)
    assert "1 of 3 experiments failed" in str(caught.value)
    assert "per_class=41" in str(caught.value)
    assert list(store.outcomes(experiments)) == others
    with pytest.raises(TrainingError, match="1 of 1 networks failed"):
        evaluate_all([blocked[0], FROZEN], store, progress=False, mnist=mnist)


def test_experiments_of_two_kinds_are_refused_before_any_runs(mnist, store):
    with pytest.raises(ValueError, match=r"kind Probe and Transfer: allowed is all .*Call once for each"):
        evaluate_all([FROZEN, Probe("retrained_decoder", TINY, 2)], store, progress=False, mnist=mnist)
    assert not store.folder.exists()


def test_a_damaged_encoder_is_named_once_for_all_experiments(mnist, store):
    trained(TINY, store, progress=False, mnist=mnist)
    store.path(TINY).write_bytes(b"cut")
    with pytest.raises(StoreError, match="is no checkpoint of this network"):
        evaluate_all([replace(FROZEN, draw=draw) for draw in range(3)], store, progress=False, mnist=mnist)


def test_a_store_of_other_data_is_refused(tmp_path, mnist):
    other = Store(tmp_path, data.SAMPLE)
    for use, what in ((trained, TINY), (evaluate_all, [FROZEN])):
        with pytest.raises(ValueError, match=f"a store of {data.SAMPLE} with data of MNIST"):
            use(what, other, mnist=mnist)


def test_committed_networks_serve_on_the_sample_and_others_are_trained_apart(tmp_path):
    sample, mnist = small(data.SAMPLE), small()
    committed = Store(tmp_path / "committed", "MNIST")
    own = Store(tmp_path / "own", data.SAMPLE, committed)
    trained(TINY, committed, progress=False, mnist=mnist)
    before = times(committed)
    runs = trained_all(SWEEP[:2], own, progress=False, mnist=sample)
    assert [run.dataset for run in runs.values()] == ["MNIST", data.SAMPLE]
    outcomes = evaluate_all([FROZEN], own, progress=False, mnist=sample)
    assert outcomes[FROZEN].dataset == data.SAMPLE
    assert times(committed) == before


# Other engines


ENGINES = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import joblib
from small import TINY
from mnistae import data
from mnistae.runs import trained, trained_all
from mnistae.store import Store

CONFIGS = [replace(TINY, epochs=4, images=1_280, latent_dim=d) for d in (2, 3, 4)]

def digest(name, runs):
    found = [[t.double().sum().item() for t in run.network.state_dict().values()] for run in runs.values()]
    print(name, len(list((HOME / name).iterdir())), found)

def on_dask(store):
    from distributed import Client
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        victim = min(client.run(os.getpid).values())
        client.loop.call_later(2, os.kill, victim, signal.SIGKILL)
        with joblib.parallel_config(backend="dask"):
            try:
                trained_all(CONFIGS, store, device="cuda")
            except ValueError as error:
                print(error)
            runs = trained_all(CONFIGS, store)
        assert victim not in client.run(os.getpid).values(), "it was not killed in time"
        return runs

if __name__ == "__main__":
    HOME = Path(sys.argv[1])
    store = {name: Store(HOME / name, data.SAMPLE) for name in ("alone", "processes", "Dask")}
    digest("alone", {config: trained(config, store["alone"]) for config in CONFIGS})
    digest("processes", trained_all(CONFIGS, store["processes"]))
    digest("Dask", on_dask(store["Dask"]))
"""


def test_every_engine_gives_the_same_networks_bit_for_bit(tmp_path):
    """On the embedded sample: one by one, joblib's processes, a Dask cluster that loses a worker."""
    script = tmp_path / "engines.py"
    script.write_text(ENGINES)
    environment = {**os.environ, "MNISTAE_DATA": "sample", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, script, tmp_path / "stores"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone, processes, refused, dask = done.stdout.splitlines()
    assert alone.startswith("alone 3 ")
    assert [line.split(" ", 1)[1] for line in (processes, dask)] == [alone.split(" ", 1)[1]] * 2
    assert "device='cuda' on a Dask cluster: allowed is 'cpu'" in refused


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_sweep_on_a_gpu(mnist, store):
    runs = trained_all(SWEEP[:2], store, device="cuda", progress=False, mnist=mnist)
    assert all(next(run.network.parameters()).is_cuda for run in runs.values())
    assert trained(SWEEP[0], store, mnist=mnist).network.encoder[0].weight.device.type == "cpu"


# Kills, races, interruptions


def sweep(store):
    for config in SWEEP:
        trained(config, store, progress=False, mnist=small())


def test_a_sweep_killed_at_8_moments_ends_as_if_nothing_had_happened(mnist, tmp_path):
    whole, home, warm = (Store(tmp_path / name, "MNIST") for name in ("whole", "killed", "warm"))
    chance = random.Random(0)
    child(sweep, warm).join()
    start = time.perf_counter()
    child(sweep, whole).join()
    duration, progress = time.perf_counter() - start, []
    count = lambda: len(list(home.folder.glob("*.safetensors")))  # noqa: E731
    for n in range(8):
        process, before = child(sweep, home), count()
        while n % 2 and process.is_alive() and count() == before:
            time.sleep(0.01)  # every other kill comes when one more network has been saved
        time.sleep(chance.uniform(0, 0.1 if n % 2 else 0.4) * duration)
        process.kill()
        process.join()
        progress.append(count())
        assert all(home.network(config) for config in SWEEP if home.has(config)), "whole, or it raises"
    assert any(0 < n < len(SWEEP) for n in progress), f"no kill in the middle: {progress}"
    sweep(home)
    assert sorted(p.name for p in home.folder.iterdir()) == sorted(f"{c.name}.safetensors" for c in SWEEP)
    for config in SWEEP:
        one, other = whole.network(config), home.network(config)
        assert same(one.network.state_dict(), other.network.state_dict())
        assert one.history == other.history


def one(store):
    trained(TINY, store, progress=False, mnist=small())


def test_two_processes_that_train_the_same_network_both_end_well(store):
    racers = [child(one, store) for _ in range(2)]
    for process in racers:
        process.join()
    assert [process.exitcode for process in racers] == [0, 0]
    assert set(times(store)) == {store.path(TINY).name}
    assert same(store.network(TINY).network.state_dict(), train(TINY, small()).weights)


LONG = [replace(TINY, epochs=8, seed=seed) for seed in range(8)]
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
from pathlib import Path
from small import small
from mnistae.runs import trained_all
from mnistae.store import Store
from test_runs import LONG
if __name__ == "__main__":
    trained_all(LONG, Store(Path(sys.argv[1]), "MNIST"), progress=False, mnist=small())
"""


def test_ctrl_c_keeps_what_is_finished_and_says_so(store, tmp_path):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, tmp_path / "interrupted.py", store.folder]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(store.folder.glob("*.safetensors")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert "of 8 networks are finished and kept. Run again to continue." in said
    assert 0 < len(times(store)) < 8


@several_cores
def test_a_killed_worker_is_an_error_that_says_how_to_continue(mnist, store):
    def kill_a_worker():
        while not list(store.folder.glob("*.safetensors")):
            time.sleep(0.05)
        children = psutil.Process().children(recursive=True)
        next(process for process in children if "LokyProcess" in " ".join(process.cmdline())).kill()

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    with pytest.raises(RuntimeError, match=r"killed.* memory.*\. (\d) of 8 networks are finished") as caught:
        trained_all(LONG, store, progress=False, mnist=mnist)
    killer.join()
    assert "set LOKY_MAX_CPU_COUNT=1" in str(caught.value)
    kept = times(store)
    assert 0 < len(kept) < 8
    assert list(trained_all(LONG, store, progress=False, mnist=mnist)) == LONG
    assert len(times(store)) == 8
    assert kept.items() <= times(store).items(), "what was finished is not trained again"


def test_a_folder_that_cannot_be_written_is_named(mnist, tmp_path):
    (tmp_path / "in the way").touch()
    with pytest.raises(OSError, match="in the way"):
        trained(TINY, Store(tmp_path / "in the way", "MNIST"), progress=False, mnist=mnist)

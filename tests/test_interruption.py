"""Kills, races, full disks: what is finished is kept, what is not leaves no trace, the end is the same."""

import multiprocessing
import os
import random
import resource
import signal
import time
from dataclasses import replace
from functools import partial

import joblib
import pytest
import torch
from small import work_in

from mnistae import checkpoints, parallel, training
from mnistae.checkpoints import CheckpointError
from mnistae.config import Config
from mnistae.training import train, trained, trained_all

TINY = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400)
SWEEP = [replace(TINY, seed=seed) for seed in range(8)]


def weights(run):
    return torch.cat([tensor.flatten().double() for tensor in run.network.state_dict().values()])


def sweep(home):
    work_in(home)
    for config in SWEEP:
        trained(config, progress=False)


def child(job, *arguments):
    """A process that does the job; forked from a clean one, since torch's threads do not survive a fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mnistae.training"])
    process = context.Process(target=job, args=arguments)
    process.start()
    return process


def test_a_sweep_killed_at_20_moments_ends_as_if_nothing_had_happened(small_data, tmp_path, monkeypatch):
    whole = [trained(config, progress=False) for config in SWEEP]
    home, chance, progress = tmp_path / "killed", random.Random(0), []
    child(sweep, tmp_path / "warm").join()
    start = time.perf_counter()
    child(sweep, tmp_path / "timed").join()
    duration = time.perf_counter() - start
    for n in range(20):
        process, before = child(sweep, home), len(list(home.glob("*.safetensors")))
        while n % 2 and process.is_alive() and len(list(home.glob("*.safetensors"))) == before:
            time.sleep(0.01)  # every other kill comes when one more network has been saved
        time.sleep(chance.uniform(0, 0.1 if n % 2 else 0.4) * duration)
        process.kill()
        process.join()
        progress.append(len(list(home.glob("*.safetensors"))))
        for path in home.glob("*.safetensors"):
            checkpoints.safe_open(path, framework="pt")  # whole, or it raises
    assert any(0 < count < len(SWEEP) for count in progress), f"no kill in the middle: {progress}"
    monkeypatch.setattr(checkpoints, "folder", lambda dataset: home)
    again = [trained(config, progress=False) for config in SWEEP]
    assert sorted(p.name for p in home.iterdir()) == sorted(f"{c.name}.safetensors" for c in SWEEP), "litter"
    for one, other in zip(whole, again, strict=True):
        assert torch.equal(weights(one), weights(other))
        assert one.history == other.history


def write_and_die(path):
    checkpoints.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    checkpoints.atomic_write(path, b"half")


def test_what_a_killed_writer_left_is_swept_up_by_the_next(tmp_path):
    child(write_and_die, tmp_path / "a").join()
    assert len(list(tmp_path.iterdir())) == 1, "the part that was left"
    checkpoints.atomic_write(tmp_path / "b", b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def one(home):
    work_in(home)
    trained(TINY, progress=False)


def test_two_processes_that_train_the_same_network_both_end_well(small_data):
    home = checkpoints.folder("MNIST")
    racers = [child(one, home) for _ in range(2)]
    for process in racers:
        process.join()
    assert [process.exitcode for process in racers] == [0, 0]
    path = home / f"{TINY.name}.safetensors"
    before = path.stat().st_mtime_ns
    trained(TINY, progress=False)
    assert [p.name for p in home.iterdir()] == [path.name]
    assert path.stat().st_mtime_ns == before, "read, not trained again"


def test_ctrl_c_keeps_what_is_finished_and_says_so_in_one_line(small_data, monkeypatch):
    class Impatient:
        def __init__(self, **_):
            pass

        def __call__(self, jobs):
            for _, (job, args, _) in zip(range(3), jobs, strict=False):
                yield job(*args)
            raise KeyboardInterrupt

    monkeypatch.setattr(parallel.joblib, "Parallel", Impatient)
    with pytest.raises(KeyboardInterrupt, match=r"^3 of 8 networks are finished and kept\. Run again"):
        trained_all(SWEEP, progress=False)
    assert len(list(checkpoints.folder("MNIST").iterdir())) == 3


def train_or_be_killed(fatal, config, dataset, device):
    """`train` in a worker, which is killed as if memory had run out, once: the file `fatal` goes with it."""
    work_in(None)
    if config.seed == 5 and fatal.exists():
        fatal.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return train(config, dataset, device)


@pytest.mark.skipif(joblib.cpu_count() < 2, reason="there would be no worker, only this process")
def test_a_killed_worker_is_an_error_that_says_how_to_go_on(small_data, monkeypatch, tmp_path):
    (tmp_path / "fatal").touch()
    monkeypatch.setattr(training, "train", partial(train_or_be_killed, tmp_path / "fatal"))
    with pytest.raises(RuntimeError, match=r"killed.* memory.*\. (\d) of 8 networks are finished") as caught:
        trained_all(SWEEP, progress=False)
    assert "set LOKY_MAX_CPU_COUNT=1 in the environment and run again" in str(caught.value)
    kept = {path: path.stat().st_mtime_ns for path in checkpoints.folder("MNIST").iterdir()}
    assert f"{len(kept)} of 8 networks are finished and kept" in str(caught.value)
    assert len(kept) < 8
    assert list(trained_all(SWEEP, progress=False)) == SWEEP
    after = {path: path.stat().st_mtime_ns for path in checkpoints.folder("MNIST").iterdir()}
    assert len(after) == 8
    assert kept.items() <= after.items(), "what was finished is not trained again"


def nearly_full(home):
    work_in(home)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))  # the write fails after a thousand bytes
    with pytest.raises(OSError, match="too large"):
        trained(replace(TINY, seed=1), progress=False)


def test_a_full_disk_leaves_the_old_file_and_no_litter(small_data):
    trained(TINY, progress=False)
    process = child(nearly_full, checkpoints.folder("MNIST"))
    process.join()
    assert process.exitcode == 0
    assert [p.name for p in checkpoints.folder("MNIST").iterdir()] == [f"{TINY.name}.safetensors"]


def test_a_folder_that_cannot_be_written_is_named(small_data):
    home = checkpoints.folder("MNIST")
    if os.geteuid() == 0:  # root may write in any folder, but not in a file
        home.write_text("in the way")
    else:
        home.mkdir(mode=0o500)
    with pytest.raises(OSError, match=str(home)):
        trained(TINY, progress=False)


def test_200_flipped_bytes_of_a_real_checkpoint_are_all_noticed(small_data):
    trained(TINY, progress=False)
    path = checkpoints.folder("MNIST") / f"{TINY.name}.safetensors"
    content, chance = path.read_bytes(), random.Random(0)
    for _ in range(200):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="Delete the file and run again"):
            trained(TINY, progress=False)

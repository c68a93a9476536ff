"""Kills, races, full disks: what is finished is kept, what is not leaves no trace, the end is the same."""

import os
import random
import resource
import signal
import time
from dataclasses import replace

import pytest
import torch

from mnistae import checkpoints, training
from mnistae.checkpoints import CheckpointError
from mnistae.training import Config, trained, trained_all

TINY = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400)
SWEEP = [replace(TINY, seed=seed) for seed in range(8)]


def weights(run):
    return torch.cat([tensor.flatten().double() for tensor in run.network.state_dict().values()])


def sweep():
    return [trained(config, progress=False) for config in SWEEP]


def child(job):
    """A process of its own that does the job: its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        job()
        status = 0
    finally:
        os._exit(status)


def test_a_sweep_killed_at_20_moments_ends_as_if_nothing_had_happened(small_data, tmp_path, monkeypatch):
    start = time.perf_counter()
    whole = sweep()
    duration = time.perf_counter() - start
    home = tmp_path / "killed"
    monkeypatch.setattr(checkpoints, "folder", lambda dataset: home)
    chance = random.Random(0)
    for _ in range(20):
        process = child(sweep)
        time.sleep(chance.uniform(0, duration / 4))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        for path in home.glob("*.safetensors"):
            checkpoints.safe_open(path, framework="pt")  # whole, or it raises
    again = sweep()
    assert sorted(p.name for p in home.iterdir()) == sorted(f"{c.name}.safetensors" for c in SWEEP), "litter"
    for one, other in zip(whole, again, strict=True):
        assert torch.equal(weights(one), weights(other))
        assert one.history == other.history


def test_what_a_killed_writer_left_is_swept_up_by_the_next(tmp_path):
    def write_and_die():
        checkpoints.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        checkpoints.atomic_write(tmp_path / "a", b"half")

    os.waitpid(child(write_and_die), 0)
    assert len(list(tmp_path.iterdir())) == 1, "the part that was left"
    checkpoints.atomic_write(tmp_path / "b", b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_living_writer_s_part_is_left_alone(tmp_path):
    part = tmp_path / f".a.{checkpoints.platform.node()}.{os.getppid()}.part"
    part.write_bytes(b"under way")
    checkpoints.atomic_write(tmp_path / "b", b"whole")
    assert part.exists()


def test_two_processes_that_train_the_same_network_both_end_well(small_data):
    racers = [child(lambda: trained(TINY, progress=False)) for _ in range(2)]
    assert [os.waitpid(process, 0)[1] for process in racers] == [0, 0]
    path = checkpoints.folder("MNIST") / f"{TINY.name}.safetensors"
    before = path.stat().st_mtime_ns
    trained(TINY, progress=False)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mtime_ns == before, "read, not trained again"


def test_ctrl_c_keeps_what_is_finished_and_says_so_in_one_line(small_data, monkeypatch):
    class Impatient:
        def __init__(self, **_):
            pass

        def __call__(self, jobs):
            for _, (job, args, _) in zip(range(3), jobs, strict=False):
                yield job(*args)
            raise KeyboardInterrupt

    monkeypatch.setattr(training.joblib, "Parallel", Impatient)
    with pytest.raises(KeyboardInterrupt, match="3 of 8 networks are finished and kept") as caught:
        trained_all(SWEEP, progress=False)
    assert len(list(checkpoints.folder("MNIST").iterdir())) == 3
    assert caught.value._render_traceback_() == [str(caught.value)], "all that a notebook shows"


def test_a_full_disk_leaves_the_old_file_and_no_litter(small_data):
    trained(TINY, progress=False)

    def nearly_full():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))  # the write fails after a thousand bytes
        with pytest.raises(OSError, match="too large"):
            trained(replace(TINY, seed=1), progress=False)

    assert os.waitpid(child(nearly_full), 0)[1] == 0
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

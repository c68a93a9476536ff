"""What is stored is what was given, whole and its own, whoever else writes at the same time."""

import json
import os
import pickle
import platform
import re
import resource
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from safetensors.torch import safe_open, save
from small import TINY, child, same, small

from mnistae import data
from mnistae.config import Transfer
from mnistae.store import (
    DEFAULTS,
    STUDY,
    Store,
    StoreError,
    _digest,
    _part,
    _reading,
    atomic_write,
    store_for,
)
from mnistae.training import build, train
from mnistae.transfer import Outcome

TRAINED = train(TINY, small())
FROZEN = Transfer("frozen", TINY, labels_per_class=3, draw=0, steps=30)
OUTCOME = Outcome(0.5, 1.0, 0.25, "MNIST")


@pytest.fixture
def path(store):
    store.save(TINY, TRAINED)
    return store.path(TINY)


def refused(store, fault=""):
    """The file is refused in these words, with the way out: restore, then delete."""
    words = rf"^{re.escape(str(store.path(TINY)))} is no checkpoint of this network: {fault}"
    words += r"(?s:.)*git restore .* or delete"
    with pytest.raises(StoreError, match=words):
        store.network(TINY)


def as_nobody(job, path):
    """Whether a process without root's rights can do the job, let into the folders above `path`."""
    for folder in path.parents:
        if folder.owner() == path.owner() and folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o755)  # pytest's, so that the file's own mode decides
    if not (pid := os.fork()):
        with suppress(BaseException):
            if os.geteuid() == 0:
                os.seteuid(65_534)
            job()
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def test_what_is_stored_is_read(store, path):
    run = store.network(TINY)
    assert same(run.network.state_dict(), TRAINED.weights)
    assert (run.config, run.history, run.cpu_seconds) == (TINY, TRAINED.history, TRAINED.cpu_seconds)
    assert run.dataset == "MNIST"
    assert not run.network.training
    assert not any(weight.requires_grad for weight in run.network.parameters())
    assert [file.name for file in path.parent.iterdir()] == [f"{TINY.name}.safetensors"], "litter"
    assert store.network(replace(TINY, seed=1)) is None


def test_same_content_gives_same_bytes_with_how_it_was_made(store, path):
    before = path.read_bytes()
    store.save(TINY, TRAINED._replace(weights=dict(reversed(TRAINED.weights.items()))))
    assert path.read_bytes() == before
    with safe_open(path, framework="pt") as content:
        about = json.loads(content.metadata()["mnistae"])["about"]
    assert about["made_with"]["processor"].endswith(torch.backends.cpu.get_cpu_capability())
    assert about["config"]["dataset"] == "MNIST"
    assert not {"noise", "kl_weight"} & set(about["config"]), "as in files older than these fields"


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_damaged_and_foreign_files_are_refused_and_pickles_never_opened(store, path):
    content = path.read_bytes()
    cut = (content[: int(len(content) * part)] for part in (0, 0.01, 0.5, 0.99))
    heads = (None, {"mnistae": "[]"}, {"mnistae": '{"about": 3}'})
    for other in (*cut, pickle.dumps(Bomb()), *(save({}, head) for head in heads)):
        path.write_bytes(other)
        refused(store)
    assert b'"cpu_seconds\\":' in content
    path.write_bytes(content.replace(b"cpu_seconds", b"cpu_secondz"))
    refused(store, "its checksum does not match")


def test_flipped_bits_are_noticed_or_change_nothing(store, path):
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 300):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            assert same(store.network(TINY).network.state_dict(), TRAINED.weights)
        except StoreError:
            continue


@pytest.mark.parametrize(
    ("changes", "differing"),
    [({"seed": 1}, r"\('seed', 0\), \('seed', 1\)"), ({"noise": 0.5}, r"\('noise', 0\.5\)")],
)
def test_a_network_of_another_config_or_other_data_names_what_differs(store, path, changes, differing):
    refused(
        Store(store.folder, data.SAMPLE), r"it holds another config \(differing: \('dataset', 'MNIST'\), "
    )
    other = replace(TINY, **changes)
    store.save(other, TRAINED)
    os.replace(store.path(other), path)
    refused(store, rf"it holds another config \(differing: {differing}\)")


def test_a_good_file_is_not_blamed_for_a_failure_that_is_not_its_own(store, path):
    with pytest.raises(RuntimeError, match="not enough memory"), _reading(path, "", ""):
        raise RuntimeError("not enough memory")


@pytest.mark.parametrize("change", [lambda n, weight: {f"{n}x": weight}, lambda n, weight: {n: weight[None]}])
def test_weights_of_another_name_or_shape_are_refused(store, change):
    weights = dict(TRAINED.weights)
    weights |= change("encoder.0.weight", weights.pop("encoder.0.weight"))
    store.save(TINY, TRAINED._replace(weights=weights))
    refused(store, "Error.*state_dict")


def test_a_file_that_cannot_be_read_is_not_called_bad(store, path):
    """Nobody is told to delete what may be whole."""

    def read():
        with pytest.raises(
            StoreError, match=r"cannot be read .*Permission denied.*who may read it"
        ) as caught:
            store.network(TINY)
        assert "delete" not in str(caught.value).lower()

    path.chmod(0)
    assert as_nobody(read, path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=r"cannot be read .Is a directory"):
        store.network(TINY)


@pytest.mark.parametrize("config", [TINY, replace(TINY, noise=0.5), replace(TINY, kl_weight=1e-3)])
def test_loading_touches_no_generator_and_depends_on_no_setting(store, config):
    store.save(config, train(config, small()))
    expected, before = store.network(config).network.state_dict(), torch.get_rng_state()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        with torch.inference_mode():
            run = store.network(config)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert same(run.network.state_dict(), expected)
    run.network.requires_grad_(True)(torch.zeros(2, 1, 28, 28)).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    build(config)
    assert torch.equal(torch.get_rng_state(), before), "nor does building one"


def test_the_fallback_answers_and_is_never_written(tmp_path):
    mnist = Store(tmp_path / "mnist", "MNIST")
    sample = Store(tmp_path / "sample", data.SAMPLE, mnist)
    mnist.save(TINY, TRAINED)
    mnist.add({FROZEN: OUTCOME})
    before = sorted((path.name, path.stat().st_mtime_ns) for path in mnist.folder.iterdir())
    assert sample.has(TINY)
    assert sample.network(TINY).dataset == "MNIST"
    assert sample.outcomes([FROZEN]) == {FROZEN: OUTCOME}
    other, again = replace(TINY, seed=1), replace(FROZEN, draw=1)
    assert not sample.has(other)
    sample.save(other, TRAINED)
    sample.add({again: OUTCOME})
    assert sample.network(other).dataset == data.SAMPLE
    assert sample.outcomes([FROZEN, again])[again].dataset == data.SAMPLE
    assert sorted((path.name, path.stat().st_mtime_ns) for path in mnist.folder.iterdir()) == before


def test_the_project_s_stores():
    committed, sample = store_for("MNIST"), store_for(data.SAMPLE)
    assert committed.folder == data.ROOT / "checkpoints"
    assert sample.folder == data.ROOT / "report" / "build" / "sample"
    assert sample.fallback == committed


# The table of outcomes


def outcomes_of(labels, draws):
    return {replace(FROZEN, labels_per_class=labels, draw=draw): OUTCOME for draw in draws}


def add_one_by_one(store, labels):
    for experiment, outcome in outcomes_of(labels, range(30)).items():
        store.add({experiment: outcome})


def test_two_processes_that_store_outcomes_keep_them_all(store):
    writers = [child(add_one_by_one, store, labels) for labels in (1, 2)]
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0, 0]
    expected = outcomes_of(1, range(30)) | outcomes_of(2, range(30))
    assert store.outcomes(expected) == expected


def test_own_outcomes_go_to_a_table_of_their_own(store):
    study = replace(store, prefix=STUDY)
    study.add(outcomes_of(1, [0]))
    before = (store.folder / "transfer.json").read_bytes()
    store.add(outcomes_of(1, [1]))
    assert (store.folder / "transfer.json").read_bytes() == before
    assert (store.folder / "own_transfer.json").exists()
    assert len(store.outcomes(outcomes_of(1, range(3)))) == 2, "both are read"


def test_values_are_rounded_and_rows_sorted(store):
    store.add({replace(FROZEN, draw=2): Outcome(0.123456, 1, 0, "MNIST"), FROZEN: OUTCOME})
    text = (store.folder / "own_transfer.json").read_text()
    assert text.index('"0": [0.5, 1.0, 0.25, 0.0]') < text.index('"2": [0.12346, 1.0, 0.0, 0.0]')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{", "["),
        ('"outcomes"', '"others"'),
        (": [0.", ": [1."),
        ('"0"', '"1"'),
        ("", "[]"),
        ("{", "<<<<<<<\n{"),
    ],
)
def test_a_damaged_table_is_restored_first(store, before, after):
    store.add({FROZEN: OUTCOME})
    path = store.folder / "own_transfer.json"
    path.write_text(path.read_text().replace(before, after, 1) if before else after)
    with pytest.raises(StoreError, match=r"own_transfer\.json is damaged(?s:.)*git restore") as caught:
        store.outcomes([FROZEN])
    assert "delete" not in str(caught.value).lower()


def test_a_table_that_is_a_folder_or_of_other_data_is_refused(store):
    store.add({FROZEN: OUTCOME})
    with pytest.raises(StoreError, match=rf"\.json holds outcomes of MNIST, not of {data.SAMPLE}\. Move it"):
        Store(store.folder, data.SAMPLE).outcomes([FROZEN])
    (store.folder / "transfer.json").mkdir()
    with pytest.raises(StoreError, match=r"transfer\.json cannot be read \(Is a directory\)"):
        store.outcomes([FROZEN])


def write_table(store, defaults):
    """The study's table with one outcome, as it would have been under these defaults of `Transfer`."""
    rows = {f"frozen(labels_per_class=3, steps=30) of {TINY.name}": {"0": [0.5, 1.0, 0.25]}}
    sealed = {"dataset": "MNIST", "defaults": defaults, "outcomes": rows}
    sealed["sha256"] = _digest([*sealed.values()])
    atomic_write(store.folder / "transfer.json", json.dumps(sealed).encode())


def test_a_changed_default_is_an_error_that_names_both_values(store):
    write_table(store, DEFAULTS[Transfer] | {"steps": 150})
    study = replace(store, prefix=STUDY)
    for use in (lambda: store.outcomes([FROZEN]), lambda: study.add({FROZEN: OUTCOME})):
        with pytest.raises(StoreError, match=r"Transfer\.steps is 200, but was 150.*back to 150"):
            use()


def test_a_field_that_is_gone_is_an_error_that_names_it(store):
    write_table(store, DEFAULTS[Transfer] | {"momentum": 0.9})
    with pytest.raises(StoreError, match=r"Transfer\.momentum=0\.9, no longer a field\. Add .*or move"):
        store.outcomes([FROZEN])


def test_a_field_that_is_new_leaves_older_tables_valid(store):
    write_table(store, {name: value for name, value in DEFAULTS[Transfer].items() if name != "penalty"})
    assert store.outcomes([FROZEN]) == {FROZEN: OUTCOME}


# Atomic writes


def test_threads_that_write_the_same_file_leave_one_whole(tmp_path):
    contents = [bytes([n]) * 300_000 for n in range(8)]

    def write(content):
        for _ in range(15):
            atomic_write(tmp_path / "file", content)
            assert (tmp_path / "file").read_bytes() in contents

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, contents))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_parts_of_the_dead_are_swept_up_and_those_of_others_are_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = platform.node()
    kept = [f".x.{host}.{os.getppid()}.a.part", f".x.{host}.12ab.a.part", ".x.elsewhere.1.a.part"]
    for name in (*kept, f".x.{host}.{dead.pid}.a.part"):
        (tmp_path / name).touch()
    atomic_write(tmp_path / "new" / "file", b"content")
    atomic_write(tmp_path / "file", b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "file", "new"])


def test_the_longest_host_leaves_the_name_of_a_part_short_enough(tmp_path):
    assert len(_part(tmp_path, host="h" * 64).name) <= 255  # 64 is the most that Linux allows


def test_a_part_that_may_not_be_removed_does_not_stop_a_write(tmp_path):
    dead = child(os._exit, 0)
    dead.join()
    left = tmp_path / f".x.{platform.node()}.{dead.pid}.a.part"
    left.touch()
    tmp_path.chmod(0o1777)  # where others' files may not be removed
    assert as_nobody(lambda: atomic_write(tmp_path / "file", b"content"), left)
    assert (tmp_path / "file").read_bytes() == b"content"


def write_on_a_full_disk(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))  # a write fails after a thousand bytes
    with pytest.raises(OSError, match="too large"):
        atomic_write(path, bytes(2_000))


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    process = child(write_on_a_full_disk, tmp_path / "file")
    process.join()
    assert process.exitcode == 0
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_reading_needs_no_right_to_write(store, path):
    store.add({FROZEN: OUTCOME})
    (store.folder / "own_transfer.json.lock").chmod(0o444)
    assert as_nobody(lambda: store.outcomes([FROZEN])[FROZEN] and store.network(TINY).network, path)

import json
import os
import pickle
import re
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import safe_open, save

from mnistae import checkpoints, data
from mnistae.checkpoints import CheckpointError, atomic_write, packed, read
from mnistae.config import Config

CONFIG = Config(latent_dim=2, channels=(4, 8))
WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}
ABOUT = {"history": [{"train": 0.5}]}


@pytest.fixture
def path(small_data):
    path = checkpoints.path(CONFIG)
    atomic_write(path, packed(CONFIG, WEIGHTS, ABOUT))
    return path


def refused(path, fault="", like=WEIGHTS):
    """The file is refused, in these words after its name, and with the cure behind."""
    words = rf"^{re.escape(str(path))} is no checkpoint of this network: {fault}"
    with pytest.raises(CheckpointError, match=words) as caught:
        read(CONFIG, like)
    assert "Delete the file and run again: only this network is trained anew." in str(caught.value)


def test_what_is_written_is_read(path):
    weights, about = read(CONFIG, WEIGHTS)
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert about["history"] == ABOUT["history"]
    assert [p.name for p in path.parent.iterdir()] == [f"{CONFIG.name}.safetensors"], "litter"


def test_same_content_gives_same_bytes(path):
    assert packed(CONFIG, dict(reversed(WEIGHTS.items())), ABOUT) == path.read_bytes()


def test_every_truncation_is_refused(path):
    content = path.read_bytes()
    for sixteenth in range(16):
        path.write_bytes(content[: len(content) * sixteenth // 16])
        refused(path)


def test_every_flipped_byte_is_refused_or_harmless(path):
    content, (_, written) = path.read_bytes(), read(CONFIG, WEIGHTS)
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            weights, about = read(CONFIG, WEIGHTS)
        except CheckpointError:
            continue
        assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
        assert about == written


@pytest.mark.parametrize("changed", [WEIGHTS["a"].numpy().tobytes(), rb"0.5", rb"latent_dim"])
def test_a_change_that_can_still_be_read_breaks_the_checksum(path, changed):
    content = path.read_bytes()
    assert changed in content
    path.write_bytes(content.replace(changed, changed[:-1] + bytes([changed[-1] ^ 1])))
    refused(path, "its checksum does not match")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"seed": 1, "epochs": 1}, "epochs, seed"),
        ({"channels": (4, 9)}, "channels"),
        ({"noise": 0.5}, "noise"),
        ({"kl_weight": 0.5}, "kl_weight"),
    ],
)
def test_another_config_names_what_differs(path, changes, named):
    path.write_bytes(packed(replace(CONFIG, **changes), WEIGHTS, ABOUT))
    refused(path, rf"it holds another config \(differing: {named}\)")


def test_other_shapes_dtypes_and_names_are_refused(path):
    refused(path, "its tensors do not fit", like={**WEIGHTS, "a": torch.zeros(3, 2)})
    refused(path, "its tensors do not fit", like={**WEIGHTS, "a": WEIGHTS["a"].double()})
    refused(path, "its tensors do not fit", like={"a": WEIGHTS["a"]})


def test_weights_that_are_not_finite_are_refused(path):
    path.write_bytes(packed(CONFIG, {**WEIGHTS, "a": torch.full((2, 3), float("nan"))}, ABOUT))
    refused(path, "it holds weights that are not finite")


def test_a_pickle_is_never_opened(path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path.write_bytes(pickle.dumps(Bomb()))
    refused(path)


@pytest.mark.parametrize("header", [None, {"mnistae": "[]"}, {"mnistae": "3"}, {"mnistae": '{"about": []}'}])
def test_foreign_safetensors_are_refused(path, header):
    path.write_bytes(save(WEIGHTS, header))
    refused(path)


def header(path):
    with safe_open(path, framework="pt") as content:
        return json.loads(content.metadata()["mnistae"])["about"]["config"]


def test_the_youngest_fields_are_in_the_header_only_where_they_are_not_zero(path):
    assert not {"noise", "kl_weight"} & set(header(path)), "as in files that are older than these fields"
    for field in ("noise", "kl_weight"):
        regularised = replace(CONFIG, **{field: 0.5})
        atomic_write(checkpoints.path(regularised), packed(regularised, WEIGHTS, ABOUT))
        assert header(checkpoints.path(regularised))[field] == 0.5
    assert header(path)["dataset"] == "MNIST"


def test_a_failed_write_leaves_the_old_file_and_no_litter(path, monkeypatch):
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, b"new")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_folders_on_the_way_are_made(tmp_path):
    atomic_write(tmp_path / "new" / "newer" / "file", b"content")
    atomic_write(tmp_path / "new" / "newer" / "file", b"again")
    assert (tmp_path / "new" / "newer" / "file").read_bytes() == b"again"


def test_parts_of_unknown_origin_are_left_alone(tmp_path):
    host = checkpoints.platform.node()
    names = [f".x.{host}.notapid.part", ".x.elsewhere.1.part", f".x.{host}.part"]
    for name in names:
        (tmp_path / name).touch()
    atomic_write(tmp_path / "file", b"content")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, "file"])


def test_the_parts_of_the_dead_are_swept_up_and_those_of_the_living_are_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".x.{checkpoints.platform.node()}.{process}.part").touch()
    atomic_write(tmp_path / "file", b"content")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f".x.{checkpoints.platform.node()}.{os.getppid()}.part", "file"]


def test_the_sample_s_networks_live_apart():
    assert checkpoints.folder("MNIST") == data.ROOT / "checkpoints"
    assert checkpoints.folder(data.SAMPLE) == data.ROOT / "report" / "build" / "sample"


def test_the_error_is_that_of_opening_not_of_tidying_up(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError("not here")

    monkeypatch.setattr(checkpoints.Path, "open", refused)
    with pytest.raises(PermissionError, match="not here"):
        atomic_write(tmp_path / "file", b"content")

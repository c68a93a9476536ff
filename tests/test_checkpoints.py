import os
import pickle
import re
import subprocess

import pytest
import torch

from mnistae import checkpoints
from mnistae.checkpoints import CheckpointError, atomic_write, packed, read
from mnistae.data import ROOT, STAND_IN

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}


def write(path, weights, about):
    atomic_write(path, packed(weights, about))


CONFIG = {"latent_dim": 2, "channels": [4, 8], "seed": 0}
ABOUT = {"config": CONFIG, "history": [{"train": 0.5}]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "network.safetensors"
    write(path, WEIGHTS, ABOUT)
    return path


def refused(path, fault="", config=CONFIG, like=WEIGHTS):
    """The file is refused, in these words after its name, and with the cure behind."""
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: {fault}") as caught:
        read(path, config, like)
    assert "Delete the file and run again: only this network is trained anew." in str(caught.value)


def test_what_is_written_is_read(path):
    weights, about = read(path, CONFIG, WEIGHTS)
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert about == ABOUT
    assert [p.name for p in path.parent.iterdir()] == ["network.safetensors"], "litter"


def test_same_content_gives_same_bytes(path, tmp_path):
    write(
        tmp_path / "other", dict(reversed(WEIGHTS.items())), {"history": [{"train": 0.5}], "config": CONFIG}
    )
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


def test_every_truncation_is_refused(path):
    content = path.read_bytes()
    for sixteenth in range(16):
        path.write_bytes(content[: len(content) * sixteenth // 16])
        refused(path)


def test_every_flipped_byte_is_refused_or_harmless(path):
    content = path.read_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            weights, about = read(path, CONFIG, WEIGHTS)
        except CheckpointError:
            continue
        assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
        assert about == ABOUT


@pytest.mark.parametrize("changed", [WEIGHTS["a"].numpy().tobytes(), rb"0.5", rb"latent_dim"])
def test_a_change_that_can_still_be_read_breaks_the_checksum(path, changed):
    content = path.read_bytes()
    assert changed in content
    path.write_bytes(content.replace(changed, changed[:-1] + bytes([changed[-1] ^ 1])))
    refused(path, "its checksum does not match")


def test_another_config_names_what_differs(path):
    refused(path, r"it holds another config \(differing: seed\)", config={**CONFIG, "seed": 1})
    refused(
        path,
        r"it holds another config \(differing: epochs, seed\)",
        config={**CONFIG, "epochs": 1, "seed": 1},
    )
    refused(
        path, r"it holds another config \(differing: seed\)", config={"latent_dim": 2, "channels": [4, 8]}
    )


def test_other_shapes_dtypes_and_names_are_refused(path):
    refused(path, "its tensors do not fit", like={**WEIGHTS, "a": torch.zeros(3, 2)})
    refused(path, "its tensors do not fit", like={**WEIGHTS, "a": WEIGHTS["a"].double()})
    refused(path, "its tensors do not fit", like={"a": WEIGHTS["a"]})


def test_weights_that_are_not_finite_are_refused(path):
    write(path, {**WEIGHTS, "a": torch.full((2, 3), float("nan"))}, {"config": CONFIG})
    refused(path, "it holds weights that are not finite")


def test_a_pickle_is_never_opened(path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path.write_bytes(pickle.dumps(Bomb()))
    refused(path, "it is no readable checkpoint")


def test_foreign_safetensors_are_refused(path):
    from safetensors.torch import save

    path.write_bytes(save(WEIGHTS))
    refused(path, "it is no readable checkpoint")


def test_a_failed_write_leaves_the_old_file_and_no_litter(path, monkeypatch):
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, WEIGHTS, {"config": {}})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["network.safetensors"]


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


def test_the_stand_in_s_networks_live_apart():
    assert checkpoints.folder("MNIST") == ROOT / "checkpoints"
    assert checkpoints.folder(STAND_IN) == ROOT / "report" / "build" / "stand-in"


def test_the_living_are_asked_and_not_signalled(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(checkpoints.os, "kill", lambda process, signal: sent.append(signal))
    (tmp_path / f".x.{checkpoints.platform.node()}.1.part").touch()
    atomic_write(tmp_path / "file", b"content")
    assert sent == [0]


def test_the_error_is_that_of_opening_not_of_tidying_up(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError("not here")

    monkeypatch.setattr(checkpoints.Path, "open", refused)
    with pytest.raises(PermissionError, match="not here"):
        atomic_write(tmp_path / "file", b"content")

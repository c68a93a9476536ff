import pickle

import pytest
import torch

from mnistae import checkpoints
from mnistae.checkpoints import CheckpointError, atomic_write, packed, read

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}


def write(path, weights, about):
    atomic_write(path, packed(weights, about))


CONFIG = {"latent_dim": 2, "channels": [4, 8], "seed": 0}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "network.safetensors"
    write(path, WEIGHTS, {"config": CONFIG, "history": [{"train": 0.5}]})
    return path


def refused(path, match=None, config=CONFIG, like=WEIGHTS):
    with pytest.raises(CheckpointError, match=match) as caught:
        read(path, config, like)
    assert str(path) in str(caught.value)
    assert "Delete the file and run again" in str(caught.value)


def test_what_is_written_is_read(path):
    weights, about = read(path, CONFIG, WEIGHTS)
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert about["history"] == [{"train": 0.5}]
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
        assert about["config"] == CONFIG


def test_another_config_names_what_differs(path):
    refused(path, r"another config \(differing: seed\)", config={**CONFIG, "seed": 1})
    refused(path, r"differing: epochs", config={**CONFIG, "epochs": 1})


def test_other_shapes_dtypes_and_names_are_refused(path):
    refused(path, "do not fit", like={**WEIGHTS, "a": torch.zeros(3, 2)})
    refused(path, "do not fit", like={**WEIGHTS, "a": WEIGHTS["a"].double()})
    refused(path, "do not fit", like={"a": WEIGHTS["a"]})


def test_weights_that_are_not_finite_are_refused(path):
    write(path, {**WEIGHTS, "a": torch.full((2, 3), float("nan"))}, {"config": CONFIG})
    refused(path, "not finite")


def test_a_pickle_is_never_opened(path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path.write_bytes(pickle.dumps(Bomb()))
    refused(path, "no readable checkpoint")


def test_foreign_safetensors_are_refused(path):
    from safetensors.torch import save

    path.write_bytes(save(WEIGHTS))
    refused(path, "no readable checkpoint")


def test_a_failed_write_leaves_the_old_file_and_no_litter(path, monkeypatch):
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, WEIGHTS, {"config": {}})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["network.safetensors"]

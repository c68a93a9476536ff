"""The embedded sample: committed networks serve, and nothing that is made of it comes near them."""

import shutil
import warnings

import pytest

from mnistae import checkpoints, data, measures, study, training, transfer
from mnistae.checkpoints import CheckpointError
from mnistae.config import Config, Transfer
from mnistae.training import trained, trained_all

TINY = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=2, learning_rate=0.05)
FROZEN = Transfer("frozen", TINY, labels_per_class=3, draw=0, steps=30)


@pytest.fixture
def sample(monkeypatch, tmp_path):
    """The sample as data, and a folder of its own for what is trained on it."""
    monkeypatch.setenv("MNISTAE_DATA", "sample")
    committed = checkpoints.folder("MNIST")
    homes = {"MNIST": committed, data.SAMPLE: tmp_path / "sample"}
    monkeypatch.setattr(checkpoints, "folder", homes.get)
    for engine in (training, transfer):  # other processes would not know of this folder
        monkeypatch.setattr(engine, "in_parallel", one_by_one)
    data.load.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield data.load()
    data.load.cache_clear()
    transfer._codes.cache_clear()


def one_by_one(work, jobs, *rest, **_):
    return ((job, work(job, *rest)) for job in jobs)


def test_committed_networks_are_loaded(sample):
    run = trained_all([study.BASE], progress=False)[study.BASE]
    assert not checkpoints.folder(data.SAMPLE).exists()
    assert checkpoints.path(study.BASE).parent == data.ROOT / "checkpoints"
    assert measures.reconstruction_mse(run.network, sample.test.images) == pytest.approx(0.0089, rel=0.05)


def test_other_networks_are_trained_apart(sample):
    home = checkpoints.folder(data.SAMPLE)
    trained_all([TINY, study.BASE], progress=False)
    assert [path.name for path in home.iterdir()] == [f"{TINY.name}.safetensors"]
    before = checkpoints.path(TINY).stat().st_mtime_ns
    trained(TINY, progress=False)
    assert checkpoints.path(TINY).stat().st_mtime_ns == before, "read, not trained again"
    assert not (data.ROOT / "checkpoints" / f"{TINY.name}.safetensors").exists()


def test_a_network_of_the_sample_is_refused_among_mnist_s(sample, monkeypatch, tmp_path):
    trained(TINY, progress=False)
    shutil.copytree(checkpoints.folder(data.SAMPLE), tmp_path / "committed")
    monkeypatch.setattr(checkpoints, "folder", {"MNIST": tmp_path / "committed"}.get)
    with pytest.raises(CheckpointError, match=r"another config \(differing: dataset\)"):
        trained(TINY, progress=False)


def test_transfers_of_the_sample_are_kept_apart(sample, monkeypatch):
    outcome = transfer.transfer_all([FROZEN], progress=False)[FROZEN]
    kept = checkpoints.folder(data.SAMPLE) / "transfer.json"
    assert kept.read_text().count(" of ") == 1, "nothing of MNIST's is copied"
    monkeypatch.setattr(transfer, "transfer", lambda e: pytest.fail("ran again"))
    assert transfer.transfer_all([FROZEN], progress=False) == {FROZEN: outcome}


def test_mnist_s_transfers_are_shown_on_the_sample(sample, monkeypatch, tmp_path):
    homes = {"MNIST": tmp_path / "committed", data.SAMPLE: tmp_path / "sample"}
    monkeypatch.setattr(checkpoints, "folder", homes.get)
    transfer._keep(homes["MNIST"] / "transfer.json", {transfer._key(FROZEN): [0.5, 1.0, 0.0]})
    assert transfer.transfer_all([FROZEN], progress=False) == {FROZEN: (0.5, 1.0, 0.0)}
    assert not homes[data.SAMPLE].exists()

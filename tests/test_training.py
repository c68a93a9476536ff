import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load

from mnistae import checkpoints, training
from mnistae.config import Config
from mnistae.data import Split
from mnistae.training import (
    TrainingError,
    build,
    fit,
    optimizer_for,
    reconstruct,
    train,
    trained,
    trained_all,
)

TINY = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400)
REGULARISED = [replace(TINY, noise=0.5), replace(TINY, kl_weight=1e-3)]


def weights(network):
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


def freshly(config):
    """The weights of a network that is trained now, whatever is kept."""
    return load(train(config, "MNIST", "cpu"))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_config_is_frozen_hashable_and_named_by_every_field():
    with pytest.raises(FrozenInstanceError):
        TINY.epochs = 3
    assert Config(channels=[16, 32]) == Config(channels=(16, 32))
    assert Config(distortion=0).name == Config(distortion=0.0).name
    changes = {
        "latent_dim": 4, "channels": (4, 9), "kernel_size": 5, "task": "classify", "optimizer": "adamw",
        "learning_rate": 0.0123456789, "weight_decay": 0.0, "batch_size": 32, "epochs": 4, "distortion": 0.5,
        "images": 399, "seed": 1, "noise": 0.5, "kl_weight": 1e-4,
    }  # fmt: skip
    assert set(changes) == {field.name for field in fields(TINY)}
    names = {replace(TINY, **{field: value}).name for field, value in changes.items()} | {TINY.name}
    assert len(names) == len(changes) + 1


def test_the_youngest_fields_are_named_only_where_they_are_not_zero():
    older = "reconstruct_d10_c8-32-64-88_k3_muon0.03_w0.05_b64_e6_x0.0_n55000_s0"
    assert Config().name == Config(noise=0, kl_weight=0.0).name == older, "files are found under their names"
    assert Config(noise=0.5).name == older.replace("_s0", "_z0.5_s0")
    assert Config(kl_weight=1e-4).name == older.replace("_s0", "_kl0.0001_s0")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("epochs", 0, "greater than or equal to 1"), ("epochs", 1.5, "valid integer"),
        ("epochs", True, "valid integer"), ("batch_size", 1, "greater than or equal to 2"),
        ("images", 60_001, "less than or equal to 55000"), ("seed", -1, "greater than or equal to 0"),
        ("learning_rate", 0, "greater than or equal to"), ("learning_rate", float("nan"), "finite number"),
        ("learning_rate", "fast", "valid number"), ("weight_decay", -0.1, "greater than or equal to 0"),
        ("distortion", 99, "less than or equal to 10"), ("noise", -1, "greater than or equal to 0"),
        ("task", "guess", "'reconstruct' or 'classify'"), ("optimizer", "sgd", "'muon' or 'adamw'"),
        ("channels", 16, "valid tuple"), ("channels", (16.0,), "valid integer"),
        ("channels", (16, 0), "greater than or equal to 1"), ("channels", (), "at least 1 item"),
        ("channels", (8,) * 6, "at most 5 items"), ("kernel_size", 4, "3, 5, 7 or 9"),
        ("latent_dim", None, "valid integer"), ("latent_dim", 785, "less than or equal to 784"),
    ],
)  # fmt: skip
def test_bad_configs_name_field_value_and_range(field, value, allowed):
    with pytest.raises(ValidationError, match=rf"{field}(?s:.)*{allowed}.*input_value=") as caught:
        Config(**{field: value})
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "two",
    [
        {"noise": 0.5, "kl_weight": 0.1},
        {"task": "classify", "noise": 0.5},
        {"task": "classify", "kl_weight": 0.1},
    ],
)
def test_two_regularisations_at_once_are_refused(two):
    with pytest.raises(ValidationError, match="noise, kl_weight and task='classify': allowed is one"):
        Config(**two)


def test_a_misspelt_field_is_named():
    with pytest.raises(ValidationError, match="latent_dims"):
        Config(latent_dims=3)


@pytest.mark.parametrize("config", [TINY, *REGULARISED, replace(TINY, task="classify", learning_rate=0.1)])
def test_training_learns_and_is_kept(small_data, config):
    first = trained(config, progress=False)
    again = trained(config, progress=False)
    assert first.config == config
    assert first.history == again.history
    assert first.history[-1]["train"] < first.history[0]["train"]
    assert torch.equal(weights(first.network), weights(again.network))
    assert list(checkpoints.folder("MNIST").iterdir()) == [checkpoints.path(config)]
    assert first.cpu_seconds > 0
    assert not first.network.training
    assert not any(weight.requires_grad for weight in first.network.parameters())


@pytest.mark.parametrize("config", [TINY, *REGULARISED])
def test_one_config_gives_one_network_bit_for_bit(small_data, config):
    networks = []
    for threads in (1, 2):
        torch.rand(threads)  # the state of the global generator must not matter
        before = torch.get_rng_state()
        torch.set_num_threads(threads)
        networks.append(freshly(config))
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.get_rng_state(), before), "nor may it change"
    assert same(*networks)
    assert not same(networks[0], freshly(replace(config, seed=1)))


def test_regularisation_changes_what_is_learnt(small_data):
    plain, *regularised = (trained(config, progress=False) for config in (TINY, *REGULARISED))
    assert len({run.history[-1]["validation"] for run in (plain, *regularised)}) == 3
    variational = regularised[1]
    assert variational.history[-1]["validation"] < variational.history[-1]["train"], "squared error alone"


def test_threads_of_one_process_take_turns(small_data):
    """As a cluster's workers with several threads would: random state and thread count are the process's."""
    configs = [TINY, replace(TINY, seed=1), *REGULARISED]
    alone = [freshly(config) for config in configs]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(freshly, configs))
    assert all(same(*pair) for pair in zip(alone, together, strict=True))


ENGINES = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
import joblib
from mnistae import checkpoints
from mnistae.config import Config
from mnistae.training import trained, trained_all

def digest(runs):
    return [[t.double().sum().item() for t in r.network.state_dict().values()] for r in runs.values()]

def on_dask(configs):
    from distributed import Client
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        victim = min(client.run(os.getpid).values())
        client.loop.call_later(2, os.kill, victim, signal.SIGKILL)
        with joblib.parallel_config(backend="dask"):
            runs = trained_all(configs)
        assert victim not in client.run(os.getpid).values(), "it was not killed in time"
        return runs

if __name__ == "__main__":
    tiny = Config(channels=(4, 8), batch_size=16, epochs=4, images=1_280)
    configs = [replace(tiny, latent_dim=d) for d in (2, 3, 4)]
    engines = {
        "alone": lambda: {config: trained(config) for config in configs},
        "processes": lambda: trained_all(configs),
        "Dask": lambda: on_dask(configs),
    }
    for name, engine in engines.items():
        home = Path(sys.argv[1]) / name
        checkpoints.folder = lambda dataset: home / dataset  # of this process: workers send what they trained
        print(json.dumps(digest(engine())), len(list(home.glob("*/*"))))
"""


def test_every_engine_gives_the_same_networks_bit_for_bit(tmp_path):
    """On the embedded sample: one after the other, joblib's processes, a Dask cluster that loses a worker."""
    script = tmp_path / "engines.py"
    script.write_text(ENGINES)
    environment = {**os.environ, "MNISTAE_DATA": "sample"}
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, check=True
    )
    alone, *others = done.stdout.splitlines()
    assert alone.endswith(" 3")
    assert others == [alone] * 2


def test_missing_ones_alone_are_trained(small_data):
    configs = [replace(TINY, seed=seed) for seed in (0, 1)]
    trained(configs[0], progress=False)
    before = {path: path.stat().st_mtime_ns for path in checkpoints.folder("MNIST").iterdir()}
    runs = {}
    for config in configs:
        runs[config] = trained(config, progress=False)
    assert list(runs) == configs
    after = {path: path.stat().st_mtime_ns for path in checkpoints.folder("MNIST").iterdir()}
    assert len(after) == 2
    assert before.items() <= after.items()


def test_divergence_raises_and_is_not_saved(small_data):
    small_data.train.images[7] = float("nan")
    with pytest.raises(TrainingError, match="diverged: the loss of epoch 1 is"):
        trained(TINY, progress=False)
    assert not checkpoints.folder("MNIST").exists()


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [("reconstruct", 0.3, "a constant answer has 0"), ("classify", 2.31, "a constant answer has 2.3026")],
)
def test_collapse_raises_and_is_not_saved(small_data, monkeypatch, task, error, words):
    monkeypatch.setattr(training, "fit", lambda *a, **k: ([{"train": error, "validation": error}], 1.0))
    with pytest.raises(TrainingError, match=f"collapsed: validation error {error:.4f}; {words}"):
        trained(replace(TINY, task=task), progress=False)
    assert not checkpoints.folder("MNIST").exists()


def test_validation_images_are_never_trained_on(small_data):
    seen = []

    def spy(network, images, labels):
        seen.append(len(images))
        return reconstruct(network, images, labels)

    network = build(TINY)
    fit(network, small_data.train, spy, optimizer_for(network, TINY), epochs=1, batch_size=64, seed=0)
    assert sum(seen) == len(small_data.train.labels), "each image once an epoch"


def test_history_is_the_exact_mean_over_images(small_data):
    """With a learning rate of zero the epoch's loss is the plain mean, whatever the last batch's size."""
    network = build(TINY).eval()
    network.train = lambda mode=True: network  # batch norm stays fixed
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-30)
    [row], _ = fit(network, small_data.train, reconstruct, optimizer, epochs=1, batch_size=37, seed=0)
    expected = reconstruct(network, small_data.train.images, None).item()
    assert row["train"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("steps", range(1, 9))
def test_few_steps_are_enough_to_train(small_data, steps):
    few = Split(*(part[: 10 * steps] for part in small_data.train))
    network = build(TINY)
    optimizer = optimizer_for(network, TINY)
    history, _ = fit(network, few, reconstruct, optimizer, epochs=1, batch_size=10, seed=0)
    assert len(history) == 1


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_weight_is_trained(small_data, optimizer):
    config = replace(TINY, optimizer=optimizer, learning_rate=0.01)
    network = build(config)
    before = {name: p.clone() for name, p in network.named_parameters()}
    trainer = optimizer_for(network, config)
    fit(network, small_data.train, reconstruct, trainer, epochs=1, batch_size=64, seed=0)
    assert all(not torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_distortion_leaves_half_of_each_batch_alone(small_data):
    images, seen = small_data.train.images, []

    def spy(network, batch, labels):
        seen.append(sum(any(torch.equal(image, own) for own in images) for image in batch))
        return reconstruct(network, batch, labels)

    network = build(TINY)
    optimizer = optimizer_for(network, TINY)
    few = Split(images[:40], small_data.train.labels[:40])
    fit(network, few, spy, optimizer, epochs=1, batch_size=20, seed=0, distortion=1.0)
    assert seen == [10, 10]


def test_trained_all_returns_runs_in_the_order_asked(small_data):
    configs = [replace(TINY, seed=seed) for seed in (1, 0)]
    for config in configs:
        trained(config, progress=False)
    assert list(trained_all(configs, progress=False)) == configs


def test_a_worker_with_other_data_is_named(small_data):
    with pytest.raises(TrainingError, match="has MNIST, not embedded sample: see MNISTAE_DATA"):
        train(TINY, "embedded sample", "cpu")


def test_what_is_about_to_be_trained_is_said(small_data, monkeypatch, capsys):
    monkeypatch.setattr(
        training, "in_parallel", lambda work, jobs, *rest, **_: ((j, work(j, *rest)) for j in jobs)
    )
    trained_all([TINY])
    assert f"Training 1 network(s) that {checkpoints.folder('MNIST')} lacks: about" in capsys.readouterr().err
    trained_all([TINY])
    assert capsys.readouterr().err == ""

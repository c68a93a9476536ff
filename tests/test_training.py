import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from mnistae import checkpoints, training
from mnistae.training import (
    Config,
    TrainingError,
    build,
    fit,
    optimizer_for,
    reconstruct,
    trained,
    trained_all,
)

TINY = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400)


def weights(network):
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


def test_config_is_frozen_hashable_and_named_by_every_field():
    with pytest.raises(FrozenInstanceError):
        TINY.epochs = 3
    assert Config(channels=[16, 32]) == Config(channels=(16, 32))
    assert Config(distortion=0).name == Config(distortion=0.0).name
    changes = {
        "latent_dim": 4, "channels": (4, 9), "kernel_size": 5, "task": "classify", "optimizer": "adamw",
        "learning_rate": 0.0123456789, "weight_decay": 0.0, "batch_size": 32, "epochs": 4, "distortion": 0.5,
        "images": 399, "seed": 1,
    }  # fmt: skip
    assert set(changes) == set(TINY.__dataclass_fields__)
    names = {replace(TINY, **{field: value}).name for field, value in changes.items()} | {TINY.name}
    assert len(names) == len(changes) + 1


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("epochs", 0, ValueError), ("epochs", 1.5, TypeError), ("epochs", True, TypeError),
        ("batch_size", 1, ValueError), ("images", 60_001, ValueError), ("seed", -1, ValueError),
        ("learning_rate", 0, ValueError), ("learning_rate", float("nan"), ValueError),
        ("learning_rate", "fast", TypeError), ("weight_decay", -0.1, ValueError),
        ("distortion", 99, ValueError),
        ("task", "guess", ValueError), ("optimizer", "sgd", ValueError), ("channels", 16, TypeError),
        ("channels", (16.0,), TypeError), ("latent_dim", None, TypeError),
    ],
)  # fmt: skip
def test_bad_configs_name_field_and_range(field, value, error):
    with pytest.raises(error, match=rf"{field}=.*allowed"):
        Config(**{field: value})


def test_training_learns_and_is_kept(small_data):
    first = trained(TINY, progress=False)
    again = trained(TINY, progress=False)
    assert first.history == again.history
    assert first.history[-1]["train"] < first.history[0]["train"]
    assert torch.equal(weights(first.network), weights(again.network))
    assert len(list(checkpoints.folder("MNIST").iterdir())) == 1
    assert first.cpu_seconds > 0


def test_one_config_gives_one_network_bit_for_bit(small_data):
    networks = []
    for threads in (1, 2):
        torch.rand(threads)  # the state of the global generator must not matter
        torch.set_num_threads(threads)
        networks.append(training._train(TINY, "cpu", False)[0])
        assert torch.get_num_threads() == threads
    assert torch.equal(weights(networks[0]), weights(networks[1]))
    other, _ = training._train(replace(TINY, seed=1), "cpu", False)
    assert not torch.equal(weights(networks[0]), weights(other))


def test_threads_of_one_process_take_turns(small_data):
    """As a cluster's workers with several threads would: random state and thread count are the process's."""
    configs = [replace(TINY, seed=seed) for seed in range(6)]
    alone = [training._train(config, "cpu", False)[0] for config in configs]
    with ThreadPoolExecutor(3) as pool:
        together = [run[0] for run in pool.map(lambda config: training._train(config, "cpu", False), configs)]
    assert all(torch.equal(weights(a), weights(b)) for a, b in zip(alone, together, strict=True))


ENGINES = """
import json, os, signal, sys
from pathlib import Path
import joblib
from mnistae import checkpoints
from mnistae.training import Config, trained, trained_all

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
    configs = [Config(channels=(4, 8), latent_dim=d, batch_size=16, epochs=12) for d in (2, 3, 4)]
    engines = {
        "alone": lambda: {config: trained(config) for config in configs},
        "processes": lambda: trained_all(configs),
        "Dask": lambda: on_dask(configs),
    }
    for name, engine in engines.items():
        home = Path(sys.argv[1]) / name
        checkpoints.folder = lambda dataset: home  # of this process: workers send what they trained
        print(json.dumps(digest(engine())), len(list(home.iterdir())))
"""


def test_every_engine_gives_the_same_networks_bit_for_bit(tmp_path):
    """On the stand-in: one after the other, joblib's processes, a Dask cluster that loses a worker."""
    script = tmp_path / "engines.py"
    script.write_text(ENGINES)
    environment = {**os.environ, "MNISTAE_DATA": "stand-in"}
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
    [("reconstruct", 0.3, "the mean image has 0"), ("classify", 2.31, "a guess among ten has 2.3026")],
)
def test_collapse_raises_and_is_not_saved(small_data, monkeypatch, task, error, words):
    monkeypatch.setattr(training, "fit", lambda *a, **k: [{"train": error, "validation": error}])
    with pytest.raises(TrainingError, match=f"collapsed: validation error {error:.4f}, while {words}"):
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
    row = fit(network, small_data.train, reconstruct, optimizer, epochs=1, batch_size=37, seed=0)[0]
    expected = reconstruct(network, small_data.train.images, None).item()
    assert row["train"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("steps", range(1, 9))
def test_few_steps_are_enough_to_train(small_data, steps):
    few = training.data.Split(*(part[: 10 * steps] for part in small_data.train))
    network = build(TINY)
    history = fit(network, few, reconstruct, optimizer_for(network, TINY), epochs=1, batch_size=10, seed=0)
    assert len(history) == 1


def test_muon_orthogonalises_in_float32():
    network = build(TINY)
    optimizer = optimizer_for(network, TINY)
    update = optimizer._orthogonalize(optimizer.param_groups[0], [torch.randn(8, 4, 3, 3)])[0]
    assert update.dtype == torch.float32
    singular = torch.linalg.svdvals(update)
    assert singular.min() > 0.3
    assert singular.max() < 1.6


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_weight_is_trained(small_data, optimizer):
    config = replace(TINY, optimizer=optimizer, learning_rate=0.01)
    network = build(config)
    before = {name: p.clone() for name, p in network.named_parameters()}
    fit(
        network,
        small_data.train,
        reconstruct,
        optimizer_for(network, config),
        epochs=1,
        batch_size=64,
        seed=0,
    )
    assert all(not torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_distortion_leaves_half_of_each_batch_alone(small_data):
    images, seen = small_data.train.images, []

    def spy(network, batch, labels):
        seen.append(sum(any(torch.equal(image, own) for own in images) for image in batch))
        return reconstruct(network, batch, labels)

    network = build(TINY)
    optimizer = optimizer_for(network, TINY)
    few = training.data.Split(images[:40], small_data.train.labels[:40])
    fit(network, few, spy, optimizer, epochs=1, batch_size=20, seed=0, distortion=1.0)
    assert seen == [10, 10]


def test_trained_all_returns_runs_in_the_order_asked(small_data):
    configs = [replace(TINY, seed=seed) for seed in (1, 0)]
    for config in configs:
        trained(config, progress=False)
    assert list(trained_all(configs, progress=False)) == configs

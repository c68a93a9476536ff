"""Training is a function of its config and data alone."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from small import TINY, same

from mnistae.config import Config, Transfer
from mnistae.data import Split
from mnistae.training import TrainingError, build, fit, optimizer_for, reconstruct, restored, train
from mnistae.transfer import evaluate

REGULARISED = [replace(TINY, noise=0.5), replace(TINY, kl_weight=1e-3)]


CLASSIFIER = replace(TINY, task="classify", learning_rate=0.1)
LEARNING = [
    *(TINY, *REGULARISED, replace(TINY, loss="l1"), replace(TINY, optimizer="adamw", learning_rate=0.01)),
    *(CLASSIFIER, replace(CLASSIFIER, downsampling="max_pool")),
]


@pytest.mark.parametrize("config", LEARNING)
def test_training_learns(mnist, config):
    trained = train(config, mnist)
    assert len(trained.history) == config.epochs
    assert trained.history[-1]["train"] < trained.history[0]["train"]
    assert trained.cpu_seconds > 0
    assert trained.made_with["torch"] == torch.__version__
    initial = build(config).state_dict()
    assert restored(config, trained.weights).state_dict().keys() == initial.keys()
    changed = {name for name, weight in trained.weights.items() if not torch.equal(weight, initial[name])}
    assert changed == set(initial), "every weight and every statistic of batch norm"


def test_validation_and_test_images_change_no_weight(mnist):
    expected = train(TINY, mnist)
    zeros = Split(torch.zeros(100, 1, 28, 28), mnist.validation.labels)
    nothing = Split(torch.full((100, 1, 28, 28), float("nan")), mnist.test.labels)
    harmless = mnist._replace(validation=Split(mnist.validation.images.flip(0), zeros.labels), test=nothing)
    assert same(train(TINY, harmless).weights, expected.weights)
    with pytest.raises(TrainingError, match="collapsed"):
        train(TINY, mnist._replace(validation=nothing))
    few = train(replace(TINY, images=320), mnist).weights
    poisoned = Split(mnist.train.images.clone(), mnist.train.labels)
    poisoned.images[320:] = float("nan")
    assert same(train(replace(TINY, images=320), mnist._replace(train=poisoned)).weights, few)


SETTINGS = {
    "threads": (torch.set_num_threads, torch.get_num_threads, 2, 1),
    "dtype": (torch.set_default_dtype, torch.get_default_dtype, torch.float64, torch.float32),
    "device": (torch.set_default_device, torch.get_default_device, torch.device("meta"), None),
    "gradients": (torch.set_grad_enabled, torch.is_grad_enabled, False, True),
}


FROZEN = Transfer("frozen", TINY, labels_per_class=3, draw=0, steps=30, nodes=400, neighbours=5)
EXPERIMENTS = [
    replace(FROZEN, scheme=scheme) for scheme in ("frozen", "fine_tuned", "logistic_code", "spreading_code")
]
EXPERIMENTS += [replace(FROZEN, teacher="spread"), replace(FROZEN, distortion=1.0)]
ENCODER = restored(TINY, build(TINY).state_dict()).encoder


def result(of, mnist):
    """Of a config its weights, of an experiment its outcome, with an untrained encoder."""
    return train(of, mnist).weights if isinstance(of, Config) else evaluate(of, ENCODER, mnist)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("of", [TINY, *REGULARISED, *EXPERIMENTS])
def test_one_config_gives_one_result_bit_for_bit_under_any_setting(mnist, of, setting):
    """Of the caller's cell, which stays as it is; nor does the state of the global generator matter."""
    (change, current, value, usual), expected = SETTINGS[setting], result(of, mnist)
    torch.rand(1)
    before = torch.get_rng_state()
    change(value)
    try:
        again = result(of, mnist)
        assert current() == value
    finally:
        change(usual)
    assert same(again, expected) if isinstance(of, Config) else again == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_decides_and_inference_mode_does_no_harm(mnist):
    with torch.inference_mode():
        trained = train(TINY, mnist)
    assert same(trained.weights, train(TINY, mnist).weights)
    assert not same(trained.weights, train(replace(TINY, seed=1), mnist).weights)


def test_threads_of_one_process_train_what_one_would(mnist):
    """They take turns, and one that loads networks meanwhile changes nothing."""
    configs = [TINY, replace(TINY, seed=1), *REGULARISED]
    alone = [train(config, mnist).weights for config in configs]
    with ThreadPoolExecutor(4) as pool:
        together = [pool.submit(train, config, mnist) for config in configs]
        while not all(result.done() for result in together):
            restored(TINY, alone[0])
    assert all(same(one, other.result().weights) for one, other in zip(alone, together, strict=True))


def test_regularisation_changes_what_is_learned_and_validation_stays_squared_error(mnist):
    plain, noisy, variational = (train(config, mnist).history[-1] for config in (TINY, *REGULARISED))
    assert len({row["validation"] for row in (plain, noisy, variational)}) == 3
    assert variational["validation"] < variational["train"], "without the divergence"


def test_diverged_and_collapsed_networks_are_named(mnist):
    poisoned = mnist._replace(train=Split(mnist.train.images.clone(), mnist.train.labels))
    poisoned.train.images[7] = float("nan")
    with pytest.raises(TrainingError, match=r"^Config\(latent_dim=3.* diverged: the loss of epoch 1 is nan"):
        train(TINY, poisoned)
    with pytest.raises(TrainingError, match=r"collapsed: validation error 0\.\d+; a constant answer has 0"):
        train(replace(TINY, learning_rate=10, optimizer="adamw"), mnist)
    with pytest.raises(TrainingError, match=r"collapsed.*a constant answer has 2\.3026\."):
        train(replace(CLASSIFIER, learning_rate=10, optimizer="adamw"), mnist)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_nearly_the_same_network(mnist):
    for config in (TINY, *REGULARISED):
        here, there = train(config, mnist), train(config, mnist, "cuda")
        assert there.history[-1]["validation"] == pytest.approx(here.history[-1]["validation"], rel=0.05)
        assert all(tensor.device.type == "cpu" for tensor in there.weights.values())


GPUS = """
import torch
def fail(): raise AssertionError("a CUDA context in a CPU run")
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 2
torch.cuda._lazy_init = fail  # what would open a context
from small import TINY, small
from mnistae.training import train
train(TINY, small())
"""


def test_training_on_a_cpu_opens_no_cuda_context():
    """As on a machine with two GPUs: opening one fails here."""
    subprocess.run([sys.executable, "-c", GPUS], cwd=Path(__file__).parent, check=True)


def fitted(mnist, objective, split=None, optimizer=None, **options):
    network = build(TINY)
    options = {"epochs": 1, "batch_size": 64, "seed": 0} | options
    trainer = optimizer(network.parameters()) if optimizer else optimizer_for(network, TINY)
    return network, fit(network, split or mnist.train, objective, trainer, **options)


def test_an_epoch_shows_each_image_once(mnist):
    seen = []

    def spy(network, images, labels):
        seen.append(images)
        return reconstruct(network, images, labels)

    fitted(mnist, spy)
    order = torch.cat(seen).flatten(1).sum(1).sort().values
    assert torch.equal(order, mnist.train.images.flatten(1).sum(1).sort().values)


def test_history_is_the_exact_mean_over_images(mnist):
    """With a learning rate of zero the epoch's loss is the plain mean, whatever the last batch's size."""
    images = mnist.train.images

    def loss_of_fixed_network(network, x, labels):
        return reconstruct(network.eval(), x, labels)

    still = partial(torch.optim.SGD, lr=1e-30)
    network, ([row], _) = fitted(mnist, loss_of_fixed_network, optimizer=still, batch_size=37)
    assert row["train"] == pytest.approx(reconstruct(network.eval(), images, None).item(), rel=1e-5)


@pytest.mark.parametrize("steps", range(1, 9))
def test_few_steps_are_enough_to_train(mnist, steps):
    few = Split(*(part[: 10 * steps] for part in mnist.train))
    _, (history, _) = fitted(mnist, reconstruct, split=few, batch_size=10)
    assert len(history) == 1


def test_distortion_leaves_half_of_each_batch_alone(mnist):
    images, seen = mnist.train.images, []

    def spy(network, batch, labels):
        seen.append(sum(any(torch.equal(image, own) for own in images) for image in batch))
        return reconstruct(network, batch, labels)

    few = Split(images[:40], mnist.train.labels[:40])
    fitted(mnist, spy, split=few, batch_size=20, distortion=1.0)
    assert seen == [10, 10]

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from mnistae import checkpoints, transfer
from mnistae.config import Config, Transfer
from mnistae.training import trained
from mnistae.transfer import transfer_all

ENCODER = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400)
FROZEN = Transfer("frozen", ENCODER, labels_per_class=3, draw=0, steps=30)


@pytest.fixture
def encoder(small_data, monkeypatch):
    # In this process: others would neither know of the small data nor of where its networks go.
    monkeypatch.setattr(
        transfer, "in_parallel", lambda job, items, **_: ((item, job(item)) for item in items)
    )
    transfer._codes.cache_clear()
    transfer._pca.cache_clear()
    return trained(ENCODER, progress=False).network.encoder


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_frozen_leaves_the_encoder_bit_equal_statistics_included(encoder):
    network = transfer.learnt(FROZEN)
    assert same(state(encoder), state(network.encoder))
    outcome = transfer.transfer(FROZEN)
    assert outcome.moved == 0
    assert outcome.train_accuracy > 0.5


@pytest.mark.parametrize("fixed_norm", [True, False])
def test_fine_tuning_moves_its_own_copy_only(encoder, fixed_norm):
    before, experiment = state(encoder), replace(FROZEN, scheme="fine_tuned", fixed_norm=fixed_norm)
    after = state(transfer.learnt(experiment).encoder)
    assert all(not torch.equal(after[n], before[n]) for n in before if n.endswith("weight"))
    statistics = [n for n in before if "running" in n]
    assert statistics
    assert all(torch.equal(after[n], before[n]) == fixed_norm for n in statistics)
    assert transfer.transfer(experiment).moved > 0
    assert same(before, state(trained(ENCODER, progress=False).network.encoder)), (
        "the checkpoint is as it was"
    )


def test_every_scheme_starts_from_the_same_head(encoder, monkeypatch):
    heads = []
    monkeypatch.setattr(transfer, "fit", lambda network, *a, **k: heads.append(state(network.head)))
    for scheme in ("frozen", "fine_tuned", "from_scratch"):
        transfer.transfer(replace(FROZEN, scheme=scheme))
    assert same(heads[0], heads[1])
    assert same(heads[0], heads[2])


@pytest.mark.parametrize("scheme", [*transfer.SCHEMES, *transfer.YARDSTICKS])
def test_every_scheme_runs_and_repeats(encoder, scheme):
    experiment = replace(FROZEN, scheme=scheme, fixed_norm=scheme != "from_scratch")
    first, again = transfer.transfer(experiment), transfer.transfer(experiment)
    assert first == again
    assert 0 <= first.accuracy <= 1
    assert first.train_accuracy > 0.3


def test_tuning_never_sees_test_images(encoder, small_data, monkeypatch):
    small_data.test.images[:] = float("nan")
    outcome = transfer.transfer(replace(FROZEN, split="validation"))
    assert 0 <= outcome.accuracy <= 1


def test_impossible_experiments_say_what_is_allowed(encoder):
    with pytest.raises(ValidationError, match=r"scheme(?s:.)*'frozen', 'fine_tuned'.*input_value='sideways'"):
        replace(FROZEN, scheme="sideways")
    with pytest.raises(
        ValueError, match=r"scheme='logistic_pca' has no network: allowed is one of \('frozen'"
    ):
        transfer.learnt(replace(FROZEN, scheme="logistic_pca"))
    with pytest.raises(ValueError, match="per_class = 41: allowed is 1 to 40"):
        transfer.transfer(replace(FROZEN, labels_per_class=41))
    with pytest.raises(ValidationError, match=r"encoder\.task='classify': allowed is 'reconstruct'"):
        replace(FROZEN, encoder=replace(ENCODER, task="classify"))


def test_outcomes_are_kept_and_only_missing_ones_run(encoder, monkeypatch):
    experiments = [replace(FROZEN, draw=draw) for draw in (0, 1)]
    first = transfer_all(experiments[:1], progress=False)
    monkeypatch.setattr(
        transfer, "transfer", lambda e: pytest.fail("ran again") if e.draw == 0 else transfer.Outcome(1, 1, 0)
    )
    both = transfer_all(experiments, progress=False)
    assert both[experiments[0]] == first[experiments[0]]
    assert both[experiments[1]] == (1, 1, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [("{", "["), ('"outcomes"', '"others"'), (": [0.", ": [1."), ('"0"', '"1"'), ("", "[]")],
)
def test_a_damaged_table_is_named_with_its_cure(encoder, before, after):
    path = checkpoints.folder("MNIST") / "transfer.json"
    transfer_all([FROZEN], progress=False)
    assert list(transfer_all([FROZEN], progress=False)) == [FROZEN], "read"
    path.write_text(path.read_text().replace(before, after, 1) if before else after)
    with pytest.raises(checkpoints.CheckpointError, match=r"transfer\.json is damaged.*Delete it"):
        transfer_all([FROZEN], progress=False)


def test_distorted_copies_are_learnt_with_the_labels_of_their_images(encoder, monkeypatch):
    seen = []
    monkeypatch.setattr(transfer, "fit", lambda network, split, *a, **k: seen.append((split, k)))
    transfer.learnt(replace(FROZEN, scheme="fine_tuned", distortion=1.0, steps=60))
    (split, asked), images = seen[0], 30
    assert len(split.images) == len(split.labels) == images * (1 + transfer.COPIES)
    assert torch.equal(split.labels[:images], split.labels[images : 2 * images])
    assert not torch.equal(split.images[:images], split.images[images : 2 * images])
    assert asked["epochs"] == 60 // (1 + transfer.COPIES), "as many steps, in whole passes"


def test_what_two_processes_find_is_all_kept(encoder):
    path = checkpoints.folder("MNIST") / "transfer.json"
    transfer._keep(path, {("mine", "0"): [1.0, 1.0, 0.0]})
    transfer._keep(path, {("yours", "0"): [0.5, 1.0, 0.0]})  # who began before mine was written
    assert set(transfer._kept(path)) == {("mine", "0"), ("yours", "0")}


def test_encoders_are_asked_for_before_many_processes_would_each_train_them(encoder, monkeypatch):
    asked = []
    monkeypatch.setattr(transfer, "trained_all", lambda configs, progress: asked.extend(configs))
    monkeypatch.setattr(transfer, "transfer", lambda e: transfer.Outcome(1, 1, 0))
    transfer_all(
        [replace(FROZEN, scheme=scheme) for scheme in ("from_scratch", *transfer.YARDSTICKS)], progress=False
    )
    assert asked == [ENCODER], "for the logistic regression on its codes"

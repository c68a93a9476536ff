"""A transfer experiment is a function of the experiment, an encoder and data."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from small import TINY, same, small

from mnistae.config import Transfer
from mnistae.data import Split
from mnistae.training import restored, train
from mnistae.transfer import (
    BASELINES,
    COPIES,
    SCHEMES,
    SPREADING,
    evaluate,
    fit_classifier,
    labelled_images,
    view,
    view_options,
)

FROZEN = Transfer("frozen", TINY, labels_per_class=3, draw=0, steps=30)
SPREADING_ON = replace(FROZEN, scheme="spreading_code", nodes=400, neighbours=5)
ENCODER = restored(TINY, train(TINY, small()).weights).encoder


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_frozen_leaves_the_encoder_bit_equal_statistics_included(mnist):
    before = state(ENCODER)
    network = fit_classifier(FROZEN, ENCODER, mnist)
    assert same(before, state(network.encoder))
    outcome = evaluate(FROZEN, ENCODER, mnist)
    assert outcome.code_shift == 0
    assert outcome.train_accuracy > 0.5
    assert outcome.dataset == mnist.name


@pytest.mark.parametrize("fixed_norm", [True, False])
def test_fine_tuning_changes_every_weight_and_statistics_only_if_asked(mnist, fixed_norm):
    experiment, before = replace(FROZEN, scheme="fine_tuned", fixed_norm=fixed_norm), state(ENCODER)
    after = state(fit_classifier(experiment, deepcopy(ENCODER), mnist).encoder)
    assert all(not torch.equal(after[n], before[n]) for n in before if n.endswith("weight"))
    statistics = [n for n in before if "running" in n]
    assert statistics
    assert all(torch.equal(after[n], before[n]) == fixed_norm for n in statistics)
    assert evaluate(experiment, deepcopy(ENCODER), mnist).code_shift > 0


def test_every_scheme_starts_from_the_same_head(mnist):
    barely = (replace(FROZEN, scheme=scheme, head_rate=1e-6, steps=1) for scheme in SCHEMES)
    first, *others = [state(fit_classifier(e, deepcopy(ENCODER), mnist).head) for e in barely]
    for other in others:
        assert all(torch.allclose(first[name], other[name], atol=1e-5) for name in first)


@pytest.mark.parametrize("scheme", [*SCHEMES, *BASELINES, *SPREADING])
def test_every_scheme_learns_and_repeats_in_any_random_state(mnist, scheme):
    experiment = replace(SPREADING_ON, scheme=scheme, fixed_norm=scheme != "from_scratch")
    before = torch.get_rng_state()
    first = evaluate(experiment, deepcopy(ENCODER), mnist)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    known = view(ENCODER, mnist, *view_options(experiment))
    assert evaluate(experiment, ENCODER, mnist, known) == first, "with a view that is known, too"
    assert 0 <= first.accuracy <= 1
    assert first.train_accuracy > 0.3


def test_tuning_never_sees_test_images(mnist):
    blind = mnist._replace(test=Split(mnist.test.images * float("nan"), mnist.test.labels))
    tuning = replace(FROZEN, split="validation")
    assert evaluate(tuning, ENCODER, blind) == evaluate(tuning, ENCODER, mnist)


def test_only_the_labelled_images_are_learned_from(mnist):
    labelled = labelled_images(FROZEN, mnist)
    assert labelled.labels.bincount().tolist() == [3] * 10
    known = {image.numpy().tobytes() for image in labelled.images}
    images = mnist.train.images.clone()
    for n, image in enumerate(mnist.train.images):
        if image.numpy().tobytes() not in known:
            images[n] = float("nan")
    poisoned = mnist._replace(train=Split(images, mnist.train.labels))
    assert evaluate(FROZEN, ENCODER, poisoned) == evaluate(FROZEN, ENCODER, mnist)


def test_distorted_copies_change_the_classifier_in_as_many_steps(mnist):
    experiment = replace(FROZEN, distortion=1.0, steps=2 * (1 + COPIES))
    plain = state(fit_classifier(replace(experiment, distortion=0.0), ENCODER, mnist).head)
    copies = state(fit_classifier(experiment, ENCODER, mnist).head)
    assert not same(plain, copies)
    one_pass = state(fit_classifier(replace(experiment, steps=1), ENCODER, mnist).head)
    assert same(one_pass, state(fit_classifier(replace(experiment, steps=1 + COPIES), ENCODER, mnist).head))


def test_impossible_experiments_say_what_is_allowed(mnist):
    with pytest.raises(ValueError, match=r"scheme='logistic_pca' has no network: allowed is one of \('fr"):
        fit_classifier(replace(FROZEN, scheme="logistic_pca"), ENCODER, mnist)
    with pytest.raises(ValueError, match="per_class=41: allowed is 1 to 40"):
        evaluate(replace(FROZEN, labels_per_class=41), ENCODER, mnist)


def test_spread_labels_teach_any_classifier(mnist):
    """The blobs of neighbouring digits overlap, so no scheme gets all of them right."""
    assert evaluate(SPREADING_ON, ENCODER, mnist).accuracy > 0.6
    for scheme in ("frozen", "fine_tuned"):
        for teacher in ("spread", "spread_soft"):
            taught = replace(SPREADING_ON, scheme=scheme, teacher=teacher, batch_size=40, steps=60)
            outcome = evaluate(taught, deepcopy(ENCODER), mnist)
            assert outcome.accuracy > 0.6
            assert (outcome.code_shift > 0) == (scheme == "fine_tuned")


def test_fine_tuning_begins_at_a_head_that_was_trained_first(mnist):
    start = replace(FROZEN, scheme="probe_then_fine_tuned", head_rate=1e-6, encoder_rate=1e-6)
    head = fit_classifier(replace(start, scheme="frozen"), ENCODER, mnist).head.state_dict()
    after = fit_classifier(start, deepcopy(ENCODER), mnist).head.state_dict()
    assert all(torch.allclose(head[name], after[name], atol=1e-3) for name in head)

"""Linear maps of a code change no image and no invariant; probes are functions of the experiment and data."""

import numpy as np
import pytest
import torch
from small import TINY, small
from torch import nn

from mnistae import measures
from mnistae.config import Probe
from mnistae.probes import ill_conditioned, probe, recoded
from mnistae.runs import evaluate_all, trained
from mnistae.training import restored, train

NETWORK = restored(TINY, train(TINY, small()).weights)
IMAGES = small().train.images
Z = measures.infer(NETWORK.encoder, IMAGES)


def variances(network):
    z = measures.infer(network.encoder, IMAGES)
    return measures.image_variances(z, measures.mean_metric(network.decoder, z[:100]))


@pytest.mark.parametrize("condition", [1, 30, 1_000])
def test_a_recoded_network_makes_the_same_images_with_another_code(condition):
    matrix = ill_conditioned(3, condition, seed=1)
    assert torch.linalg.cond(matrix) == pytest.approx(condition)
    other = recoded(NETWORK, matrix, Z.mean(0))
    code = measures.infer(other.encoder, IMAGES)
    assert torch.allclose(measures.infer(other, IMAGES), measures.infer(NETWORK, IMAGES), atol=1e-4)
    assert torch.allclose(code.double(), (Z - Z.mean(0)).double() @ matrix.T, atol=1e-3)
    assert torch.allclose(variances(other), variances(NETWORK), rtol=1e-2), "invariant"
    assert torch.equal(measures.infer(NETWORK.encoder, IMAGES), Z), "the network itself stays"


def test_whitening_makes_the_pearson_number_one():
    values, directions = torch.linalg.eigh(torch.cov(Z.double().T))
    white = recoded(NETWORK, (directions / values.sqrt()).T, Z.mean(0))
    summary = measures.correlation_summary(measures.infer(white.encoder, IMAGES))
    assert summary["effective_rank_fraction"] == pytest.approx(1, abs=1e-6)
    assert summary["mean_abs_r"] < 1e-3


def test_a_linear_decoder_s_variances_are_those_of_its_images():
    decoder = nn.Linear(3, 784).requires_grad_(False)
    metric = measures.mean_metric(decoder, Z)
    assert torch.allclose(metric, (decoder.weight.T @ decoder.weight).double(), rtol=1e-4)
    spectrum = torch.linalg.eigvalsh(torch.cov(decoder(Z).double().T)).flip(0)[:3]
    assert torch.allclose(measures.image_variances(Z, metric), spectrum, rtol=1e-3)


def test_the_metric_is_that_of_torch_s_jacobian():
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda z: NETWORK.decoder(z[None]).flatten()))(Z[:20])
    expected = (jacobian.mT @ jacobian).double().mean(0)
    assert torch.allclose(measures.mean_metric(NETWORK.decoder, Z[:20]), expected, rtol=1e-4)


def test_the_participation_ratio_counts_equal_directions():
    assert measures.participation_ratio(np.ones(5)) == 5
    assert measures.participation_ratio(torch.tensor([2.0, 0, 0])) == 1


def test_probes_repeat_and_are_stored(mnist, store):
    run = trained(TINY, store, progress=False, mnist=mnist)
    probes = [Probe("ill_conditioned_start", TINY, 10), Probe("retrained_decoder", TINY, 2)]
    found = evaluate_all(probes, store, progress=False, mnist=mnist)
    assert evaluate_all(probes, store, progress=False, mnist=mnist) == found
    for one, outcome in found.items():
        again = probe(one, run.network.encoder, mnist)
        assert again.test_mse == pytest.approx(outcome.test_mse, rel=1e-4)
        assert 1e-4 < outcome.test_mse < 0.05
    assert found[probes[1]].effective_rank_fraction == pytest.approx(1, abs=0.1), "principal directions"
    assert found[probes[0]].dataset == "MNIST"

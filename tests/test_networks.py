from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from mnistae.config import Config
from mnistae.networks import AutoEncoder, Classifier, Decoder, Encoder, GaussianCode, Noise, spatial_sizes
from mnistae.study import ARCHITECTURES, SIZES, WIDE
from mnistae.training import build

USED = sorted({(c.latent_dim, c.channels, c.kernel_size) for c in (*SIZES, *ARCHITECTURES.values(), WIDE)})


@pytest.mark.parametrize("architecture", [*USED, (3, (4, 4, 4, 4, 4), 9), (784, (2,), 7)])
def test_shapes_of_every_architecture_of_the_study(architecture):
    x = torch.rand(3, 1, 28, 28)
    z = Encoder(*architecture)(x)
    x_hat = Decoder(*architecture)(z)
    assert z.shape == (3, architecture[0])
    assert x_hat.shape == x.shape
    assert x_hat.min() >= 0
    assert x_hat.max() <= 1


def test_the_code_is_unbounded_and_signed():
    torch.manual_seed(0)
    z = Encoder(10, (16, 32), 3)(torch.rand(50, 1, 28, 28))
    assert (z < 0).any(), "an activation on the code"
    assert (z > 0).any(), "an activation on the code"


def test_decoder_mirrors_encoder():
    architecture = (10, (16, 32, 64), 5)
    network = AutoEncoder(Encoder(*architecture), Decoder(*architecture))
    down = [tuple(m.weight.shape) for m in network.encoder if isinstance(m, torch.nn.Conv2d)]
    up = [tuple(m.weight.shape) for m in network.decoder if isinstance(m, torch.nn.ConvTranspose2d)]
    assert up == down[::-1]
    assert spatial_sizes(4) == [28, 14, 7, 4, 2]


def test_classifier_returns_logits():
    torch.manual_seed(0)
    logits = Classifier(Encoder(10, (16,), 3), 10, 64)(torch.rand(8, 1, 28, 28))
    assert logits.shape == (8, 10)
    assert (logits < 0).any(), "a softmax or sigmoid before the cross-entropy"
    assert not torch.allclose(logits.sum(1), torch.ones(8))


def test_noise_is_in_units_of_each_coordinate_s_spread_and_only_in_training():
    torch.manual_seed(0)
    z = torch.randn(20_000, 3) * torch.tensor([0.1, 1.0, 10.0])
    noisy = Noise(0.5, torch.Generator())
    assert torch.allclose((noisy.train()(z) - z).std(0), 0.5 * z.std(0), rtol=0.03)
    assert torch.equal(noisy.eval()(z), z)
    assert noisy.train()(z[:1]).isfinite().all(), "a last batch of one image has no spread"


def test_a_code_s_divergence_is_that_of_torch_distributions():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 50, 4)
    code = GaussianCode(torch.Generator()).train()
    sampled = code(torch.cat([mean, log_variance], 1))
    reference = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0, 1)).sum(1).mean()
    assert code.kl == pytest.approx(reference.item(), rel=1e-5)
    assert sampled.shape == (50, 4)
    assert torch.equal(code.eval()(torch.cat([mean, log_variance], 1)), mean), "the mean outside training"


def test_the_divergence_of_a_standard_normal_is_zero_and_its_samples_are_standard():
    torch.manual_seed(0)
    code = GaussianCode(torch.Generator()).train()
    sampled = code(torch.zeros(20_000, 6))
    assert code.kl == 0
    assert sampled.mean().abs() < 0.02
    assert sampled.std() == pytest.approx(1, rel=0.02)


def test_regularised_codes_have_the_size_that_was_asked_for_and_are_exact_in_eval_mode():
    tiny, x = Config(channels=(4, 8), latent_dim=3), torch.rand(5, 1, 28, 28)
    for config in (replace(tiny, noise=0.5), replace(tiny, kl_weight=1e-3)):
        network = build(config)
        assert not torch.equal(network.encoder(x), network.encoder(x)), "random while training"
        network.eval()
        assert torch.equal(network.encoder(x), network.encoder(x))
        assert network.encoder(x).shape == (5, 3)
    means_and_variances = torch.nn.Sequential(*list(network.encoder)[:-1])(x)
    assert torch.equal(network.encoder(x), means_and_variances[:, :3]), "the mean is the code"


def test_noise_comes_from_its_own_generator_alone():
    z, before = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)), torch.get_rng_state()
    for make in (lambda g: Noise(0.5, g), lambda g: nn.Sequential(nn.Linear(3, 6), GaussianCode(g))):
        first = make(torch.Generator().manual_seed(0)).train()
        again = deepcopy(first)
        torch.manual_seed(torch.get_rng_state()[0].item())
        assert torch.equal(first(z), again(z)), "two with equal generators"
        assert not torch.equal(first(z), first(z)), "each batch its own"
    torch.set_rng_state(before)

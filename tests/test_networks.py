import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mnistae import measures
from mnistae.config import Config
from mnistae.networks import (
    AutoEncoder,
    Classifier,
    Decoder,
    Encoder,
    GaussianCode,
    Noise,
    linear_autoencoder,
    spatial_sizes,
)
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


def test_codes_and_logits_have_no_activation():
    torch.manual_seed(0)
    encoder, images = Encoder(10, (16, 32), 3), torch.rand(50, 1, 28, 28)
    logits = Classifier(encoder, 10, 64)(images)
    assert logits.shape == (50, 10)
    for values in (encoder(images), logits):
        assert values.min() < 0 < values.max()


def test_decoder_mirrors_encoder():
    architecture = (10, (16, 32, 64), 5)
    network = AutoEncoder(Encoder(*architecture), Decoder(*architecture))
    down = [tuple(m.weight.shape) for m in network.encoder if isinstance(m, torch.nn.Conv2d)]
    up = [tuple(m.weight.shape) for m in network.decoder if isinstance(m, torch.nn.ConvTranspose2d)]
    assert up == down[::-1]
    assert spatial_sizes(4) == [28, 14, 7, 4, 2]


def test_noise_is_in_units_of_each_coordinate_s_spread_and_only_in_training():
    torch.manual_seed(0)
    z = torch.randn(20_000, 3) * torch.tensor([0.1, 1.0, 10.0])
    noisy = Noise(0.5, torch.Generator())
    assert torch.allclose((noisy.train()(z) - z).std(0), 0.5 * z.std(0), rtol=0.03)
    assert torch.equal(noisy.eval()(z), z)
    assert noisy.train()(z[:1]).isfinite().all(), "a last batch of one image has no spread"


def test_a_variational_code_has_the_divergence_and_the_samples_of_its_gaussians():
    torch.manual_seed(0)
    statistics = torch.randn(5_000, 8)
    mean, log_variance = statistics.chunk(2, 1)
    gaussian, code = Normal(mean, (log_variance / 2).exp()), GaussianCode(torch.Generator()).train()
    standard = (code(statistics) - mean) / gaussian.stddev
    expected = kl_divergence(gaussian, Normal(0, 1)).sum(1).mean()
    assert code.kl == pytest.approx(expected.item(), rel=1e-5)
    assert standard.mean().abs() < 0.02
    assert standard.std() == pytest.approx(1, rel=0.02)
    assert torch.equal(code.eval()(statistics), mean), "the mean outside training"


@pytest.mark.parametrize("regularised", [{"noise": 0.5}, {"kl_weight": 1e-3}])
def test_regularised_codes_have_the_size_that_was_asked_for_and_are_exact_in_eval_mode(regularised):
    encoder = build(Config(channels=(4, 8), latent_dim=3, **regularised)).encoder
    images = torch.rand(5, 1, 28, 28)
    assert not torch.equal(encoder(images), encoder(images)), "random while training"
    encoder.eval()
    assert torch.equal(encoder(images), encoder(images))
    assert encoder(images).shape == (5, 3)


@pytest.mark.parametrize("make", [lambda generator: Noise(0.5, generator), GaussianCode])
def test_noise_comes_from_its_own_generator_alone(make):
    z, before = torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), torch.get_rng_state()
    first, again = (make(torch.Generator().manual_seed(0)).train() for _ in range(2))
    assert torch.equal(first(z), again(z))
    assert not torch.equal(first(z), first(z)), "each batch its own"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_linear_autoencoder_is_pca():
    images = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    pca = measures.pca(images, 5)
    network = linear_autoencoder(pca, 5)
    assert np.allclose(network.encoder(images), pca.transform(images.flatten(1)), atol=1e-5)
    restored = pca.inverse_transform(pca.transform(images.flatten(1)))
    assert np.allclose(network(images).flatten(1), restored, atol=1e-5)
    assert np.allclose(linear_autoencoder(pca, 2).encoder(images), network.encoder(images)[:, :2], atol=1e-5)

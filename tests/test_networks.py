import pytest
import torch

from mnistae.networks import AutoEncoder, Classifier, Decoder, Encoder, spatial_sizes
from mnistae.study import ARCHITECTURES, BY_LATENT_DIM

USED = sorted(
    {
        (c.latent_dim, c.channels, c.kernel_size)
        for cs in (*BY_LATENT_DIM.values(), *ARCHITECTURES.values())
        for c in cs
    }
)


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
    network = AutoEncoder(10, (16, 32, 64), 5)
    down = [tuple(m.weight.shape) for m in network.encoder if isinstance(m, torch.nn.Conv2d)]
    up = [tuple(m.weight.shape) for m in network.decoder if isinstance(m, torch.nn.ConvTranspose2d)]
    assert up == down[::-1]
    assert spatial_sizes(4) == [28, 14, 7, 4, 2]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ((0, (16,), 3), r"latent_dim=0: allowed is 1 to 784"),
        ((785, (16,), 3), r"latent_dim=785: allowed is 1 to 784"),
        ((10, (), 3), r"0 strided layers: allowed is 1 to 5"),
        ((10, (8,) * 6, 3), r"6 strided layers: allowed is 1 to 5"),
        ((10, (16, 0), 3), r"channels=\(16, 0\): allowed are widths from 1"),
        ((10, (16,), 4), r"kernel_size=4: allowed is 3, 5, 7 or 9"),
    ],
)
def test_impossible_architectures_are_refused(architecture, message):
    for half in (Encoder, Decoder, AutoEncoder):
        with pytest.raises(ValueError, match=message):
            half(*architecture)


def test_classifier_returns_logits():
    torch.manual_seed(0)
    logits = Classifier(Encoder(10, (16,), 3), 10, 64)(torch.rand(8, 1, 28, 28))
    assert logits.shape == (8, 10)
    assert (logits < 0).any(), "a softmax or sigmoid before the cross-entropy"
    assert not torch.allclose(logits.sum(1), torch.ones(8))

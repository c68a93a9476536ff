"""Networks that no Config names: another start of the same function, a new decoder for part of a code."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnistae import measures
from mnistae.config import Probe
from mnistae.data import Data, Split
from mnistae.parallel import alone
from mnistae.training import build, fit_by, reconstruct


class Probed(NamedTuple):
    """What a probe measures."""

    validation_mse: float
    test_mse: float
    effective_rank_fraction: float  # of 5,000 test images, as `measures.correlation_summary`
    image_rank_fraction: float  # participation ratio of ΣG over d, of the same images
    dataset: str  # the name of the data


def recoded(autoencoder: Any, matrix: Tensor, centre: Tensor) -> Any:
    """A copy of the network with code matrix @ (z - centre) and the same images: two linear layers absorb it.

    matrix: (d, d), invertible; centre: (d,). In float64 before rounding, because float32 inverts a matrix of
    condition 1,000 to three digits only.
    """
    network, a, c = deepcopy(autoencoder), matrix.double(), centre.double()
    last, first = network.encoder[-1], network.decoder[0]
    with torch.no_grad():
        last.bias.copy_(a @ (last.bias.double() - c))
        last.weight.copy_(a @ last.weight.double())
        first.bias.add_(first.weight.double() @ c)
        first.weight.copy_(torch.linalg.solve(a, first.weight.double(), left=False))
    return network


def ill_conditioned(d: int, condition: float, seed: int) -> Tensor:
    """A random (d, d) map with singular values log-spaced around 1; largest over smallest is `condition`."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.linalg.qr(torch.randn(2, d, d, generator=generator, dtype=torch.float64))[0]
    return left * condition ** torch.linspace(-0.5, 0.5, d, dtype=torch.float64) @ right


def probe(experiment: Probe, encoder: nn.Module, mnist: Data) -> Probed:
    """Train the network of a probe, and measure it. encoder: the trained one, for a retrained decoder."""
    config, amount = experiment.encoder, experiment.amount
    decoder: Any
    train = Split(*(part[: config.images] for part in mnist.train))
    with alone():
        if experiment.scheme == "retrained_decoder":
            z = measures.infer(encoder, train.images).double()
            axes, mean = torch.linalg.eigh(torch.cov(z.T))[1].flip(1)[:, :amount], z.mean(0)
            encode = lambda x: ((measures.infer(encoder, x).double() - mean) @ axes).float()  # noqa: E731
            decoder = build(replace(config, latent_dim=amount)).decoder
            # Images take the place of labels: what `fit` hands to the objective beside each code.
            codes = Split(encode(train.images), train.images)
            fit_by(replace(config, distortion=0.0), decoder, codes, _decode)
        else:
            matrix = ill_conditioned(config.latent_dim, amount, config.seed)
            network = recoded(build(config), matrix, torch.zeros(config.latent_dim))
            fit_by(config, network, train, reconstruct)
            decoder, encode = network.decoder, lambda x: measures.infer(network.encoder, x)
        error = lambda x: measures.mse(measures.infer(decoder, encode(x)), x)  # noqa: E731
        z = encode(mnist.test.images[:5_000])
        variances = measures.image_variances(z, measures.mean_metric(decoder, z[:50]))
        return Probed(
            validation_mse=error(mnist.validation.images),
            test_mse=error(mnist.test.images),
            effective_rank_fraction=measures.correlation_summary(z)["effective_rank_fraction"],
            image_rank_fraction=measures.participation_ratio(variances) / z.shape[1],
            dataset=mnist.name,
        )


def _decode(decoder: nn.Module, codes: Tensor, images: Tensor) -> Tensor:
    return F.mse_loss(decoder(codes), images)

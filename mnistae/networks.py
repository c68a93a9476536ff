"""Encoder, Decoder and the networks made of them, from one list of widths; `Config` says what is allowed.

The exercise's symbols: E is `encoder`, D is `decoder`, d is `latent_dim`; z = E(x) and x_hat = D(z).
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def spatial_sizes(depth: int) -> list[int]:
    """Side lengths in pixels, from the image down: each strided layer halves, rounding up."""
    return [28, 14, 7, 4, 2, 1][: depth + 1]


def _norm_and_activation(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.SiLU()]


class Encoder(nn.Sequential):
    """E: strided convolutions, then a linear map to the code. (N, 1, 28, 28) in [0, 1] -> (N, latent_dim)."""

    def __init__(self, latent_dim: int, channels: tuple[int, ...], kernel_size: int):
        layers: list[nn.Module] = []
        for width_in, width in pairwise((1, *channels)):  # 28x28 -> 14x14 -> 7x7 -> 4x4 -> 2x2
            convolution = nn.Conv2d(width_in, width, kernel_size, 2, kernel_size // 2, bias=False)
            layers += [convolution, *_norm_and_activation(width)]
        features = channels[-1] * spatial_sizes(len(channels))[-1] ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(features, latent_dim))


class PoolingEncoder(nn.Sequential):
    """Another architecture for classifiers: max-pooling and ReLU, without strides and batch norm."""

    def __init__(self, latent_dim: int, channels: tuple[int, ...], kernel_size: int):
        layers: list[nn.Module] = []
        for width_in, width in pairwise((1, *channels)):
            convolution = nn.Conv2d(width_in, width, kernel_size, padding=kernel_size // 2)
            layers += [convolution, nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        features = channels[-1] * spatial_sizes(len(channels))[-1] ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(features, latent_dim))


class Decoder(nn.Sequential):
    """D: the encoder's mirror image, then a sigmoid. (N, latent_dim) -> (N, 1, 28, 28) in [0, 1]."""

    def __init__(self, latent_dim: int, channels: tuple[int, ...], kernel_size: int):
        sizes, widths = spatial_sizes(len(channels))[::-1], channels[::-1]  # 2x2 -> 4x4 -> … -> 28x28
        first = nn.Linear(latent_dim, widths[0] * sizes[0] ** 2)
        layers: list[Any] = [first, nn.Unflatten(1, (widths[0], sizes[0], sizes[0]))]
        for (size, size_out), (width, width_out) in zip(pairwise(sizes), pairwise((*widths, 1)), strict=True):
            added = size_out - 2 * size + 1  # 7x7 -> 14x14 needs one pixel more than 4x4 -> 7x7
            layers += _norm_and_activation(width)
            layers += [nn.ConvTranspose2d(width, width_out, kernel_size, 2, kernel_size // 2, added)]
        nn.init.constant_(layers[-1].bias, -2.0)  # start from dark images, as digits are: sigmoid(-2) = 0.12
        super().__init__(*layers, nn.Sigmoid())


class Noise(nn.Module):
    """Gaussian noise on codes (N, d) during training, in units of each coordinate's spread in the batch.

    So one strength fits every encoder and every d, and a code gains nothing by growing. generator: of the
    CPU; the noise comes from it alone, so nothing else in the process changes it.
    """

    def __init__(self, strength: float, generator: torch.Generator):
        super().__init__()
        self.strength, self.generator = strength, generator

    def forward(self, z: Tensor) -> Tensor:
        if not self.training:
            return z
        spread = z.detach().std(0, correction=min(1, len(z) - 1))  # 0 in a last batch of one image
        return z + self.strength * spread * torch.randn(z.shape, generator=self.generator).to(z.device)


class GaussianCode(nn.Module):
    """A variational code: means and log variances (N, 2d) -> (N, d), sampled in training, else the means.

    kl: divergence of the last batch's codes from the standard normal, in nats per image (Kingma and Welling,
    2014). generator: as for `Noise`.
    """

    kl: Tensor

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator = generator

    def forward(self, statistics: Tensor) -> Tensor:
        mean, log_variance = statistics.chunk(2, dim=1)
        if not self.training:
            return mean
        self.kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean() / 2
        noise = torch.randn(mean.shape, generator=self.generator).to(mean.device)
        return mean + (log_variance / 2).exp() * noise


class AutoEncoder(nn.Module):
    """x_hat = D(E(x)): (N, 1, 28, 28) -> (N, 1, 28, 28) through (N, latent_dim)."""

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def linear_autoencoder(pca: Any, latent_dim: int) -> AutoEncoder:
    """PCA as an auto-encoder of two linear layers, which learn nothing; its images may leave [0, 1].

    pca: scikit-learn's PCA of images, see `measures.pca`; latent_dim: how many of its components.
    """
    axes, centre = torch.tensor(pca.components_[:latent_dim]), torch.tensor(pca.mean_)
    encode, decode = nn.Linear(784, latent_dim), nn.Linear(latent_dim, 784)
    encode.weight.data, encode.bias.data = axes, -axes @ centre
    decode.weight.data, decode.bias.data = axes.T, centre
    halves = nn.Sequential(nn.Flatten(), encode), nn.Sequential(decode, nn.Unflatten(1, (1, 28, 28)))
    return AutoEncoder(*halves).requires_grad_(False)


class Classifier(nn.Module):
    """Ten logits (no softmax: cross-entropy brings its own) from a code, through one hidden layer.

    (N, 1, 28, 28) -> (N, 10). With `encoder=nn.Identity()` it reads codes (N, latent_dim) directly.
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, hidden: int):
        super().__init__()
        self.encoder: nn.Module = encoder
        self.head = nn.Sequential(nn.Linear(latent_dim, hidden), nn.SiLU(), nn.Linear(hidden, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))

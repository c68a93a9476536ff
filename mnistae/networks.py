"""Encoder, Decoder and what is built of them, from one list of widths.

The exercise's symbols: E is `encoder`, D is `decoder`, d is `latent_dim`; z = E(x) and x_hat = D(z).
"""

from torch import Tensor, nn

IMAGE_SIZE = 28


def spatial_sizes(depth: int) -> list[int]:
    """Side lengths from the image down: 28, 14, 7, 4, 2, 1 pixels; each strided layer halves, rounding up."""
    sizes = [IMAGE_SIZE]
    for _ in range(depth):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def check_architecture(latent_dim: int, channels: tuple[int, ...], kernel_size: int) -> None:
    """Raise ValueError or TypeError, naming value and range, for a network that cannot be built."""
    if not all(type(n) is int for n in (latent_dim, kernel_size, *channels)):
        raise TypeError(f"{latent_dim=}, {channels=}, {kernel_size=}: allowed are whole numbers")
    if not 1 <= latent_dim <= IMAGE_SIZE**2:
        raise ValueError(f"{latent_dim=}: allowed is 1 to {IMAGE_SIZE**2}, the number of pixels")
    if not 1 <= len(channels) <= 5:
        raise ValueError(
            f"channels={channels} asks for {len(channels)} strided layers: allowed is 1 to 5, "
            f"since {IMAGE_SIZE} pixels halve to 1 in five steps"
        )
    if not all(1 <= width <= 4096 for width in channels):
        raise ValueError(f"{channels=}: allowed are widths from 1 to 4096")
    if kernel_size not in (3, 5, 7, 9):
        raise ValueError(
            f"{kernel_size=}: allowed is 3, 5, 7 or 9 (odd, so that layers halve the size exactly)"
        )


def _normalised(width: int) -> list[nn.Module]:
    # Without batch norm some seeds saturate the final sigmoid and stay black for ever.
    return [nn.BatchNorm2d(width), nn.SiLU()]


class Encoder(nn.Sequential):
    """E: strided convolutions, then one linear map to a code without spatial structure or activation.

    (N, 1, 28, 28) pixels in [0, 1] -> (N, latent_dim).
    """

    def __init__(self, latent_dim: int, channels: tuple[int, ...], kernel_size: int):
        check_architecture(latent_dim, channels, kernel_size)
        layers: list[nn.Module] = []
        for width_in, width in zip((1, *channels), channels, strict=False):  # 28x28 -> 14x14 -> 7x7 -> 4x4
            convolution = nn.Conv2d(width_in, width, kernel_size, 2, kernel_size // 2, bias=False)
            layers += [convolution, *_normalised(width)]
        features = channels[-1] * spatial_sizes(len(channels))[-1] ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(features, latent_dim))


class Decoder(nn.Sequential):
    """D: the encoder's mirror image, with transposed convolutions and a final sigmoid.

    (N, latent_dim) -> (N, 1, 28, 28) pixels in [0, 1].
    """

    def __init__(self, latent_dim: int, channels: tuple[int, ...], kernel_size: int):
        check_architecture(latent_dim, channels, kernel_size)
        sizes = spatial_sizes(len(channels))[::-1]  # 4x4 -> 7x7 -> 14x14 -> 28x28
        widths = (*channels[::-1], 1)
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, widths[0] * sizes[0] ** 2),
            nn.Unflatten(1, (widths[0], sizes[0], sizes[0])),
        ]
        for i in range(len(channels)):
            odd = 2 * sizes[i] - sizes[i + 1]  # 4x4 -> 7x7 needs one pixel less than 7x7 -> 14x14
            layers += [
                *_normalised(widths[i]),
                nn.ConvTranspose2d(
                    widths[i], widths[i + 1], kernel_size, 2, kernel_size // 2, output_padding=1 - odd
                ),
            ]
        nn.init.constant_(layers[-1].bias, -2.0)  # start from dark images, as digits are: sigmoid(-2) = 0.12
        super().__init__(*layers, nn.Sigmoid())


class AutoEncoder(nn.Module):
    """x_hat = D(E(x)): (N, 1, 28, 28) -> (N, 1, 28, 28) through (N, latent_dim)."""

    def __init__(self, latent_dim: int, channels: tuple[int, ...], kernel_size: int):
        super().__init__()
        self.encoder = Encoder(latent_dim, channels, kernel_size)
        self.decoder = Decoder(latent_dim, channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class Classifier(nn.Module):
    """Ten logits (no softmax: cross-entropy brings its own) from a code, through one hidden layer.

    (N, 1, 28, 28) -> (N, 10). With `encoder=nn.Identity()` it reads codes (N, latent_dim) directly.
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, hidden: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(latent_dim, hidden), nn.SiLU(), nn.Linear(hidden, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))

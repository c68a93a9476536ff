"""Committed networks as live.js reads them: batch norm folded, weights in half precision."""

import base64
import copy
from dataclasses import replace

from torch import nn

from mnistae import measures, runs, study
from mnistae.networks import linear_autoencoder

# Of the weights: kernel, outputs, inputs.
AXES = {nn.Conv2d: (2, 3, 0, 1), nn.ConvTranspose2d: (2, 3, 1, 0), nn.Linear: (0, 1)}


def networks(images):
    """The base networks, and PCA of images (N, 1, 28, 28) as an auto-encoder of two linear layers."""
    found = {f"d = {d}": runs.trained(replace(study.BASE, latent_dim=d)).network for d in (2, 10, 64)}
    return found | {"PCA, d = 10": linear_autoencoder(measures.pca(images, 10), 10)}


def folded(half):
    """The same function as an encoder or a decoder, each batch norm folded into the layer before it."""
    layers = []
    for layer in copy.deepcopy(half):
        if not isinstance(layer, nn.BatchNorm2d):
            layers.append(layer)
            continue
        before = next(other for other in reversed(layers) if hasattr(other, "weight"))
        outputs = 1 if isinstance(before, nn.ConvTranspose2d) else 0  # the axis
        pixels = before.weight.shape[outputs] // layer.num_features  # of a channel: many after a linear layer
        scale = layer.weight / (layer.running_var + layer.eps).sqrt()
        shift = layer.bias - layer.running_mean * scale
        scale, shift = scale.repeat_interleave(pixels), shift.repeat_interleave(pixels)
        before.weight.data.movedim(outputs, -1).mul_(scale)
        before.bias = nn.Parameter(shift if before.bias is None else before.bias * scale + shift)
    return nn.Sequential(*layers).requires_grad_(False)


def packed(numbers):
    """A tensor in half precision, in base64."""
    return base64.b64encode(numbers.numpy().astype("<f2").tobytes()).decode()


def layers_of(half, x):
    """The layers of an encoder or a decoder, as live.js reads them. x: its input, (N, ...)."""
    layers = []
    for layer in folded(half):
        before, x = x, layer(x)
        about = {"kind": type(layer).__name__, "from": before.shape[1:], "to": x.shape[1:]}
        if axes := AXES.get(type(layer)):
            about |= {"weight": packed(layer.weight.permute(axes)), "bias": packed(layer.bias)}
        layers.append(about)
    return layers


def exported(network, images):
    """A network as live.js reads it, with the codes of images (N, 1, 28, 28) and their mean error."""
    z, error = network.encoder(images), (network(images) - images).square().mean().item()
    halves = {"encoder": layers_of(network.encoder, images), "decoder": layers_of(network.decoder, z)}
    return halves | {"codes": packed(z), "latentDim": z.shape[1], "error": error}

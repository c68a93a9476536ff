"""600 blurred blobs in place of MNIST, and a network that learns them in a second."""

import multiprocessing

import torch

from mnistae.config import Config
from mnistae.data import Data, Split

TINY = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400)


def small(name="MNIST"):
    """Data of 400 training, 100 validation and 100 test images."""
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 10
    centres = torch.stack([5 + 2 * labels, 22 - 2 * labels], 1) + torch.randn(600, 2, generator=chance)
    grid = torch.arange(28.0)
    x = torch.exp(-((grid - centres[:, :1]) ** 2) / 20)
    y = torch.exp(-((grid - centres[:, 1:]) ** 2) / 20)
    images = (y[:, :, None] * x[:, None, :])[:, None]
    parts = zip(images.split([400, 100, 100]), labels.split([400, 100, 100]), strict=True)
    return Data(*(Split(x.clone(), y.clone()) for x, y in parts), name)


def same(one, other):
    """Whether two sets of weights are equal bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def child(job, *arguments):
    """A process that does the job; forked from a clean one, since torch's threads do not survive a fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mnistae.runs"])
    process = context.Process(target=job, args=arguments)
    process.start()
    return process

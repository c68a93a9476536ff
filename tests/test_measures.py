import math

import numpy as np
import pytest
import torch

from mnistae import measures
from mnistae.measures import chance_level, correlation_summary


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_mse_is_the_mean_over_all_images_not_over_batches():
    images = torch.rand(503, 1, 28, 28) / 2  # 500 + 3: batch means would weigh three images as much as 500
    shifted = images.clone()
    shifted[500:] += 0.5
    assert measures.mse(shifted, images) == pytest.approx(0.25 * 3 / 503, rel=1e-5)
    assert measures.reconstruction_mse(torch.nn.Identity(), images) == 0
    black_and_white = torch.ones(2, 1, 28, 28), torch.zeros(2, 1, 28, 28)
    assert measures.mse(*black_and_white) == 1


def test_pca_equals_projecting_on_the_first_singular_vectors():
    train, test = torch.rand(300, 1, 28, 28), torch.rand(50, 1, 28, 28)
    train[:, 0, 5] = train[:, 0, 4]  # some structure
    errors = measures.pca_errors(train, test, [0, 3, 20])
    flat, mean = train.flatten(1).double(), train.flatten(1).double().mean(0)
    axes = torch.linalg.svd(flat - mean, full_matrices=False).Vh
    for d, error in errors.items():
        centred = test.flatten(1).double() - mean
        back = centred @ axes[:d].T @ axes[:d]
        assert error == pytest.approx(((centred - back) ** 2).mean().item(), rel=1e-4)
    z = measures.infer(measures.PrincipalComponents(train, 3), test)
    assert torch.allclose(z.double().abs(), (centred @ axes[:3].T).abs(), atol=1e-3), "up to signs"


def test_independent_coordinates_are_at_the_level_of_chance():
    n, d = 5000, 12
    summary = correlation_summary(gaussian(n, d))
    for name, expected in chance_level(n, d).items():
        assert summary[name] == pytest.approx(expected, rel=0.2), name
    assert summary["dead"] == 0


@pytest.mark.filterwarnings("error")
def test_copies_are_wholly_redundant():
    summary = correlation_summary(gaussian(1000, 1).repeat(1, 4))
    assert list(summary.values()) == pytest.approx([1, 1, 1 / 4, math.inf, 0])


def test_two_coordinates_of_known_correlation():
    """r = 0.6 gives eigenvalues 1.6 and 0.4, so all four numbers by hand."""
    x, noise = gaussian(400, 2).T
    x, noise = (x - x.mean()) / x.std(), noise - noise.mean()
    noise = noise - (noise @ x) / (x @ x) * x
    z = torch.stack([x, 0.6 * x + 0.8 * noise / noise.std()], 1)
    by_hand = [0.6, 0.6, 4 / (1.6**2 + 0.4**2) / 2, -0.5 * math.log(1 - 0.36) / 2, 0]
    assert list(correlation_summary(z).values()) == pytest.approx(by_hand, rel=1e-5)


def test_signs_scales_and_order_do_not_matter():
    z = gaussian(500, 6) @ gaussian(6, 6, seed=1)
    changed = (z * torch.tensor([1.0, -2, 30, 0.01, 5, -1]))[:, [3, 1, 5, 0, 2, 4]] + 7
    for name, value in correlation_summary(z).items():
        assert correlation_summary(changed)[name] == pytest.approx(value, rel=1e-3), name


CONSTANTS = [torch.zeros(500), torch.full((500,), 1234.5678), torch.full((500,), 0.1)]
CONSTANTS[2][::2] = torch.nextafter(CONSTANTS[2][0], torch.tensor(9.0))  # as rounding leaves it


@pytest.mark.parametrize("constant", CONSTANTS, ids=["zero", "large", "rounded"])
def test_dead_coordinates_are_counted_and_change_nothing(constant):
    z = gaussian(500, 5) @ gaussian(5, 5, seed=1) * torch.tensor([1e-9, 1, 1, 1, 1e9])  # small is not dead
    with_dead = torch.cat([z[:, :2], constant[:, None].repeat(1, 2), z[:, 2:]], 1)
    alone = correlation_summary(z)
    assert alone["dead"] == 0
    assert correlation_summary(with_dead) == pytest.approx(alone | {"dead": 2})
    assert np.isfinite(list(alone.values())).all()


def test_alpha_one_is_the_first_and_zero_the_second():
    z1, z2 = gaussian(4, 3), gaussian(4, 3, seed=1)
    path = measures.interpolate(z1, z2, torch.tensor([0.0, 0.25, 1.0]))
    assert path.shape == (3, 4, 3)
    exact = torch.tensor([0.5], dtype=torch.float64)
    assert measures.interpolate(z1, z2, exact).dtype == torch.float32, "for any dtype of the alphas"
    assert torch.equal(path[0], z2)
    assert torch.equal(path[2], z1)
    assert torch.allclose(path[1], 0.25 * z1 + 0.75 * z2)


def test_nearest_mse_is_the_least_over_all_references():
    images, reference = torch.rand(7, 1, 28, 28), torch.rand(30, 1, 28, 28)
    brute = ((images[:, None] - reference[None]) ** 2).mean((2, 3, 4)).amin(1)
    assert torch.allclose(measures.nearest_mse(images, reference), brute, atol=1e-5)
    assert measures.nearest_mse(reference[:3], reference).max() < 1e-6


def test_measuring_neither_mixes_images_nor_changes_the_network():
    network = torch.nn.BatchNorm2d(1)  # in training mode, as it is made
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    together, alone = measures.infer(network, images), measures.infer(network, images[:1])
    assert torch.equal(together[:1], alone)
    assert network.running_mean == 0


def test_accuracy_counts_each_image():
    labels = torch.arange(40) % 10
    predicted = torch.where(torch.arange(40) < 27, labels, (labels + 3) % 10)
    logits = torch.nn.functional.one_hot(predicted, 10).float()
    assert measures.accuracy(torch.nn.Identity(), logits, labels) == 27 / 40

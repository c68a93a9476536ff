"""The optimizer against independent references."""

import pytest
import torch

from mnistae import muon
from mnistae.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 36), (36, 8), (5, 5), (1, 9), (9, 1)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    update = orthogonal(matrix)
    assert update.shape == shape
    assert update.dtype == torch.float32
    singular = torch.linalg.svdvals(update)
    assert 0.3 < singular.min() <= singular.max() < 1.6
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.mT @ update @ right.mT
    assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-4), "singular vectors are the same"
    assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape))


def test_vectors_are_trained_as_torch_s_adamw_would():
    start = torch.randn(20, generator=torch.Generator().manual_seed(0))
    mine, reference = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer = Muon([{"params": [mine], "lr": 0.01, "weight_decay": 0.1}])
    adam = torch.optim.AdamW([reference], 0.01, betas=muon.BETAS, eps=muon.EPSILON, weight_decay=0.1)
    for step in range(10):
        for weight in (mine, reference):
            weight.grad = (weight.detach() - step / 10) ** 2
        optimizer.step()
        adam.step()
    assert torch.allclose(mine, reference, rtol=1e-6)


def test_the_first_step_on_a_kernel_is_orthogonal_and_decays():
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(32, 2, 3, 3, generator=generator))
    before, weight.grad = weight.detach().clone(), torch.randn(32, 2, 3, 3, generator=generator)
    Muon([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}]).step()
    update = orthogonal(weight.grad.flatten(1)).view_as(before)
    assert torch.allclose(weight, before * (1 - 0.1 * 0.5) - 0.1 * (32 / 18) ** 0.5 * update, atol=1e-6)


def test_momentum_continues_when_the_gradient_is_zero():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = Muon([{"params": [weight], "lr": 0.1, "weight_decay": 0.0}])
    weight.grad = torch.eye(2)
    optimizer.step()
    before, weight.grad = weight.detach().clone(), torch.zeros(2, 2)
    optimizer.step()
    assert (weight.diagonal() < before.diagonal()).all()

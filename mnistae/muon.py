"""Muon, the optimizer of the study: momentum whose update of each matrix is made orthogonal.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

MOMENTUM = 0.95
BETAS, EPSILON = (0.9, 0.95), 1e-10  # of Adam


class Muon(Optimizer):
    """Muon on matrices and on kernels, seen as (out, in · height · width); Adam on vectors.

    groups: as for any optimizer, each with "params", "lr" and "weight_decay" (per unit of the learning rate).
    """

    def __init__(self, groups: list[dict[str, Any]]):
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                update = _muon if weight.ndim > 1 else _adam
                update(weight, weight.grad, self.state[weight], group["lr"])


def _muon(weight: Tensor, gradient: Tensor, state: dict[str, Any], learning_rate: float) -> None:
    momentum = state.setdefault("momentum", torch.zeros_like(weight))
    momentum.lerp_(gradient, 1 - MOMENTUM)
    update = orthogonal(gradient.lerp(momentum, MOMENTUM).flatten(1))
    rows, columns = update.shape
    weight.add_(update.view(weight.shape), alpha=-learning_rate * math.sqrt(max(1, rows / columns)))


def _adam(weight: Tensor, gradient: Tensor, state: dict[str, Any], learning_rate: float) -> None:
    mean = state.setdefault("mean", torch.zeros_like(weight))
    square = state.setdefault("square", torch.zeros_like(weight))
    step = state["step"] = state.get("step", 0) + 1
    mean.lerp_(gradient, 1 - BETAS[0])
    square.lerp_(gradient * gradient, 1 - BETAS[1])
    spread = square.sqrt().div_((1 - BETAS[1] ** step) ** 0.5).add_(EPSILON)
    weight.addcdiv_(mean, spread, value=-learning_rate / (1 - BETAS[0] ** step))


def orthogonal(matrix: Tensor) -> Tensor:
    """Near the closest matrix with orthonormal rows or columns: singular values between 0.3 and 1.2.

    By the Newton-Schulz iteration; values below 1 % of the matrix's norm grow at most 41-fold. In float32:
    bfloat16 runs 90 times slower on a processor without units for it (AVX2, measured).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).contiguous()
    x = x / x.norm().clamp_min(1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan et al.: fastest for small singular values, ends near 1
    for _ in range(3):  # five do no better here
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

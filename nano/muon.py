"""Muon (Jordan et al. 2024): momentum whose singular values are all brought to one, for the matrices within layers.

In float32, matrices of one shape at once. ``torch.optim.Muon`` computes in bfloat16, which processors without it do
ten times slower.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
MOMENTUM = 0.95


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [n, a, b] with singular values near one and the same singular vectors, by Newton and Schulz."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """For matrices. A step is as large as one of AdamW at the same rate (0.2·√ of the longer side)."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float):
        super().__init__(list(weights), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                updates = orthogonal(torch.stack([self._momentum(weight) for weight in weights]))
                size = 0.2 * max(shape) ** 0.5
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * size)

    def _momentum(self, weight: nn.Parameter) -> Tensor:
        """The gradient, looked at from where momentum leads (Nesterov)."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(state["momentum"], MOMENTUM)


def within_layers(model: nn.Module) -> list[nn.Parameter]:
    """The matrices of transformer layers that are trained."""
    named = model.named_parameters()
    return [weight for name, weight in named if weight.requires_grad and weight.dim() == 2 and "layers." in name]

"""What one pass learns from: a noise level, noise, and the velocity between them.

At level t, x = t·noise + (1 − t)·target, and the model is to answer noise − target. Shapes: B rows, T latent frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..sampling.schedules import shifted

TURBO_STEPS = 8
SMALLEST = 1e-4
"""Levels are kept this far from 0 and 1 where a signal-to-noise ratio is taken."""


@dataclass(frozen=True, eq=False)
class Draw:
    """What chance decides for a batch: noise [B, T, 64], levels t [B] in float32, and which rows are unconditional."""

    noise: Tensor
    t: Tensor
    dropped: Tensor

    def to(self, device: torch.device) -> Draw:
        return Draw(self.noise.to(device), self.t.to(device), self.dropped.to(device))


def discrete_levels(shift: float = 3.0, steps: int = TURBO_STEPS) -> list[float]:
    """The levels a turbo model plays at, shift·u / (1 + (shift − 1)·u) for u = 1 … 1/steps."""
    return [shifted(1 - index / steps, shift) for index in range(steps)]


def _dropped(rows: int, dropout: float, generator: torch.Generator) -> Tensor:
    if dropout <= 0:
        return torch.zeros(rows, dtype=torch.bool)
    return torch.rand(rows, generator=generator) < dropout


def draw_discrete(shape: Sequence[int], generator: torch.Generator, shift: float = 3.0, dropout: float = 0.0) -> Draw:
    """Levels of the turbo table, each as likely as the others. Drawn: dropping (where wanted), noise, levels."""
    levels = torch.tensor(discrete_levels(shift), dtype=torch.float32)
    dropped = _dropped(shape[0], dropout, generator)
    noise = torch.randn(*shape, generator=generator)
    return Draw(noise, levels[torch.randint(0, len(levels), (shape[0],), generator=generator)], dropped)


def draw_continuous(
    shape: Sequence[int], generator: torch.Generator, mu: float = -0.4, sigma: float = 1.0, dropout: float = 0.0
) -> Draw:
    """Levels as the model itself was trained: the larger of two sigmoid(N(μ, σ)).

    Drawn: dropping (where wanted), noise, and the two normals.
    """
    dropped = _dropped(shape[0], dropout, generator)
    noise = torch.randn(*shape, generator=generator)
    first, second = (torch.sigmoid(torch.randn(shape[0], generator=generator) * sigma + mu) for _ in range(2))
    return Draw(noise, torch.maximum(first, second), dropped)


def noisy(target: Tensor, draw: Draw) -> Tensor:
    """t·noise + (1 − t)·target for target [B, T, 64]."""
    t = draw.t[:, None, None]
    return t * draw.noise + (1 - t) * target


def unconditional(conditions: Tensor, null: Tensor, dropped: Tensor) -> Tensor:
    """Conditions [B, L, E] with every position of the ``dropped`` rows replaced by the null condition [1, 1, E]."""
    return torch.where(dropped[:, None, None], null.to(conditions), conditions)


def row_losses(velocity: Tensor, target: Tensor, draw: Draw) -> Tensor:
    """Mean squared error of the velocity for each row, [B], in float32."""
    return (velocity.float() - (draw.noise - target)).square().mean(dim=(1, 2))


def snr_weights(t: Tensor, gamma: float) -> Tensor:
    """min(snr, γ) / snr with snr = ((1 − t) / t)² for levels t [B]."""
    t = t.clamp(SMALLEST, 1 - SMALLEST)
    snr = ((1 - t) / t).square()
    return snr.clamp(max=gamma) / snr


Decoder = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x, context, conditions, t) → velocity, as :meth:`DiT.forward`."""


def batch_losses(
    decoder: Decoder,
    target: Tensor,
    context: Tensor,
    conditions: Tensor,
    null: Tensor,
    draw: Draw,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Losses [B] of one pass.

    Args:
        target: clean latents [B, T, 64], float32. context: [B, T, 128]. conditions: [B, L, E].
        null: the null condition [1, 1, E]. dtype: what the decoder computes in.
    """
    heard = unconditional(conditions.to(dtype), null, draw.dropped)
    velocity = decoder(noisy(target, draw).to(dtype), context.to(dtype), heard, draw.t)
    return row_losses(velocity, target, draw)

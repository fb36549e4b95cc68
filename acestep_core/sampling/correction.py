"""Corrections applied around a step: velocity clamp and average, wavelet correction, keeping what is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .settings import SamplerSettings


def clamp_velocity(v: Tensor, x: Tensor, threshold: float) -> Tensor:
    """Limit ‖v‖ to threshold·‖x‖, norms over time and channels of each item; 0 is off."""
    if threshold <= 0:
        return v
    size = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-10
    speed = torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True) + 1e-10
    return v * torch.clamp(threshold * size / speed, max=1.0)


def blend_velocity(v: Tensor, before: Tensor | None, factor: float) -> Tensor:
    """(1 − f)·v + f·v of the step before; 0 is off."""
    return v if before is None or factor <= 0 else (1 - factor) * v + factor * before


def wavelet_correction(x: Tensor, clean: Tensor, t: float, settings: SamplerSettings) -> Tensor:
    """Push x [B, T, C] away from the predicted ``clean``, band by band of a one-level Haar transform in time.

    Closed form for pairs of frames: with D = x − clean, half sum s and half difference r of a pair, the pair
    moves by low·s ± high·r. low fades with t, high grows as t falls.
    """
    mode = settings.correction
    if mode == "off":
        return x
    if mode == "pix":
        return x + settings.scaler * (x - clean)
    low = t * settings.scaler if mode in ("low", "double") else 0.0
    high = (1 - t) * (settings.scaler if mode == "high" else settings.high_scaler) if mode != "low" else 0.0
    gap = (x - clean).float()
    frames = gap.shape[1]
    pairs = F.pad(gap, (0, 0, 0, frames % 2)).unflatten(1, (-1, 2))
    total, difference = (pairs[:, :, 0] + pairs[:, :, 1]) / 2, (pairs[:, :, 0] - pairs[:, :, 1]) / 2
    moved = torch.stack((low * total + high * difference, low * total - high * difference), dim=2)
    return x + moved.flatten(1, 2)[:, :frames].to(x.dtype)


@dataclass(frozen=True)
class Keep:
    """What a repaint keeps.

    Attributes:
        mask: [B, T] true where music is made anew.
        clean: [B, T, 64] latents of the source.
        injection: share of the steps after which the kept part is put back at the step's noise level.
        crossfade: frames over which the result blends into the source outside the region at the end.
    """

    mask: Tensor
    clean: Tensor
    injection: float = 0.5
    crossfade: int = 10

    def inject(self, x: Tensor, noise: Tensor, step: int, steps: int, level: float) -> Tensor:
        """After ``step`` of ``steps``: outside the mask, the source at noise ``level`` with the first noise."""
        if step >= round(self.injection * steps):
            return x
        kept = level * noise + (1 - level) * self.clean
        return torch.where(self.mask[..., None], x, kept.to(x.dtype))

    def blend(self, x: Tensor) -> Tensor:
        """At the end: x inside, the source outside, a linear ramp between."""
        if self.crossfade <= 0:
            return x
        weight = ramp(self.mask, self.crossfade).to(x.dtype)[..., None]
        return weight * x + (1 - weight) * self.clean.to(x.dtype)


def ramp(mask: Tensor, frames: int) -> Tensor:
    """Soft form of ``mask`` [B, T]: 1 from the first to the last true frame as marked, ramps outside.

    A ramp has up to ``frames`` frames and is shortened where the sequence ends; rows that are all true or
    all false stay as they are.
    """
    soft = mask.float()
    if frames <= 0:
        return soft
    for row in soft:
        inside = row.nonzero().flatten()
        if len(inside) in (0, len(row)):
            continue
        first, last = int(inside[0]), int(inside[-1]) + 1
        before, after = min(frames, first), min(frames, len(row) - last)
        if before:
            row[first - before : first] = torch.linspace(0, 1, before + 2, device=row.device)[1:-1]
        if after:
            row[last : last + after] = torch.linspace(1, 0, after + 2, device=row.device)[1:-1]
    return soft

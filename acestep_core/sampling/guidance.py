"""Guidance: from the velocities with and without conditions to the one that is followed.

Velocities and latents are [B, T, 64]. A guide is called once an evaluation; those with memory (the
momentum of apg) live for one run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .settings import SamplerSettings

Guide = Callable[[Tensor, Tensor, Tensor, float, bool], Tensor]
"""(conditional velocity, unconditional velocity, latents, noise level, is Heun's second look) → velocity."""

ANGLE_CLIP = {"adg": 3.14 / 6, "adg_w_norm": 3.14 / 3, "adg_wo_clip": None}
TIME = 1


def cfg(v_cond: Tensor, v_null: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: v_null + scale·(v_cond − v_null)."""
    return v_null + scale * (v_cond - v_null)


class AdaptiveProjection:
    """Adaptive projected guidance over time: the part of the difference along v_cond is left out.

    Per sample and channel: momentum over the run, norm limited to ``threshold`` (0 is no limit), the
    parallel part weighted by ``eta`` (Sadat et al. 2024, "Eliminating oversaturation").
    """

    def __init__(self, scale: float, eta: float, threshold: float, momentum: float):
        self.scale, self.eta, self.threshold, self.momentum = scale, eta, threshold, momentum
        self.running: Tensor | None = None

    def __call__(self, v_cond: Tensor, v_null: Tensor, x: Tensor, t: float, corrector: bool) -> Tensor:
        if corrector:
            return cfg(v_cond, v_null, self.scale)
        gap = v_cond - v_null
        if self.momentum:
            gap = gap if self.running is None else gap + self.momentum * self.running
            self.running = gap
        if self.threshold > 0:
            norm = torch.linalg.vector_norm(gap, dim=TIME, keepdim=True)
            gap = gap * torch.clamp(self.threshold / norm, max=1.0)
        exact = torch.float32 if v_cond.device.type == "mps" else torch.float64
        d, direction = gap.to(exact), torch.nn.functional.normalize(v_cond.to(exact), dim=TIME)
        parallel = (d * direction).sum(dim=TIME, keepdim=True) * direction
        update = (d - parallel + self.eta * parallel).to(v_cond.dtype)
        return v_cond + (self.scale - 1) * update


class AngleGuidance:
    """Angle-domain guidance: turn the predicted clean latents of each frame, by at most ``clip`` radians."""

    def __init__(self, scale: float, clip: float | None, keep_norm: bool):
        self.weight = max(scale - 1, 0.0) + 1e-3
        self.scale, self.clip, self.keep_norm = scale, clip, keep_norm

    def __call__(self, v_cond: Tensor, v_null: Tensor, x: Tensor, t: float, corrector: bool) -> Tensor:
        if t <= 0:
            return cfg(v_cond, v_null, self.scale)
        x, clean, other = x.float(), x.float() - t * v_cond.float(), x.float() - t * v_null.float()
        cosine = torch.nn.functional.cosine_similarity(clean, other, dim=-1).clamp(-1 + 1e-6, 1 - 1e-6)[..., None]
        angle = torch.acos(cosine)
        turned = self.weight * angle
        if self.clip is not None:
            turned = turned.clamp(-self.clip, self.clip)
        gap = clean - other
        square = (other * other).sum(dim=-1, keepdim=True)
        across = gap - (gap * other).sum(dim=-1, keepdim=True) / (square + 1e-8) * other
        sine = torch.sin(angle)
        stretch = torch.where(sine > 1e-3, torch.sin(turned) / sine, torch.full_like(sine, self.weight))
        result = torch.cos(turned) * clean + across * stretch
        if self.keep_norm:
            result = result * (clean.norm(dim=TIME, keepdim=True) / result.norm(dim=TIME, keepdim=True))
        return ((x - result) / t).to(v_cond.dtype)


def make_guide(settings: SamplerSettings) -> Guide | None:
    """The guide of resolved ``settings``, new for each run; None where guidance is off (scale 1)."""
    scale = settings.guidance_scale
    if scale <= 1:
        return None
    if settings.guidance == "cfg":
        return lambda v_cond, v_null, x, t, corrector: cfg(v_cond, v_null, scale)
    if settings.guidance == "apg":
        return AdaptiveProjection(scale, settings.eta, settings.norm_threshold, settings.momentum)
    clip = ANGLE_CLIP[settings.guidance]
    if clip is not None and settings.angle_clip:
        clip = min(settings.angle_clip, math.pi)
    return AngleGuidance(scale, clip, settings.guidance == "adg_w_norm")

"""The sampling loop: latents from noise, one run of one batch whose conditions have equal length.

Convention: x_t = t·noise + (1 − t)·music, t from 1 to 0; the model predicts v = noise − music, so
music = x_t − t·v and an Euler step is x ← x − v·(t − t').
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..host import Progress
from ..models.dit import DiT, Prepared, Velocity
from .correction import Keep, blend_velocity, clamp_velocity, wavelet_correction
from .guidance import make_guide
from .schedules import start_from
from .settings import SamplerSettings

ROUNDING = 1e-6
"""Levels are rounded to float32, the ends of the guided interval are not: both count as within it."""


@dataclass(frozen=True)
class Conditions:
    """One side of a run: packed sequence [B, L, E] and context [B, T, 128] (source latents, chunk mask)."""

    sequence: Tensor
    context: Tensor


@dataclass(frozen=True)
class Edit:
    """What a flow edit needs besides: see :mod:`flow_edit`.

    Attributes:
        conditions: of the source as it is.
        start, end: shares of the steps, 0 ≤ start ≤ end ≤ 1, start below 1. draws: noises that each step averages.
    """

    conditions: Conditions
    start: float = 0.0
    end: float = 1.0
    draws: int = 1


@dataclass(frozen=True)
class Run:
    """Everything one run needs besides the model.

    Attributes:
        noise: [B, T, 64] at level 1.
        conditions: followed from the start. later: followed from step int(steps·strength) on, if given.
        strength: share of the steps that follow ``conditions``.
        source: clean latents to start from where noise_strength > 0. noise_strength: 0 starts from noise.
        keep: what a repaint keeps.
        fresh: noise after a step, for sde. renoise: levels it is added at, where they differ from the schedule.
        edit: for :mod:`flow_edit`, which sampling then is. draws: new noise [B, T, 64] at every call, for it.
    """

    noise: Tensor
    conditions: Conditions
    later: Conditions | None = None
    strength: float = 1.0
    source: Tensor | None = None
    noise_strength: float = 0.0
    keep: Keep | None = None
    fresh: Callable[[int], Tensor] | None = None
    renoise: Sequence[float] | None = None
    edit: Edit | None = None
    draws: Callable[[], Tensor] | None = None


def run(
    dit: DiT,
    null: Tensor,
    task: Run,
    levels: list[float],
    settings: SamplerSettings,
    *,
    closing_euler: bool = False,
    bar: Progress | None = None,
    velocity: Velocity | None = None,
) -> Tensor:
    """Sample latents [B, T, 64] in float32.

    Args:
        dit, null: decoder and null condition [1, 1, E] of one model.
        levels: schedule from :mod:`schedules`, closing level included.
        settings: resolved (no auto).
        closing_euler: Heun's last step is plain Euler (turbo models).
        bar: counts the steps and stops the run when the user cancels.
        velocity: another way to run ``dit.velocity``, see :mod:`pace`.
    """
    levels = start_from(levels, task.noise_strength)
    steps = len(levels) - 1
    switch = int(steps * task.strength) if task.later is not None else steps

    def side(step: int) -> Conditions:
        return task.later if step >= switch and task.later is not None else task.conditions

    follow = Guided(dit, null, side, levels, settings, velocity)

    noise = task.noise.float()
    x = noise
    if task.noise_strength > 0:
        if task.source is None:
            raise ValueError("A noise strength above 0 needs source latents to start from.")
        x = levels[0] * noise + (1 - levels[0]) * task.source.to(noise)

    def guided(x: Tensor, t: float, step: int, before: Tensor | None, corrector: bool = False) -> Tensor:
        return blend_velocity(follow(x, t, step, corrector), before, settings.velocity_ema_factor)

    before: Tensor | None = None
    for step, (t, t_next) in enumerate(zip(levels, levels[1:], strict=False)):
        last = step == steps - 1
        v = first_v = guided(x, t, step, before)
        clean = x - t * first_v
        if settings.method == "sde":
            level = t_next if task.renoise is None else task.renoise[step]
            x = clean if level <= 0 else level * task.fresh(step).to(x) + (1 - level) * clean
        else:
            if settings.solver == "heun" and not (last and closing_euler):
                ahead = x - v * (t - t_next)
                v = (v + guided(ahead, t_next, step, first_v, corrector=True)) / 2
            x = x - v * (t - t_next)
        if not (last and closing_euler):
            x = wavelet_correction(x, clean, t, settings)
            if task.keep is not None:
                x = task.keep.inject(x, noise, step, steps, t_next)
        before = v
        if bar is not None:
            bar.update(step + 1)
    check_finite(x, dit)
    return task.keep.blend(x) if task.keep is not None else x


class Guided:
    """The velocity that one run follows, as a function of x, t and step: guided and limited.

    What is constant is prepared once for each side of conditions.
    """

    def __init__(
        self,
        dit: DiT,
        null: Tensor,
        side: Callable[[int], Conditions],
        levels: Sequence[float],
        settings: SamplerSettings,
        velocity: Velocity | None = None,
    ):
        self.dit, self.velocity, self.side, self.settings = dit, velocity or dit.velocity, side, settings
        self.guide = make_guide(settings)
        self.null = null if self.guide else None
        self.wanted = tuple(dict.fromkeys(levels))
        self.current: Conditions | None = None
        self.ready: Prepared | None = None
        self.levels: dict[float, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, t: float, step: int, corrector: bool = False) -> Tensor:
        start, end = self.settings.cfg_interval_start, self.settings.cfg_interval_end
        active = self.guide is not None and start - ROUNDING <= t <= end + ROUNDING
        v, v_null = self._evaluate(x, t, step, active)
        if active:
            v = self.guide(v, v_null, x, t, corrector)
        return clamp_velocity(v, x, self.settings.velocity_norm_threshold)

    def _evaluate(self, x: Tensor, t: float, step: int, guided: bool) -> tuple[Tensor, Tensor | None]:
        side = self.side(step)
        if side is not self.current:
            self.ready = None
            self.ready = self.dit.begin(side.context, side.sequence, self.null)
            self.current = side
        if not self.levels:
            every = torch.tensor(self.wanted, device=x.device, dtype=torch.float32)
            embedding, modulation = self.dit.levels(every, self.ready)
            self.levels = {u: (embedding[i : i + 1], modulation[i : i + 1]) for i, u in enumerate(self.wanted)}
        v, v_null = self.velocity(x, self.levels[t], self.ready, guided)
        return v.float(), None if v_null is None else v_null.float()


def check_finite(x: Tensor, dit: DiT) -> None:
    """Stop with the likely causes where a run produced NaN or infinity."""
    if not bool(torch.isfinite(x).all()):
        weight = dit.scale_shift_table
        raise FloatingPointError(
            f"Sampling produced NaN or infinity ({weight.dtype} on {weight.device}). Usual causes: float16 weights "
            "(choose bf16 or fp32 on the loader), or an adapter or checkpoint of another model."
        )

"""Flow edit: a recording led from one description to another, along the difference of their velocities.

Kulikov et al. 2024 (FlowEdit), as ACE-Step's `edit` has it. In a window of the schedule each step blends noise ε into
the source s and asks for two velocities: of the source under the words that describe it, and of the edited music z
with the same noise under the new words,

    v_was = v(s + t·(ε − s) | was),   v_new = v(z + t·(ε − s) | new),   z ← z + (t' − t)·(v_new − v_was).

What both descriptions say alike cancels out and the recording stays as it is; no step starts from noise. Steps before
the window are left out, which keeps more of the source. Behind it z, with noise blended in once, is sampled as usual
under the new words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..host import Progress
from ..models.dit import DiT, Velocity
from .correction import blend_velocity
from .guidance import AdaptiveProjection
from .loop import Guided, Run, check_finite
from .settings import SamplerSettings


def window(steps: int, start: float, end: float) -> tuple[int, int]:
    """First step that is made, and the first behind the window.

    >>> window(60, 0.6, 1.0)
    (36, 60)
    """
    return int(steps * start), int(steps * end)


def fitting(settings: SamplerSettings) -> tuple[SamplerSettings, tuple[str, ...]]:
    """Resolved settings without what a flow edit cannot use, and sentences on what was changed."""
    notes = []
    for name, allowed, what in (
        ("method", "ode", "takes no sde steps"),
        ("solver", "euler", "takes Euler steps only"),
        ("correction", "off", "has no wavelet correction"),
        ("retake_variance", 0.0, "has no retake: change the seed"),
    ):
        if getattr(settings, name) != allowed:
            settings = replace(settings, **{name: allowed})
            notes.append(f"A flow edit {what}.")
    if settings.guidance_scale > 1 and settings.guidance not in ("apg", "cfg"):
        notes.append(f"A flow edit knows the guidances apg and cfg: {settings.guidance} became apg.")
        settings = replace(settings, guidance="apg")
    return settings, tuple(notes)


def run(
    dit: DiT,
    null: Tensor,
    task: Run,
    levels: Sequence[float],
    settings: SamplerSettings,
    *,
    bar: Progress | None = None,
    velocities: Sequence[Velocity | None] = (None, None),
) -> Tensor:
    """Edit ``task.source`` [B, T, 64] from ``task.edit.conditions`` to ``task.conditions``; float32.

    Args:
        levels, bar: as of :func:`loop.run`; steps before the window count as made.
        velocities: ways to run ``dit.velocity`` for the source's and for the new conditions, see :mod:`pace`.
        settings: resolved and :func:`fitting`.

    Raises:
        ValueError: there is no source, or nothing to draw from.
    """
    edit, steps = task.edit, len(levels) - 1
    if edit is None or task.source is None or task.draws is None:
        raise ValueError("A flow edit needs a source, the conditions it is described by, and noise.")
    first, last = window(steps, edit.start, edit.end)
    source = task.source.float()
    was = Guided(dit, null, lambda step: edit.conditions, levels, settings, velocities[0])
    new = Guided(dit, null, lambda step: task.conditions, levels, settings, velocities[1])
    v_was = v_new = None
    x = source
    for step in range(first, steps):
        t, t_next = levels[step], levels[step + 1]
        if step < last:
            blends = [t * (task.draws().to(source) - source) for _ in range(edit.draws)]
            v_was = _mean(was, [source + blend for blend in blends], t, step, v_was)
            v_new = _mean(new, [x + blend for blend in blends], t, step, v_new)
            x = x + (t_next - t) * (v_new - v_was)
        else:
            if step == max(first, last):
                x = x + t * (task.draws().to(source) - source)
            v_new = _mean(new, [x], t, step, v_new)
            x = x + (t_next - t) * v_new
        if bar is not None:
            bar.update(step + 1)
    check_finite(x, dit)
    return x


def _mean(follow: Guided, points: Sequence[Tensor], t: float, step: int, before: Tensor | None) -> Tensor:
    """Mean velocity at ``points``. All see the momentum of the step before; it moves on once, by their mean."""
    memory, velocities, after = _momentum(follow), [], []
    for x in points:
        _remember(follow, memory)
        velocities.append(follow(x, t, step))
        after.append(_momentum(follow))
    if after[0] is not memory:
        _remember(follow, _average([m for m in after if m is not None]))
    return blend_velocity(_average(velocities), before, follow.settings.velocity_ema_factor)


def _average(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).mean(dim=0)


def _momentum(follow: Guided) -> Tensor | None:
    return follow.guide.running if isinstance(follow.guide, AdaptiveProjection) else None


def _remember(follow: Guided, memory: Tensor | None) -> None:
    if isinstance(follow.guide, AdaptiveProjection):
        follow.guide.running = memory

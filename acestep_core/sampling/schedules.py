"""Noise levels of a run, from 1 (noise) to 0 (music). The last entry of a schedule is where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from .settings import TURBO_MAX_STEPS

Level = TypeVar("Level", float, torch.Tensor)

TURBO_SHIFTS = (1.0, 2.0, 3.0)
TURBO_STEPS = 8


def shifted(u: Level, shift: float) -> Level:
    """shift·u / (1 + (shift − 1)·u)."""
    return shift * u / (1 + (shift - 1) * u)


def _nearest(value: float, choices: Sequence[float]) -> float:
    return min(choices, key=lambda choice: abs(choice - value))


def turbo_levels() -> tuple[float, ...]:
    """The 20 levels that turbo models were distilled on, falling."""
    found = {round(shifted(1 - i / TURBO_STEPS, s), 12) for s in TURBO_SHIFTS for i in range(TURBO_STEPS)}
    return tuple(sorted(found, reverse=True))


def turbo_schedule(shift: float = 3.0, steps: int | None = None, timesteps: Sequence[float] = ()) -> list[float]:
    """Levels for a turbo model, closing with 0.

    Without ``steps``: the fixed table of eight for the nearest of shifts 1, 2, 3. With ``steps`` (at most
    20): the same formula with the shift as given. With ``timesteps``: each moved to the nearest level the
    model was distilled on.
    """
    levels = list(timesteps)
    while levels and levels[-1] == 0:
        levels.pop()
    if levels:
        known = turbo_levels()
        return [_nearest(t, known) for t in levels[:TURBO_MAX_STEPS]] + [0.0]
    if steps is None:
        steps, shift = TURBO_STEPS, _nearest(shift, TURBO_SHIFTS)
    steps = min(steps, TURBO_MAX_STEPS)
    return [shifted(1 - i / steps, shift) for i in range(steps)] + [0.0]


def base_schedule(shift: float = 1.0, steps: int = 32, timesteps: Sequence[float] = ()) -> list[float]:
    """Levels for a base or sft model: evenly spaced and shifted, or ``timesteps`` word for word."""
    if timesteps:
        return [float(t) for t in timesteps]
    even = torch.linspace(1.0, 0.0, steps + 1)  # float32 as in the original: the embedding sees the last bit
    return (even if shift == 1 else shifted(even, shift)).tolist()


def schedule(kind: str, shift: float, steps: int | None, timesteps: Sequence[float] = ()) -> list[float]:
    """Levels for a model of ``kind``."""
    if kind == "turbo":
        return turbo_schedule(shift, steps, timesteps)
    return base_schedule(shift, steps or 32, timesteps)


def moved(levels: Sequence[float], timesteps: Sequence[float]) -> str:
    """A sentence where own ``timesteps`` were not taken word for word; else nothing."""
    asked = [t for t in timesteps if t > 0][: len(levels) - 1]
    if all(abs(a - b) < 5e-4 for a, b in zip(asked, levels, strict=False)):
        return ""
    shown = ", ".join(f"{level:.4g}" for level in levels)
    return f"Turbo models know {len(turbo_levels())} noise levels: the timesteps were moved to {shown}."


def start_from(levels: list[float], noise_strength: float) -> list[float]:
    """Cut the beginning so that the schedule starts at the level nearest to 1 − noise_strength.

    With noise_strength 0 nothing is cut. The first of two equally near levels wins.
    """
    if noise_strength <= 0:
        return levels
    start = _nearest(1 - noise_strength, levels[:-1])
    return levels[levels.index(start) :]

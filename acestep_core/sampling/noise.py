"""Seeds to noise. Each item has its own generator, so its noise never depends on its neighbours."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .settings import SEED_MAX, listed_seeds, parse_seeds


def seeds_of(seed: object, count: int) -> list[int]:
    """Seeds of ``count`` items, from what :func:`parse_seeds` takes.

    What is to be drawn is drawn once, here, so that it can be shown and used again. Missing ones follow from the
    others, so a saved workflow repeats as a whole.
    """
    fresh = random.SystemRandom()
    listed = parse_seeds(seed, min(count, len(listed_seeds(seed))))
    settled = [fresh.randint(0, SEED_MAX) if one is None else one for one in listed]
    follow = random.Random(repr(settled)) if settled else fresh
    return settled + [follow.randint(0, SEED_MAX) for _ in range(count - len(settled))]


def without_seed(seeds: Sequence[int], unwanted: int) -> list[int]:
    """``seeds`` with another one wherever it is ``unwanted``; which one follows from the seeds."""
    draw = random.Random(repr([*seeds, unwanted]))
    taken, found = {*seeds, unwanted}, []
    for seed in seeds:
        while seed == unwanted:
            drawn = draw.randint(0, SEED_MAX)
            seed = drawn if drawn not in taken else unwanted
        taken.add(seed)
        found.append(seed)
    return found


def draw_noise(
    seeds: Sequence[int],
    frames: int,
    channels: int,
    source: str = "cpu",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise [len(seeds), frames, channels], one generator an item.

    ``source`` cpu draws float32 on the CPU (the same on every machine); device draws in ``dtype`` on
    ``device``, as the original does. The result lies on ``device`` in float32.
    """
    return draws(seeds, frames, channels, source, device, dtype)()


def draws(
    seeds: Sequence[int],
    frames: int,
    channels: int,
    source: str = "cpu",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Callable[[], Tensor]:
    """As :func:`draw_noise`, as a function that gives new noise at every call."""
    place = torch.device(device) if source == "device" else torch.device("cpu")
    kind = dtype if source == "device" else torch.float32
    generators = [torch.Generator(place).manual_seed(int(seed)) for seed in seeds]

    def draw() -> Tensor:
        rows = [torch.randn((1, frames, channels), generator=g, device=place, dtype=kind) for g in generators]
        return torch.cat(rows).to(device, torch.float32)

    return draw


def retake(noise: Tensor, other: Tensor, variance: float) -> Tensor:
    """cos(π/2·v)·noise + sin(π/2·v)·other: a variation of the same piece, v from 0 (same) to 1 (other)."""
    angle = variance * math.pi / 2
    return math.cos(angle) * noise + math.sin(angle) * other


def fresh_noise(seeds: Sequence[int], like: Tensor) -> Callable[[int], Tensor]:
    """Noise for the steps of the sde method: a function of the step, seeded by item and step."""

    def at(step: int) -> Tensor:
        mixed = [random.Random(f"{seed}/{step}").randint(0, 2**63 - 1) for seed in seeds]
        return draw_noise(mixed, like.shape[1], like.shape[2], device=like.device).to(like.dtype)

    return at

"""Every sampler setting: its default, its range, and what ``auto`` means for a model. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

METHODS = ("ode", "sde")
SOLVERS = ("euler", "heun")
GUIDANCES = ("apg", "cfg", "adg", "adg_w_norm", "adg_wo_clip")
CORRECTIONS = ("off", "low", "high", "double", "pix")
NOISE_SOURCES = ("cpu", "device")

STEPS_RANGE = (1, 200)
TURBO_MAX_STEPS = 20
SHIFT_RANGE = (1.0, 5.0)
GUIDANCE_RANGE = (1.0, 15.0)
NORM_THRESHOLD_RANGE = (0.0, 5.0)
EMA_RANGE = (0.0, 0.5)
SEED_MAX = 2**32 - 1
BATCH_RANGE = (1, 8)
LATENT_SHIFT_RANGE, LATENT_RESCALE_RANGE = (-0.2, 0.2), (0.5, 1.5)
"""What latents may be changed by before they are decoded, as the original offers it."""
WINDOW_RANGE = (64, 4096)
"""Latent frames that are decoded or encoded at once: shorter ones would hear too little of their neighbours."""
DRAWS_RANGE = (1, 8)
HEARS = ("words", "structure", "sound")
"""What a flow edit hears of its source besides: nothing, its codes (as a remix does), its latents."""

AUTO = {
    "turbo": {"steps": 8, "shift": 3.0, "guidance_scale": 1.0},
    "sft": {"steps": 50, "shift": 3.0, "guidance_scale": 7.0},
    "base": {"steps": 32, "shift": 3.0, "guidance_scale": 7.0},
}
"""What 0 (auto) becomes for each kind of model: what the original's page sets when such a model is chosen."""


@dataclass(frozen=True)
class SamplerSettings:
    """How latents are made from noise. 0 means auto for steps, shift and guidance_scale.

    Attributes:
        steps: model evaluations (Heun uses two a step). shift: warps the noise levels towards the start.
        guidance_scale: how strongly the conditions are followed; turbo models have it built in.
        guidance: apg, cfg, adg, adg_w_norm, adg_wo_clip.
        eta, norm_threshold, momentum: of apg. angle_clip: of adg, radians; 0 for its own default.
        cfg_interval_start, cfg_interval_end: guide only at noise levels within, 1 being the start of sampling.
        method: ode, or sde (fresh noise after each step). solver: euler or heun (ode only).
        timesteps: own noise levels, falling, in place of steps and shift.
        velocity_norm_threshold, velocity_ema_factor: 0 is off.
        correction: wavelet correction; scaler for its low (or only) band, high_scaler for the high one.
        retake_variance: 0 to 1, mixes in noise of retake_seed.
        noise: cpu (float32, the same on every machine) or device (as the original draws it).
    """

    steps: int = 0
    shift: float = 0.0
    guidance_scale: float = 0.0
    guidance: str = "apg"
    eta: float = 0.0
    norm_threshold: float = 2.5
    momentum: float = -0.75
    angle_clip: float = 0.0
    cfg_interval_start: float = 0.0
    cfg_interval_end: float = 1.0
    method: str = "ode"
    solver: str = "euler"
    timesteps: tuple[float, ...] = ()
    velocity_norm_threshold: float = 0.0
    velocity_ema_factor: float = 0.0
    correction: str = "off"
    scaler: float = 0.05
    high_scaler: float = 0.02
    retake_variance: float = 0.0
    retake_seed: int = 0
    noise: str = "cpu"

    def __post_init__(self) -> None:
        problem = self.problem()
        if problem:
            raise ValueError(problem)

    def problem(self) -> str | None:
        """The first value out of range, in a sentence; None when all are fine."""
        ranges = {
            "steps": (*STEPS_RANGE, True),
            "shift": (*SHIFT_RANGE, True),
            "guidance_scale": (*GUIDANCE_RANGE, True),
            "cfg_interval_start": (0.0, 1.0, False),
            "cfg_interval_end": (0.0, 1.0, False),
            "velocity_norm_threshold": (*NORM_THRESHOLD_RANGE, False),
            "velocity_ema_factor": (*EMA_RANGE, False),
            "retake_variance": (0.0, 1.0, False),
            "retake_seed": (0, SEED_MAX, False),
            "eta": (0.0, 1.0, False),
            "norm_threshold": (0.0, 100.0, False),
            "momentum": (-1.0, 1.0, False),
            "angle_clip": (0.0, math.pi, False),
            "scaler": (0.0, 1.0, False),
            "high_scaler": (0.0, 1.0, False),
        }
        for name, (low, high, auto) in ranges.items():
            value = getattr(self, name)
            if not _is_number(value):
                return f"{name} is {_shown(value)}; it must be a number."
            if not low <= value <= high and not (auto and value == 0):
                return f"{name} is {value:g}; allowed is {low:g} to {high:g}{', or 0 for auto' if auto else ''}."
        if not isinstance(self.steps, int):
            return f"steps is {self.steps!r}; it must be a whole number."
        for name, allowed in (
            ("guidance", GUIDANCES),
            ("method", METHODS),
            ("solver", SOLVERS),
            ("correction", CORRECTIONS),
            ("noise", NOISE_SOURCES),
        ):
            if getattr(self, name) not in allowed:
                return f"{name} is {getattr(self, name)!r}; allowed is {', '.join(allowed)}."
        if self.cfg_interval_start > self.cfg_interval_end:
            return (
                f"cfg_interval_start ({self.cfg_interval_start:g}) is above cfg_interval_end "
                f"({self.cfg_interval_end:g}); guidance would never apply."
            )
        levels = self.timesteps
        if any(not isinstance(t, (int, float)) or not 0 <= t <= 1 for t in levels):
            return "timesteps must be numbers from 0 to 1."
        if any(a <= b for a, b in zip(levels, levels[1:], strict=False)):
            return "timesteps must fall: each one below the one before it."
        if levels and levels[0] == 0:
            return "timesteps need at least one value above 0."
        return None


def parse_timesteps(text: str) -> tuple[float, ...]:
    """Comma-separated noise levels, with the closing 0 added where it is missing; empty text is ().

    >>> parse_timesteps("0.97, 0.5, 0.2")
    (0.97, 0.5, 0.2, 0.0)
    """
    parts = [part for part in text.replace(";", ",").replace("\n", ",").split(",") if part.strip()]
    try:
        levels = tuple(float(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"timesteps: {error}. Write numbers from 1 down to 0, separated by commas.") from None
    return levels + (0.0,) if levels and levels[-1] != 0 else levels


def resolve(
    settings: SamplerSettings, kind: str, guidance: float | None = None
) -> tuple[SamplerSettings, tuple[str, ...]]:
    """Settings without ``auto`` for a model of ``kind``, and sentences on what was changed and why.

    ``guidance``: what auto means for the scale of this very model, where it asks for another one than its kind.
    """
    auto, notes = dict(AUTO[kind]), []
    if guidance and kind != "turbo":
        auto["guidance_scale"] = guidance
    chosen = replace(
        settings,
        steps=settings.steps or int(auto["steps"]),
        shift=settings.shift or auto["shift"],
        guidance_scale=settings.guidance_scale or auto["guidance_scale"],
    )
    if kind == "turbo":
        if chosen.guidance_scale != 1.0:
            notes.append(f"Turbo models have guidance built in: scale {chosen.guidance_scale:g} was set to 1.")
        if chosen.steps > TURBO_MAX_STEPS:
            notes.append(f"Turbo models take at most {TURBO_MAX_STEPS} steps: {chosen.steps} was lowered.")
        chosen = replace(chosen, guidance_scale=1.0, steps=min(chosen.steps, TURBO_MAX_STEPS))
        if len(chosen.timesteps) > TURBO_MAX_STEPS + 1:
            notes.append(f"Turbo models take at most {TURBO_MAX_STEPS} timesteps: the rest was left out.")
    if chosen.timesteps and chosen.timesteps[-1] != 0:
        chosen = replace(chosen, timesteps=(*chosen.timesteps, 0.0))
    if chosen.solver == "heun" and chosen.method == "sde":
        notes.append("Heun works with ode only: sde runs with Euler steps.")
        chosen = replace(chosen, solver="euler")
    return chosen, tuple(notes)


def parse_seeds(seed: object, count: int, random: bool = False) -> list[int | None]:
    """Seeds of ``count`` items; None where one is to be drawn.

    ``seed`` is a number, a list of numbers, or text with commas. −1, nothing and unreadable parts mean
    "draw one"; a fraction is cut to its whole part; missing ones are drawn, extra ones ignored.

    Raises:
        ValueError: a number that no generator takes.
    """
    if random or seed is None:
        return [None] * count
    seeds = [_one_seed(part) for part in listed_seeds(seed)][:count]
    return seeds + [None] * (count - len(seeds))


def check_seeds(listed: str) -> None:
    """Raise where a part of ``listed`` is neither a seed nor −1, for which :func:`parse_seeds` draws one.

    Raises:
        ValueError: names the part.
    """
    for part in map(str.strip, listed.split(",")):
        if part not in ("", "-1") and _one_seed(part) is None:
            raise ValueError(f"{part!r} is no seed. Write whole numbers with commas between them, -1 to draw one.")


def listed_seeds(seed: object) -> Sequence[object]:
    """The parts of what :func:`parse_seeds` takes."""
    if seed is None:
        return ()
    if isinstance(seed, str):
        return seed.split(",")
    return seed if isinstance(seed, (list, tuple)) else (seed,)


def _one_seed(part: object) -> int | None:
    try:
        value = int(part)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        try:
            value = int(float(part))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return None
    if not -(2**63) < value < 2**64:
        raise ValueError(f"Seed {part} is too large; allowed is 0 to {SEED_MAX}, or -1 to draw one.")
    return None if value == -1 else value


def check_chunk(chunk: int | None) -> None:
    """Raise unless ``chunk`` is a length of :data:`WINDOW_RANGE`, or 0 or None for one that fits the memory."""
    if chunk:
        low, high = WINDOW_RANGE
        if not low <= require_number("chunk", chunk) <= high:
            raise ValueError(f"chunk is {chunk:g}; allowed is {low} to {high}, or 0 to fit the memory.")


def check_window(start: float, end: float) -> None:
    """Raise where the window of a flow edit, in shares of the steps, is none."""
    require_between("start", start, (0, 1))
    require_between("end", end, (0, 1))
    if start > end:
        raise ValueError(f"start ({start:g}) is above end ({end:g}): the window of the edit would be empty.")
    if start >= 1:
        raise ValueError("start is 1: every step would be left out. 0.6 keeps much of the source.")


def _is_number(value: object) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _shown(value: object) -> str:
    return "too large" if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def require_number(name: str, value: object) -> float:
    """``value`` as a finite float, or a ValueError that names it."""
    if not _is_number(value):
        raise ValueError(f"{name} is {_shown(value)}; it must be a number.")
    return float(value)


def require_between(name: str, value: object, allowed: tuple[float, float]) -> float:
    """``value`` as a finite float within ``allowed``, or a ValueError that names both."""
    low, high = allowed
    if not low <= require_number(name, value) <= high:
        raise ValueError(f"{name} is {value:g}; allowed is {low:g} to {high:g}.")
    return float(value)

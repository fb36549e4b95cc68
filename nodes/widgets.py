"""How widgets are declared: one helper a kind, every widget with a tooltip. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MODEL, TEXT, VAE, LM = "ACESTEP_MODEL", "ACESTEP_TEXT", "ACESTEP_VAE", "ACESTEP_LM"
SONG, REFERENCE, CONDITIONING, RESULT = "ACESTEP_SONG", "ACESTEP_REFERENCE", "ACESTEP_CONDITIONING", "ACESTEP_RESULT"
SOURCE, CODES = "ACESTEP_SOURCE", "ACESTEP_CODES"
SAMPLER_SETTINGS, GUIDANCE_SETTINGS = "ACESTEP_SAMPLER_SETTINGS", "ACESTEP_GUIDANCE_SETTINGS"
PLANNER_SETTINGS = "ACESTEP_PLANNER_SETTINGS"
DATASET, TENSORS, TRAIN_SETTINGS, RUN = "ACESTEP_DATASET", "ACESTEP_TENSORS", "ACESTEP_TRAIN_SETTINGS", "ACESTEP_RUN"
AUDIO, LATENT = "AUDIO", "LATENT"

ROOT = "ACE-Step"
LINKED = float("nan")
"""What IS_CHANGED answers where the name of a file comes through a link and is not known yet: it is looked at anew."""


def socket(kind: str, tooltip: str) -> tuple[str, dict[str, Any]]:
    """An input that only takes a link."""
    return kind, {"tooltip": tooltip}


def whole(default: int, low: int, high: int, tooltip: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "INT", {"default": default, "min": low, "max": high, "tooltip": tooltip, **more}


def number(
    default: float, low: float, high: float, step: float, tooltip: str, **more: Any
) -> tuple[str, dict[str, Any]]:
    options = {"default": default, "min": low, "max": high, "step": step, "round": step / 100}
    return "FLOAT", {**options, "tooltip": tooltip, **more}


def choice(options: Sequence[str], tooltip: str, default: str | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
    first = default if default is not None else options[0]
    return "COMBO", {"options": list(options), "default": first, "tooltip": tooltip, **more}


def text(tooltip: str, default: str = "", multiline: bool = False, **more: Any) -> tuple[str, dict[str, Any]]:
    return "STRING", {"default": default, "multiline": multiline, "tooltip": tooltip, **more}


def switch(default: bool, tooltip: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "BOOLEAN", {"default": default, "tooltip": tooltip, **more}


def problem_of(check: Any, *args: Any, **kwargs: Any) -> bool | str:
    """True where ``check`` accepts its arguments, else its error as a sentence (for VALIDATE_INPUTS)."""
    try:
        check(*args, **kwargs)
    except (ValueError, LookupError, OSError) as error:
        return str(error)
    return True

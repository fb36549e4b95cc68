"""The limits of the present card, applied to a request. Where there is no card, main memory sets none."""

from __future__ import annotations

from dataclasses import replace

from ..host import Host
from ..lm.settings import PlannerSettings
from .estimate import clamp_duration
from .tiers import tier_of


def within_card(host: Host, seconds: float, lm: bool) -> tuple[float, str]:
    """``seconds`` as the card of ``host`` allows them, and a sentence where that is less.

    Args:
        lm: whether the planner takes part.
    """
    memory = host.memory_gb()
    return clamp_duration(seconds, tier_of(memory), memory, lm) if memory else (seconds, "")


def within_plan(host: Host, settings: PlannerSettings) -> PlannerSettings:
    """Settings under which the planner writes no longer piece than the card allows."""
    memory = host.memory_gb()
    longest = min(settings.longest, tier_of(memory).longest_with_lm) if memory else settings.longest
    return settings if longest == settings.longest else replace(settings, longest=longest)

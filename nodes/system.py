"""What this machine can do, and what will be chosen for it."""

from __future__ import annotations

from typing import Any

from ..acestep_core import host
from ..acestep_core.memory import estimate
from ..acestep_core.memory.tiers import TIERS, Tier, named
from .widgets import ROOT, choice

AUTO = "auto"


class System:
    CATEGORY = f"{ROOT}/Load"
    DESCRIPTION = (
        "Shows the graphics card, its memory and its tier, and what follows from it: planner, length, variations at "
        "once, offloading. Choose another tier to see what a smaller or larger card would get."
    )
    SEARCH_ALIASES = ["ace step", "gpu", "vram", "memory", "tier"]
    FUNCTION = "show"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "STRING", "FLOAT")
    RETURN_NAMES = ("report", "tier", "memory_gb")
    OUTPUT_TOOLTIPS = ("Everything, to read", "Name of the tier", "Memory of the card in GB; 0 without a card")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"tier": choice((AUTO, *TIERS), "auto: by the memory of the card. Others: only shown.")}}

    @classmethod
    def IS_CHANGED(cls, tier: str) -> str:
        return f"{host.current().memory_gb():.1f}"

    def show(self, tier: str) -> dict[str, Any]:
        here = host.current()
        memory = here.memory_gb()
        chosen = named(tier, memory)
        text = report(here, chosen, memory)
        return {"ui": {"text": [text]}, "result": (text, chosen.name, memory)}


def report(here: Any, tier: Tier, memory: float) -> str:
    """What a tier means on this machine, to read."""
    card = f"{memory:.1f} GB, {here.free_gb():.1f} GB free" if memory else "none: everything runs on the processor"
    sizes = ", ".join(tier.lm_sizes) or "none"
    planner = f"{tier.lm_recommended} recommended" if tier.lm_recommended else "off by default"
    lines = [
        f"card: {card}",
        f"tier: {tier.name} ({tier.label})",
        f"planner: {planner}; sizes that fit: {sizes}",
        f"longest music: {tier.longest} s, {tier.longest_with_lm} s with the planner",
        f"variations at once: {tier.batch}, {tier.batch_with_lm} with the planner; more are made one after the other",
        f"idle models leave the card: {'yes' if tier.offload else 'no'}",
        f"one minute of turbo music takes about {estimate.total_gb():.1f} GB with everything on the card, "
        f"{estimate.total_gb(lm=tier.lm_recommended or '0.6B'):.1f} GB with the planner",
    ]
    if not memory:
        lines.append("Without a card no length is refused; the limits above are what is comfortable.")
    return "\n".join(lines)

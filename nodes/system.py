"""What this machine can do, and what will be chosen for it."""

from __future__ import annotations

from functools import partial
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
        here = host.current()
        return f"{here.memory_gb():.1f} {here.free_gb():.1f}"

    def show(self, tier: str) -> dict[str, Any]:
        here = host.current()
        memory = here.memory_gb()
        chosen = named(tier, memory)
        text = report(here, chosen, memory)
        return {"ui": {"text": [text]}, "result": (text, chosen.name, memory)}


def sizes_of(precision: str) -> str:
    """What the diffusion models of both sizes take in memory."""
    return ", ".join(f"{estimate.dit_gb(size, precision):.1f} GB ({size})" for size in estimate.DIT_GB)


def report(here: Any, tier: Tier, memory: float) -> str:
    """What a tier means on this machine, to read."""
    card = f"{memory:.1f} GB, {here.free_gb():.1f} GB free" if memory else "none: everything runs on the processor"
    sizes = ", ".join(tier.lm_sizes) or "none"
    total = partial(estimate.total_gb, precision="int8" if tier.int8 else "bf16")
    planner = f"{tier.lm_recommended} recommended" if tier.lm_recommended else "off by default"
    lines = [
        f"card: {card}",
        f"tier: {tier.name} ({tier.label})",
        f"planner: {planner}; sizes that fit: {sizes}",
        f"longest music: {tier.longest} s, {tier.longest_with_lm} s with the planner",
        f"variations at once: {tier.batch}, {tier.batch_with_lm} with the planner; more are made one after the other",
        f"idle models leave the card: {'yes' if tier.offload else 'no'}",
        f"diffusion model: {sizes_of('bf16')} in bf16, {sizes_of('int8')} as int8 or fp8",
        f"precision auto: {'int8 on NVIDIA cards (with torchao), else ' if tier.int8 else ''}bf16 or fp32",
        f"one minute of turbo music takes about {total():.1f} GB with everything on the card, "
        f"{total(lm=tier.lm_recommended or '0.6B'):.1f} GB with the planner",
    ]
    if tier.offload_dit:
        lines.append("a diffusion model that does not fit: its layers wait in main memory and come for their turn")
    if not memory:
        lines.append("Without a card no length is refused; the limits above are what is comfortable.")
    return "\n".join(lines)

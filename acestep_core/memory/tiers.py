"""What a card of a given size can do: one table, from the original's documentation. Imports no torch.

>>> tier_of(7.6).name, tier_of(24).lm_sizes
('tier3', ('0.6B', '1.7B', '4B'))
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger("acestep")

SIMULATE = ("MAX_CUDA_VRAM", "MAX_MPS_VRAM", "MAX_XPU_VRAM")
"""Environment variables that make a card look smaller, in GB; the first that is set counts."""
GIB = 1024**3


@dataclass(frozen=True)
class Tier:
    """Limits and defaults of one class of cards.

    Attributes:
        name, label: as the original names it.
        longest_with_lm, longest: seconds of music at most, with the planner loaded and without.
        batch_with_lm, batch: variations at once at most.
        lm: whether the planner is used by default. lm_sizes: that fit. lm_recommended: "" for none.
        offload: keep what is idle in main memory. offload_dit: the diffusion model too. int8: quantize it.
        compile: what the original switches on; here it is the user's choice.
        lm_quota: GB that the original grants a planner of each size.
    """

    name: str
    label: str
    longest_with_lm: int
    longest: int
    batch_with_lm: int
    batch: int
    lm: bool
    lm_sizes: tuple[str, ...]
    lm_recommended: str
    offload: bool
    offload_dit: bool
    int8: bool
    compile: bool
    lm_quota: Mapping[str, float]

    def longest_for(self, lm: bool) -> int:
        return self.longest_with_lm if lm else self.longest

    def batch_for(self, lm: bool) -> int:
        return self.batch_with_lm if lm else self.batch


_QUOTA = {"0.6B": 3.0, "1.7B": 8.0, "4B": 12.0}
_ROWS = (
    # name, label, longest with LM and without, batch with LM and without, sizes, recommended, offload, DiT too, INT8
    ("tier1", "4 GB or less", 240, 360, 1, 1, (), "", True, True, True),
    ("tier2", "4 to 6 GB", 480, 600, 1, 1, (), "", True, True, True),
    ("tier3", "6 to 8 GB", 480, 600, 2, 2, ("0.6B",), "0.6B", True, True, True),
    ("tier4", "8 to 12 GB", 480, 600, 2, 4, ("0.6B",), "0.6B", True, True, True),
    ("tier5", "12 to 16 GB", 480, 600, 4, 4, ("0.6B", "1.7B"), "1.7B", True, False, True),
    ("tier6a", "16 to 20 GB", 480, 600, 4, 8, ("0.6B", "1.7B"), "1.7B", True, False, True),
    ("tier6b", "20 to 24 GB", 480, 480, 8, 8, ("0.6B", "1.7B", "4B"), "1.7B", False, False, False),
    ("unlimited", "more than 24 GB", 600, 600, 8, 8, ("0.6B", "1.7B", "4B"), "4B", False, False, False),
)
TIERS = {
    row[0]: Tier(*row[:6], bool(row[6]), *row[6:], compile=True, lm_quota={size: _QUOTA[size] for size in row[6]})
    for row in _ROWS
}
ALIASES = {"tier6": "tier6b"}


def tier_of(memory_gb: float) -> Tier:
    """The tier of a card with ``memory_gb`` GB (of 1024³ bytes). Cards sold as 16 GB report from 15.5."""
    bounds = (("tier1", 4), ("tier2", 6), ("tier3", 8), ("tier4", 12))
    for name, most in bounds:
        if memory_gb <= most:
            return TIERS[name]
    if memory_gb < 15.5:
        return TIERS["tier5"]
    if memory_gb < 20:
        return TIERS["tier6a"]
    return TIERS["tier6b"] if memory_gb <= 24 else TIERS["unlimited"]


def named(name: str, memory_gb: float) -> Tier:
    """The tier ``name``, or that of the memory for ``auto``.

    Raises:
        ValueError: no such tier.
    """
    if name == "auto":
        return tier_of(memory_gb)
    found = TIERS.get(ALIASES.get(name, name))
    if found is None:
        raise ValueError(f"There is no tier {name!r}; allowed is auto, {', '.join(TIERS)}.")
    return found


def simulated() -> float | None:
    """GB that the environment makes of the card; None where it says nothing that is a number."""
    for name in SIMULATE:
        text = os.environ.get(name)
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value > 0:
            return value
        log.warning("%s is %r, which is no number of GB; it is ignored.", name, text)
    return None


def lm_size_of(name: str) -> str:
    """The size of a planner by the name of its file or folder: 0.6B where nothing is said."""
    return next((size for size in ("0.6B", "1.7B", "4B") if size.lower() in name.lower()), "0.6B")


def best_planner(names: list[str], tier: Tier) -> str | None:
    """The planner to take among the files ``names``: of the recommended size, else the largest that fits, else None.

    Of several with the same size, the longest name: suffixed names are newer.
    """
    order = dict.fromkeys((tier.lm_recommended, *reversed(tier.lm_sizes)))
    for size in order:
        fitting = [name for name in names if lm_size_of(name) == size]
        if fitting:
            return max(fitting, key=len)
    return None

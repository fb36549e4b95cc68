"""How much memory a request takes, and how many pieces fit at once. GB of 1024³ bytes. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from .tiers import GIB, Tier, tier_of

DIT_GB = {"2B": 4.7, "XL": 9.0}
"""In bf16, as the original counts."""
DIT_WEIGHTS = {
    "2B": (2_393_872_518, 1_509_949_440, 2_315_255_808),
    "XL": (4_987_310_726, 4_068_474_880, 4_873_781_248),
}
"""Parameters of a diffusion checkpoint; of those, in the matrices of the decoder's layers, and of all layers."""
DIT_ROWS = {"2B": 638_976, "XL": 1_261_568}
"""Rows of the matrices of the decoder's layers, each with a scale of four bytes where they are quantized on load."""
PACKED_BITS = {"fp8 file": 8.0, "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K_M": 5.66, "Q4_K_M": 4.81}
"""Bits a weight in the matrices of all layers, of files that hold them packed. The K_M mixtures of acestep.cpp have
6.5625 in ``v_proj`` and ``down_proj`` of the first ninth of the layers, the last seventh, and every third between."""
VAE_GB, TEXT_GB, SILENCE_GB, CONTEXT_GB = 0.33, 1.2, 0.01, 0.5
LM_GB = {"0.6B": 1.2, "1.7B": 3.4, "4B": 8.0}
LM_CACHE_GB = {"0.6B": 0.6, "1.7B": 1.0, "4B": 1.6}
"""Keys and values of 4096 tokens."""
ACTIVATION_GB = {"turbo": 0.3, "base": 0.6, "XL turbo": 0.5, "XL base": 1.0}
"""Of one piece of a minute; base is with guidance."""
UNKNOWN_ACTIVATION_GB = 0.8
MARGIN_GB = 0.5
LM_RESERVE_GB, LM_SHARE_MARGIN_GB, GRAPH_GB = 1.5, 0.5, 0.3
GUARD_RESERVE_GB = 1.5


def activation_gb(kind: str) -> float:
    """Working memory of one piece; sft counts as base."""
    return ACTIVATION_GB.get(kind.replace("sft", "base"), UNKNOWN_ACTIVATION_GB)


def dit_gb(size: str = "2B", precision: str = "bf16") -> float:
    """A diffusion model in memory, from the shapes of its tensors; what is not quantized is in bf16.

    Args:
        size: 2B or XL. precision: bf16, fp32, int8 or fp8 (the decoder quantized on load), or one of
            :data:`PACKED_BITS` (a file whose matrices stay packed).
    """
    everything, decoder, layers = DIT_WEIGHTS[size]
    if precision in ("bf16", "fp32"):
        return everything * (4 if precision == "fp32" else 2) / GIB
    if precision in ("int8", "fp8"):
        return (decoder + 4 * DIT_ROWS[size] + 2 * (everything - decoder)) / GIB
    return (layers * PACKED_BITS[precision] / 8 + 2 * (everything - layers)) / GIB


def total_gb(
    kind: str = "turbo", batch: int = 1, seconds: float = 60.0, lm: str = "", precision: str = "bf16"
) -> float:
    """Everything on the card at once: ``kind`` is turbo, sft or base, with ``XL `` in front for XL models.

    ``precision`` is that of the diffusion model, as in :func:`dit_gb`; bf16 counts as the original counts it.
    """
    size = "XL" if kind.startswith("XL") else "2B"
    weights = (DIT_GB[size] if precision == "bf16" else dit_gb(size, precision)) + VAE_GB + TEXT_GB + CONTEXT_GB
    planner = LM_GB[lm] + LM_CACHE_GB[lm] if lm else 0.0
    return weights + activation_gb(kind) * batch * max(1.0, seconds / 60) + planner + MARGIN_GB


def rows_that_fit(
    batch: int, seconds: float, free_gb: float, *, kind: str = "turbo", tier: Tier | None = None, offload: bool = False
) -> int:
    """How many of ``batch`` pieces to sample side by side.

    Args:
        seconds: length of each; 60 is taken where it is unknown. free_gb: memory that is free or can be made so.
        offload: whether idle models leave the card; then a batch within the ``tier`` always fits.
    """
    if batch <= 1 or (offload and tier is not None and batch <= tier.batch_with_lm):
        return batch
    length = seconds if seconds > 0 else 60.0
    each = 0.5 + max(0.0, 0.15 * (length - 60) / 60)
    each *= 1.7 if kind.startswith("XL") else 1.0
    each *= 1.0 if kind.endswith("turbo") else 2.0
    room = free_gb - GUARD_RESERVE_GB
    return 1 if room <= 0 else min(batch, max(1, int(room / each)))


def adaptive(memory_gb: float, kind: str = "turbo") -> Tier:
    """Limits by what is left beside the models, in place of the table; the table where nothing is left."""
    tier = tier_of(memory_gb)
    left = memory_gb - (DIT_GB["2B"] + VAE_GB + TEXT_GB + CONTEXT_GB + SILENCE_GB + MARGIN_GB)
    if left <= 0:
        return tier
    each = activation_gb(kind)
    needed = {size: LM_GB[size] + LM_CACHE_GB[size] for size in LM_GB}
    sizes = tuple(size for size in LM_GB if needed[size] + each <= left)
    beside = left - needed[sizes[-1]] if sizes else left
    steps = ((24, 600, 600), (20, 480, 480), (16, 360, 480), (12, 240, 360), (8, 240, 360))
    with_lm, without = next(((a, b) for least, a, b in steps if memory_gb >= least), (180, 180))

    def fitting(room: float) -> int:
        return max(1, min(8, int(room / each)))

    return replace(
        tier,
        longest_with_lm=with_lm,
        longest=without,
        batch=fitting(left),
        batch_with_lm=fitting(beside),
        lm=bool(sizes),
        lm_sizes=sizes,
        lm_quota={size: needed[size] for size in sizes},
    )


def lm_share(lm: str, memory_gb: float, free_gb: float | None = None) -> float:
    """The share of a card that a serving engine may give to a planner, 0.1 to 0.9."""
    target = LM_GB[lm] + LM_CACHE_GB[lm] + GRAPH_GB
    if free_gb is None:
        return min(0.9, max(0.2 if memory_gb >= 24 else 0.1, target / memory_gb))
    usable = min(target, max(0.0, free_gb - LM_RESERVE_GB - LM_SHARE_MARGIN_GB))
    return min(0.9, max(0.1, (memory_gb - free_gb + usable) / memory_gb))


def clamp_duration(seconds: float, tier: Tier, memory_gb: float, lm: bool) -> tuple[float, str]:
    """``seconds`` within what the tier allows, and a sentence where that is less ("" where it is not)."""
    most = tier.longest_for(lm)
    if seconds <= most:
        return seconds, ""
    beside = "with the planner loaded" if lm else "without the planner"
    return float(most), (
        f"{seconds:g} s is more than a card of {memory_gb:.1f} GB takes {beside}: {most} s are made. "
        "To make more, extend it afterwards."
    )

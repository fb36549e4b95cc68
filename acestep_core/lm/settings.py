"""What a user may set on the planner, with ranges and defaults. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..sampling.settings import BATCH_RANGE
from ..song import DURATION_RANGE

NO_INPUT = "NO USER INPUT"
"""What the model was trained to read where the user gave nothing."""

TEMPERATURE_RANGE = (0.0, 2.0)
CFG_RANGE = (1.0, 3.0)
TOP_K_RANGE = (0, 64000)
SHARE_RANGE = (0.0, 1.0)
PENALTY_RANGE = (1.0, 2.0)
CHUNK_RANGE = (0, BATCH_RANGE[1])
LAYOUTS = ("current", "legacy")
"""Prompts of the codes phase: as the model was trained, or as the original wrote them until February 2026."""
LONGEST_RANGE = (int(DURATION_RANGE[0]), int(DURATION_RANGE[1]))


@dataclass(frozen=True)
class PlannerSettings:
    """How the planner chooses its words and codes. A value out of its range is a ValueError.

    Attributes:
        temperature: 0 always takes the likeliest token; higher is freer.
        cfg_scale: how strongly codes follow caption and lyrics; 1 is without guidance.
        top_k: keep the k likeliest tokens, 0 keeps all. top_p: keep the likeliest tokens that together reach
            this probability. min_p: drop tokens below this share of the likeliest one.
        repetition_penalty: above 1, tokens used before become less likely.
        negative_prompt: what guidance moves away from.
        layout: one of :data:`LAYOUTS`. legacy also guides the plan, not only the codes.
        chunk: songs written side by side; 0 is the whole batch. parallel: False writes one after the other.
        longest: seconds the planner may choose at most.
    """

    temperature: float = 0.85
    cfg_scale: float = 2.0
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    negative_prompt: str = NO_INPUT
    layout: str = "current"
    chunk: int = 8
    parallel: bool = True
    longest: int = LONGEST_RANGE[1]

    def __post_init__(self) -> None:
        ranges = {
            "temperature": TEMPERATURE_RANGE,
            "cfg_scale": CFG_RANGE,
            "top_k": TOP_K_RANGE,
            "top_p": SHARE_RANGE,
            "min_p": SHARE_RANGE,
            "repetition_penalty": PENALTY_RANGE,
            "chunk": CHUNK_RANGE,
            "longest": LONGEST_RANGE,
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high or (isinstance(low, int) and value != int(value)):
                raise ValueError(f"{name} is {value!r}; allowed is {low:g} to {high:g}.")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}; allowed is {', '.join(LAYOUTS)}.")

    @property
    def guided(self) -> bool:
        return self.cfg_scale > 1

    @property
    def negative(self) -> str:
        """The negative prompt, or "" where it says nothing."""
        text = self.negative_prompt.strip()
        return "" if text == NO_INPUT else text

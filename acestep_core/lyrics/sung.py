"""How clearly the lyrics can be heard in the model's attention: a score from coverage, order and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..tokenizer import Tokenizer
from .alignment import energy, warp

HEARD_ABOVE = 0.1
"""A token counts as heard where its energy rises above this."""
COUNTED_ABOVE = 0.01
TOLERATED_FRAMES = 9
"""A token may seem this many frames (of 12.5 a second) before the one it follows."""


@dataclass(frozen=True)
class Measures:
    """Shares from 0 to 1.

    Attributes:
        coverage: of sung tokens that are heard at all. monotonicity: of neighbours in the right order.
        confidence: mean energy along the path. score: coverage² · monotonicity² · confidence, four decimals.
    """

    coverage: float
    monotonicity: float
    confidence: float
    score: float


def sung_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> np.ndarray:
    """True for each token that is sung: not those from one with ``[`` to one with ``]``, both included."""
    found, inside = [], False
    for token in ids:
        text = tokenizer.decode([token])
        inside = inside or "[" in text
        found.append(not inside)
        inside = inside and "]" not in text
    return np.array(found, bool)


def measure(attention: Tensor, sung: np.ndarray) -> Measures:
    """Score of ``attention`` [heads, tokens, frames]; ``sung`` [tokens] says which tokens are sung."""
    strength = energy(attention)
    path = warp(-strength.square().numpy())
    strong = strength.double().numpy()
    rows = strong[sung]
    coverage = float((rows.max(axis=1) > HEARD_ABOVE).mean()) if len(rows) else 1.0
    weights = np.where(rows > COUNTED_ABOVE, rows, 0)
    total = weights.sum(axis=1)
    kept = total > 1e-9
    centres = (weights[kept] * np.arange(strong.shape[1])).sum(axis=1) / total[kept]
    ordered = centres[1:] >= centres[:-1] - TOLERATED_FRAMES
    monotonicity = float(ordered.mean()) if len(ordered) else 1.0
    confidence = float(strong[path.tokens, path.frames].mean())
    value = min(1.0, max(0.0, coverage**2 * monotonicity**2 * confidence))
    return Measures(coverage, monotonicity, confidence, round(value, 4))

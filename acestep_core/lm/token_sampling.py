"""From scores to one token a row: guidance, penalty, temperature, top-k, top-p, min-p, and a draw.

Nothing here sorts a whole vocabulary, and on a GPU nothing looks at values from the host, so it never waits.
Scores are float32 [B, n].
"""

from __future__ import annotations

import torch
from torch import Tensor

from .settings import PlannerSettings

BELOW_ONE = 1 - 2**-23
"""A float32 times this is smaller, so that a draw of almost 1 stays within what was summed."""


def guide(scores: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance on raw scores: u + scale·(c − u), for rows [c…, u…] [2B, n] → [B, n]."""
    conditional, unconditional = scores.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def penalise(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Repetition penalty: scores of ``seen`` tokens [B, n] divided by ``penalty`` if positive, else multiplied."""
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def top_k_floor(scores: Tensor, k: int) -> Tensor:
    """The k-th largest score of each row [B, 1]; ties with it are kept."""
    return scores.topk(min(k, scores.shape[-1])).values[..., -1:]


def top_p_floor(probabilities: Tensor, share: float) -> Tensor:
    """The smallest probability [B, 1] that top-p keeps.

    A token is kept while the tokens likelier than it hold at most ``share`` together, so the one that crosses
    the line is kept, and at least one always is.
    """
    if probabilities.device.type != "cpu":
        return bisect_floor(probabilities, share)
    return torch.stack([_bucket_floor(row, share) for row in probabilities])[:, None]


def _bucket_floor(probabilities: Tensor, share: float) -> Tensor:
    """:func:`top_p_floor` of one row [n] in two passes: sums of buckets of alike values, then a sort of one bucket.

    Positive floats are ordered as their bit patterns, of which the upper half names the bucket.
    """
    bucket = probabilities.contiguous().view(torch.int32) >> 16
    mass = torch.bincount(bucket, weights=probabilities.double())
    above = mass.flip(0).cumsum(0).flip(0) - mass
    crossing = int(((above <= share) & (mass > 0)).nonzero()[0])
    inside = probabilities[bucket == crossing].sort(descending=True).values
    before = above[crossing] + inside.double().cumsum(0) - inside
    return inside[int((before <= share).sum().clamp_(min=1)) - 1]


def bisect_floor(probabilities: Tensor, share: float) -> Tensor:
    """:func:`top_p_floor` by search over the bits of the floats: exact, without a sort, sizes always the same.

    Positive floats are ordered as their bit patterns; those of probabilities have 30 bits. Three bits at a time, the
    largest pattern is found from which on the probabilities sum to more than ``share``.
    """
    bits = probabilities.contiguous().view(torch.int32)[:, None]
    parts = torch.arange(1, 8, dtype=torch.int32, device=bits.device)
    floor = torch.zeros_like(bits[..., 0])
    for shift in range(27, -1, -3):
        tried = torch.add(floor, parts, alpha=2**shift)
        held = torch.where(bits >= tried[..., None], probabilities[:, None], 0.0).sum(-1)
        floor = floor.add((held > share).sum(-1, keepdim=True, dtype=torch.int32), alpha=2**shift)
    return floor.view(torch.float32)


def choose(scores: Tensor, draws: Tensor, settings: PlannerSettings) -> Tensor:
    """One token a row [B], by inverse transform sampling with the uniform numbers ``draws`` [B].

    Temperature comes first, so top-k, top-p and min-p see the distribution that is drawn from. Temperature 0
    is the largest score. The same scores and draw give the same token whatever the other rows hold.
    """
    if settings.temperature == 0:
        return scores.argmax(-1)
    scores = scores / settings.temperature
    if 0 < settings.top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < top_k_floor(scores, settings.top_k), float("-inf"))
    probabilities = scores.softmax(-1)
    if settings.top_p < 1:
        floor = top_p_floor(probabilities, settings.top_p)
        probabilities = torch.where(probabilities >= floor, probabilities, 0.0)
    if settings.min_p > 0:
        floor = settings.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = torch.where(probabilities >= floor, probabilities, 0.0)
    reached = probabilities.cumsum(-1)
    total = reached[..., -1:]
    aim = torch.minimum(draws[:, None] * total, total * BELOW_ONE)
    return torch.searchsorted(reached, aim, right=True).squeeze(-1)

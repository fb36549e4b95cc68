"""From attention to times: cleaning the attention, and the path through it (dynamic time warping).

Rows are tokens, columns are patches of music, 12.5 a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SUPPRESSION = 2.0
"""How many medians of its row, then of its column, a value must exceed to stay."""
EPS = 1e-9


def consensus(attention: Tensor, width: int = 1) -> Tensor:
    """What the heads agree on: float32 [heads, tokens, frames] → [tokens, frames].

    Each head is sharpened by softmax along both axes, freed of what its rows and columns hear all the time,
    squared; then all are put on one scale, smoothed by a median of ``width`` frames (1: not at all) and averaged.
    Worked through head by head, so that only the result and one head lie in memory beside the input.
    """
    sharp = torch.empty_like(attention)
    for index, head in enumerate(attention):
        shares = head.softmax(-1) * head.softmax(-2)
        shares = (shares - SUPPRESSION * _median(shares, -1)).relu_()
        sharp[index] = (shares - SUPPRESSION * _median(shares, -2)).relu_().square_()
    mean, deviation = sharp.mean(), sharp.std(correction=0)
    total = torch.zeros_like(sharp[0])
    for head in sharp:
        total += median_filter((head - mean) / (deviation + EPS), width)
    return total / len(sharp)


def _median(x: Tensor, axis: int) -> Tensor:
    """The 0.5 quantile: the mean of the two middle values where their number is even."""
    return torch.from_numpy(np.median(x.numpy(), axis=axis, keepdims=True).astype(np.float32))


def median_filter(x: Tensor, width: int) -> Tensor:
    """Median over ``width`` (odd) frames of the last axis, mirrored at its ends."""
    around = min(width // 2, x.shape[-1] - 1)
    if around < 1:
        return x
    flat = x.reshape(1, -1, x.shape[-1])
    windows = torch.nn.functional.pad(flat, (around, around), mode="reflect").unfold(-1, 2 * around + 1, 1)
    return windows.sort(-1).values[..., around].reshape(x.shape)


def energy(attention: Tensor) -> Tensor:
    """The mean of the heads [heads, tokens, frames], stretched to 0…1: [tokens, frames]; zeros where it is flat."""
    mean = attention.mean(0)
    low, high = mean.min(), mean.max()
    return (mean - low) / (high - low) if high - low > EPS else torch.zeros_like(mean)


@dataclass(frozen=True)
class Path:
    """Steps from the first token and frame to the last: indices of equal length, neither ever falling."""

    tokens: np.ndarray
    frames: np.ndarray

    def spans(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """First and last frame of each of ``count`` tokens. The path passes every token."""
        return (
            self.frames[np.searchsorted(self.tokens, np.arange(count), "left")],
            self.frames[np.searchsorted(self.tokens, np.arange(count), "right") - 1],
        )


_DIAGONAL, _TOKEN, _FRAME = 0, 1, 2


def warp(cost: np.ndarray) -> Path:
    """The cheapest path through ``cost`` [tokens, frames], one step a cell: diagonal, next token or next frame.

    Sums are kept in float32. A cell is entered diagonally only where that is strictly the cheapest, else from the
    token before only where that is, else from the frame before. Filled along its diagonals, whose cells do not
    depend on each other, in O(tokens + frames) vector steps.
    """
    rows, columns = cost.shape
    wide = columns + 1  # one spare column, so that a diagonal is a plain stride of the flat array
    padded = np.zeros((rows, wide), cost.dtype)
    padded[:, :columns] = cost
    flat, came = padded.ravel(), np.full((rows, wide), _FRAME, np.int8)
    came_flat = came.ravel()
    one_back = np.full(rows + 1, np.inf, np.float32)
    two_back = one_back.copy()
    two_back[0] = 0.0
    for diagonal in range(rows + columns - 1):
        first, last = max(0, diagonal - columns + 1), min(rows - 1, diagonal)
        cells = slice(first * wide + diagonal - first, last * wide + diagonal - last + 1, columns)
        across, token, frame = two_back[first : last + 1], one_back[first : last + 1], one_back[first + 1 : last + 2]
        from_token = (token < across) & (token < frame)
        from_both = (across < token) & (across < frame)
        best = np.where(from_both, across, np.where(from_token, token, frame))
        came_flat[cells] = np.where(from_both, _DIAGONAL, np.where(from_token, _TOKEN, _FRAME))
        here = np.full(rows + 1, np.inf, np.float32)
        here[first + 1 : last + 2] = (flat[cells] + best).astype(np.float32)
        one_back, two_back = here, one_back
    return _traced(came, rows - 1, columns - 1)


def _traced(came: np.ndarray, row: int, column: int) -> Path:
    tokens, frames = [row], [column]
    while row or column:
        step = _TOKEN if column == 0 else _FRAME if row == 0 else came[row, column]
        row -= step != _FRAME
        column -= step != _TOKEN
        tokens.append(row)
        frames.append(column)
    return Path(np.array(tokens[::-1]), np.array(frames[::-1]))


def align(attention: Tensor) -> Path:
    """The path of the lyrics through the music, from ``attention`` [heads, tokens, frames]."""
    return warp(-consensus(attention).double().numpy())

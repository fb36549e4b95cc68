"""Timing two ways of doing the same thing in turn, and printing what came out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Row: TypeAlias = dict[str, str | float]
"""One line of a table: column name → text or number. The unit stands in the column name."""

GB = 1e9


@dataclass(frozen=True)
class Setting:
    """Where and how to measure.

    Attributes:
        size: tiny, middle or real. device, dtype: of both sides. runs: timed runs of each side.
    """

    size: str = "middle"
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    runs: int = 3


@dataclass(frozen=True)
class Timing:
    """Median seconds, what the first run returned, and the most device memory used (GPU only)."""

    seconds: float
    result: Tensor
    peak_bytes: int | None


def alternate(sides: Mapping[str, Callable[[], Tensor]], setting: Setting) -> dict[str, Timing]:
    """Run every side ``setting.runs`` times, in turn, so that a change of load on the machine meets all alike.

    One untimed run of each comes first; it also gives the result that is compared.
    """
    cuda = setting.device.type == "cuda"
    results: dict[str, Tensor] = {}
    peaks: dict[str, int | None] = {}
    for name, side in sides.items():
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        results[name] = side().float().cpu()
        peaks[name] = torch.cuda.max_memory_allocated() if cuda else None
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(setting.runs):
        for name, side in sides.items():
            _wait(cuda)
            started = time.perf_counter()
            side()
            _wait(cuda)
            taken[name].append(time.perf_counter() - started)
    return {
        name: Timing(statistics.median(taken[name] or [0.0]), results[name], peaks[name])
        for name in sides
    }


def _wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()


def compare(what: str, ours: Timing, other_name: str, other: Timing) -> Row:
    """A row: both medians, how many times faster ours is, and the largest difference of the results."""
    row: Row = {
        "what": what,
        "ours, s": ours.seconds,
        "against": other_name,
        "its time, s": other.seconds,
        "ratio": other.seconds / ours.seconds if ours.seconds else 0.0,
        "max difference": f"{float((ours.result - other.result).abs().max()):.1e}",
    }
    if ours.peak_bytes is not None and other.peak_bytes is not None:
        row |= {"ours, GB": ours.peak_bytes / GB, "its memory, GB": other.peak_bytes / GB}
    return row


def table(rows: Sequence[Row]) -> str:
    """Rows with the same columns as aligned text."""
    columns = list(rows[0])
    lines = [columns] + [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)

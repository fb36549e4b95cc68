"""Timing ways of doing the same thing in turn, and printing what came out."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Row = dict[str, str | float]
"""One line of a table: column → text or number. The unit stands in the column's name."""

GB = 1e9


@dataclass(frozen=True)
class Setting:
    """Where and how to measure.

    Attributes:
        size: tiny, middle or real. device, dtype: of all sides. runs: timed runs of each side.
        busy: count the time that processors computed for this process, not the clock's.
    """

    size: str = "middle"
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    runs: int = 3
    busy: bool = False


@dataclass(frozen=True)
class Measured:
    """Median seconds, what came out (float32, on the CPU), and the most memory in use above what was in use before.

    Memory of the device on a GPU, of this process on a CPU; None where the system does not tell.
    """

    seconds: float
    result: Tensor
    peak_bytes: int | None


def alternate(sides: Mapping[str, Callable[[], Tensor]], setting: Setting) -> dict[str, Measured]:
    """Run every side ``setting.runs`` times, in turn, so that a change of load on the machine meets all alike.

    On a GPU an untimed round comes first: it chooses kernels, and its peak of memory is what is reported.
    """
    cuda = setting.device.type == "cuda"
    clock = time.process_time if setting.busy and not cuda else time.perf_counter
    results: dict[str, Tensor] = {}
    peaks: dict[str, int | None] = dict.fromkeys(sides)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(setting.runs + cuda):
        for name, side in sides.items():
            gc.collect()
            before = _reset_peak(cuda)
            started = clock()
            result = side()
            if cuda:
                torch.cuda.synchronize()
            taken[name].append(clock() - started)
            if number == 0:
                peaks[name] = None if before is None else max(0, _peak(cuda) - before)
                results[name] = result.float().cpu()
            del result
    return {n: Measured(statistics.median(taken[n][int(cuda) :]), results[n], peaks[n]) for n in sides}


def _reset_peak(cuda: bool) -> int | None:
    """Start to watch for the most memory in use; what is in use now, None where that cannot be known."""
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed counts as free, and not as there for the next side
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError, TypeError):
        return None
    return _peak(cuda)


def _peak(cuda: bool) -> int:
    if cuda:
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def compare(what: str, ours: Measured, name: str, other: Measured) -> Row:
    """Both medians, how many times longer the other takes, and the largest absolute difference of the results."""
    row: Row = {
        "what": what,
        "ours (s)": ours.seconds,
        "against": name,
        "theirs (s)": other.seconds,
        "ratio": other.seconds / ours.seconds,
        "max difference": float((ours.result - other.result).abs().max()),
    }
    if ours.peak_bytes is not None and other.peak_bytes is not None:
        row |= {"our peak (GB)": ours.peak_bytes / GB, "their peak (GB)": other.peak_bytes / GB}
    return row


def table(rows: Sequence[Row]) -> str:
    """Rows of equal columns as aligned text."""
    lines = [list(rows[0])] + [[_cell(key, value) for key, value in row.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pads = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in pads)


def _cell(key: str, value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.1e}" if key == "max difference" else f"{value:.2f}"

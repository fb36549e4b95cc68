"""The curve of a run: one line a step in ``loss.csv``, exact to the last bit, and never a line of a lost step."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("step", "epoch", "loss", "ema", "learning_rate", "grad_norm")
SMOOTHING = 0.1
"""Share of the newest loss in the running mean."""


@dataclass(frozen=True)
class Point:
    """One optimizer step: counted from 1, its epoch from 1, loss, running mean, learning rate, norm of gradients."""

    step: int
    epoch: int
    loss: float
    ema: float
    learning_rate: float
    grad_norm: float

    def line(self) -> str:
        return ",".join(repr(getattr(self, name)) for name in COLUMNS) + "\n"


def smoothed(before: float | None, loss: float) -> float:
    """The running mean with one more ``loss``; None before the first."""
    if before is None or before != before:
        return loss
    return SMOOTHING * loss + (1 - SMOOTHING) * before if loss == loss else before


def read_points(path: Path) -> list[Point]:
    """The points of a file up to the first line that is broken; none where there is no file."""
    points: list[Point] = []
    try:
        lines = path.read_text("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        return points
    for line in lines[1:]:
        cells = line.rstrip("\n").split(",")
        try:
            point = Point(int(cells[0]), int(cells[1]), *(float(cell) for cell in cells[2:]))
        except (ValueError, IndexError, TypeError):
            break
        if not line.endswith("\n") or (points and point.step != points[-1].step + 1):
            break
        points.append(point)
    return points


class LossLog:
    """Appends points. Lines that the disk refuses are kept and written as soon as it can be.

    A file that somebody took away or cut is written again from the points that are held.
    """

    def __init__(self, path: Path, step: int = 0):
        """Go on after ``step``: what was written of later steps, whose work is lost, is dropped by :meth:`begin`."""
        self.path = path
        self.points = [point for point in read_points(path) if point.step <= step]
        if self.points and self.points[-1].step != step:
            self.points = []
        self._written: int | None = None
        self._waiting = b""

    def begin(self) -> None:
        """Write the file anew: its head, and every point there is. Raises OSError."""
        text = ",".join(COLUMNS) + "\n" + "".join(point.line() for point in self.points)
        fresh = self.path.parent / f".{self.path.name}.{secrets.token_hex(4)}"
        try:
            fresh.write_bytes(text.encode())
            os.replace(fresh, self.path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        self._written, self._waiting = len(text.encode()), b""

    def add(self, point: Point) -> None:
        """Raises OSError where the line could not be written; it is kept and written with the next."""
        self.points.append(point)
        self._waiting += point.line().encode()
        self._write(sync=False)

    def sync(self) -> None:
        """Everything added is on the disk after this, or OSError is raised."""
        self._write(sync=True)

    def _write(self, sync: bool) -> None:
        if self._written is None or self._size() < self._written:
            self.begin()
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(self._written)
            file.truncate()
            left = memoryview(self._waiting)
            while left:
                left = left[file.write(left) :]
            self._written, self._waiting = file.tell(), b""
            if sync:
                os.fsync(file.fileno())

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return -1

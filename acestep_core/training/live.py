"""A run at work, seen from outside: what a page draws, and the button that ends it and keeps the result.

>>> run, result = train_run(model, tensors, TrainSettings(), "jazz")      # in one thread
>>> watch(host, "jazz", after=120)["points"], stop(host, "jazz")             # in another
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.handles import DiffusionModel
from ..host import Host, current
from ..lora.adapter import Adapter
from .curve import thinned
from .loss_log import Point, read_points
from .places import RUNS, checked_name, place_of
from .runs import Run, RunError, described
from .samples import FOLDER, Samples
from .settings import TrainSettings
from .tensors import Tensors
from .trainer import LOSSES, RUN, TrainResult, train

EVENT = "acestep.train"
INTERVAL = 0.25
"""Seconds between two events at least."""
MOST_POINTS, MOST_LINES, PACES = 2000, 200, 50
SOUNDS = (".flac", ".wav", ".mp3")

_live: dict[Path, Live] = {}
"""By the folder of the run."""
_guard = threading.Lock()


class Live:
    """What is known of a run while this process works on it. Written by the thread that trains, read by others."""

    def __init__(self, name: str, host: Host):
        self.name, self.host = name, host
        self.state, self.total, self.epochs = "preparing", 0, 0
        self.points: list[Point] = []
        self.lines: deque[str] = deque(maxlen=MOST_LINES)
        self.stop = threading.Event()
        self.told = time.monotonic() - INTERVAL
        self.sent = 0
        self.fresh: list[str] = []
        self.last: float | None = None
        self.paces: deque[float] = deque(maxlen=PACES)

    def log(self, text: str) -> None:
        self.lines.append(text)
        self.fresh.append(text)
        self.tell()

    def point(self, point: Point) -> None:
        moment = time.monotonic()
        if self.last is None:
            self.state = "running"
        else:
            self.paces.append(moment - self.last)
        self.last = moment
        while self.points and self.points[-1].step >= point.step:  # what a checkpoint has undone
            self.points.pop()
            self.sent = min(self.sent, len(self.points))
        self.points.append(point)
        self.tell()

    def become(self, state: str) -> None:
        self.state = state
        self.tell(now=True)

    def tell(self, now: bool = False) -> None:
        """Send what is new, unless something was sent a moment ago."""
        moment = time.monotonic()
        if not now and moment - self.told < INTERVAL:
            return
        self.told = moment
        new, lines = self.points[self.sent :], self.fresh
        self.sent, self.fresh = len(self.points), []
        self.host.send(EVENT, self.values(new, lines))

    def values(self, points: list[Point], lines: list[str]) -> dict[str, Any]:
        last = self.points[-1] if self.points else None
        pace = self.pace()
        left = None if pace is None or last is None else pace * (self.total - last.step)
        state = "stopping" if self.stop.is_set() and self.state in ("preparing", "running") else self.state
        return {
            **{"run": self.name, "state": state, "step": last.step if last else 0, "total": self.total},
            **{"epoch": last.epoch if last else 0, "epochs": self.epochs},
            **{"points": [row(point) for point in points], "log": lines},
            **{"eta": left, "seconds_a_step": pace, "memory_gb": memory_gb(self.host.device("dit"))},
        }

    def pace(self) -> float | None:
        """Seconds a step: the median of the newest, which a sample or a checkpoint in between does not move."""
        return statistics.median(self.paces) if self.paces else None


def train_run(
    model: DiffusionModel,
    tensors: Tensors,
    settings: TrainSettings,
    name: str,
    *,
    start: Adapter | None = None,
    go_on_after_stop: bool = False,
    samples: Samples | None = None,
    host: Host | None = None,
) -> tuple[Run, TrainResult]:
    """Train in the folder of the run ``name``, or go on there, where others can watch and stop it.

    Args:
        start, samples: see :func:`trainer.train`.
        go_on_after_stop: train on where the run was stopped to be kept; otherwise it is taken as it is.

    Raises:
        ValueError: a name that cannot be one, or what :func:`trainer.train` raises.
        RunError: this run is at work already.
    """
    host, name = host or current(), checked_name(name)
    folder = place_of(host, RUNS, name)
    live = _begin(folder, name, host)
    try:
        items = tensors.items(model.config.encoder_width)
        live.total, live.epochs = settings.steps(tensors.repeats), settings.epochs
        live.points = read_points(folder / LOSSES)
        live.sent = len(live.points)
        live.become("preparing")
        result = train(
            model,
            items,
            settings,
            folder,
            start=start,
            host=host,
            should_stop=live.stop.is_set,
            on_point=live.point,
            samples=samples,
            on_note=live.log,
            keep_stopped=not go_on_after_stop,
        )
        live.become("stopped" if result.stopped else "done")
        return Run(name, folder, model.config), result
    except BaseException as error:
        if not host.is_cancel(error):
            live.lines.append(str(error))
            live.fresh.append(str(error))
        live.become("cancelled" if host.is_cancel(error) else "failed")
        raise
    finally:
        _end(folder)


def _begin(folder: Path, name: str, host: Host) -> Live:
    with _guard:
        before = _live.get(folder)
        if before is not None and before.state in ("preparing", "running"):
            raise RunError(f"The run {name} is at work already. Wait for it, or give this one another name.")
        live = _live[folder] = Live(name, host)
    return live


def _end(folder: Path) -> None:
    """Keep the last words of a run for pages that ask later; of all others nothing."""
    with _guard:
        for other in [key for key in _live if key != folder and _live[key].state not in ("preparing", "running")]:
            del _live[other]


def stop(host: Host, name: str) -> dict[str, Any]:
    """End a run after the pass it is at, and keep what it has learned.

    Raises:
        ValueError: a name that cannot be one. FileNotFoundError: no such run is at work.
    """
    live = _live.get(place_of(host, RUNS, name))
    if live is None or live.state not in ("preparing", "running"):
        raise FileNotFoundError(f"The run {name} is not at work.")
    live.stop.set()
    return {"state": "stopping"}


def watch(host: Host, name: str, after: int = 0) -> dict[str, Any]:
    """Everything about a run: at work, at rest on disk, or unknown. Points are those behind step ``after``.

    Raises:
        ValueError: a name that cannot be one.
    """
    folder = place_of(host, RUNS, name)
    live = _live.get(folder)
    if live is not None:
        points = thinned([point for point in list(live.points) if point.step > after], MOST_POINTS)
        return {**live.values(points, list(live.lines)), "samples": _samples(host, folder)}
    if not (folder / RUN).is_file():
        return {"run": name, "state": "unknown", "points": [], "log": [], "samples": []}
    points = read_points(folder / LOSSES)
    last = points[-1] if points else None
    about = described(folder)
    epochs = about.get("settings", {}).get("epochs", 0) if isinstance(about.get("settings"), dict) else 0
    behind = thinned([point for point in points if point.step > after], MOST_POINTS)
    return {
        **{"run": name, "state": "idle", "step": last.step if last else 0, "total": about.get("steps", 0)},
        **{"epoch": last.epoch if last else 0, "epochs": epochs},
        **{"points": [row(point) for point in behind], "log": [], "samples": _samples(host, folder)},
        **{"eta": None, "seconds_a_step": None, "memory_gb": None},
    }


def _samples(host: Host, folder: Path) -> list[dict[str, Any]]:
    """Sounds made while training, oldest first, as ComfyUI's ``/view`` names them."""
    found = [path for path in (folder / FOLDER).glob("*") if path.suffix in SOUNDS and not path.name.startswith(".")]

    def epoch(path: Path) -> int:
        digits = path.stem.rsplit("_", 1)[-1]
        return int(digits) if digits.isdecimal() else 0

    subfolder = (folder / FOLDER).relative_to(host.output).as_posix()
    return [
        {"filename": path.name, "subfolder": subfolder, "type": "output", "epoch": epoch(path)}
        for path in sorted(found, key=epoch)
    ]


def row(point: Point) -> list[float | int | None]:
    """A point as JSON has it: step, epoch, loss, running mean, learning rate, norm; None for what is no number."""
    numbers = (point.loss, point.ema, point.learning_rate, point.grad_norm)
    return [point.step, point.epoch, *(value if math.isfinite(value) else None for value in numbers)]


def memory_gb(device: torch.device) -> float | None:
    """GB in use on a card; None where that is not known."""
    counted = getattr(getattr(torch, device.type, None), "memory_allocated", None)  # xpu counts from torch 2.5 on
    return counted(device) / 2**30 if counted is not None and device.type in ("cuda", "xpu") else None

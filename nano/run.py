"""The loop that every stage shares: budget, learning rate, checkpoints, a line of progress, a log."""

from __future__ import annotations

import csv
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .muon import Muon, within_layers

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
WIDE = ("AVX512", "AVX10")
"""Processors to which bfloat16 costs no more than float32; others take ten to thirty times as long."""
LAST_SHARE = 0.02
"""Of the learning rate, at the end."""


@dataclass(frozen=True)
class Budget:
    """How long a stage trains in all, over every call: ``steps`` where given, else ``minutes``."""

    minutes: float
    steps: int | None = None

    def share(self, step: int, seconds: float) -> float:
        """How much of it is used, 0 to 1."""
        used = step / max(self.steps, 1) if self.steps is not None else seconds / max(60 * self.minutes, 1e-9)
        return min(used, 1.0)


@dataclass(frozen=True)
class Setup:
    """What all stages are told.

    Attributes:
        out: folder of the run; each stage has a folder in it. seed: of weights, data and noise.
        workers: processes that compose. save_every: seconds between checkpoints.
    """

    out: Path
    device: torch.device
    seed: int = 0
    workers: int = 1
    save_every: float = 60.0
    quiet: bool = False

    def rows(self, rows: int) -> int:
        """Rows of a batch, given those for a CPU: a GPU takes four times as many."""
        return rows if self.device.type == "cpu" else 4 * rows

    def place(self, stage: str) -> Path:
        return self.out / stage


Step = Callable[[int, float], Mapping[str, Tensor]]
"""(number of the step, share of the budget used) → losses by name; the first is what is descended."""


def draw(seed: int, stage: str, step: int) -> np.random.Generator:
    """What is random in a step follows from its number, so a training that was stopped goes on as if it had not."""
    return np.random.default_rng([seed, sum(map(ord, stage)), step])


def noise_of(random: np.random.Generator) -> torch.Generator:
    """A generator for tensors on the CPU, seeded by ``random``."""
    return torch.Generator().manual_seed(int(random.integers(2**62)))


def rate_at(peak: float, step: int, warmup: int, share: float) -> float:
    """Linear rise over ``warmup`` steps, then half a cosine over the budget."""
    falling = LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * share)) / 2
    return peak * min(1.0, (step + 1) / max(warmup, 1)) * falling


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it is fast; weights stay in float32."""
    if device.type == "cpu":
        fast = torch.backends.cpu.get_cpu_capability().startswith(WIDE)
    else:
        fast = device.type != "mps"
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def train(
    stage: str,
    model: nn.Module,
    step_of: Step,
    budget: Budget,
    setup: Setup,
    *,
    rate: float,
    warmup: int,
    decay: float = 0.01,
    clip: float = 1.0,
    muon: bool = False,
) -> int:
    """Train ``model`` until the budget is used, from its last checkpoint where there is one; the number of steps.

    Args:
        rate: highest learning rate, reached after ``warmup`` steps, at most a tenth of the steps where those are given.
        decay: of weights, as in AdamW. clip: largest norm of the gradient. muon: for the matrices within layers.

    Whatever was trained is on disk when this returns, also where Ctrl-C or SIGTERM stopped it.

    Raises:
        FloatingPointError: the loss is no number any more; the last checkpoint is kept.
        KeyboardInterrupt: stopped, after saving.
    """
    folder = setup.place(stage)
    folder.mkdir(parents=True, exist_ok=True)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizers = _optimizers(model, rate, decay, muon)
    step, seconds = _resume(folder / CHECKPOINT, model, optimizers, setup.device)
    began, saved = time.perf_counter() - seconds, time.perf_counter()
    warmup = warmup if budget.steps is None else min(warmup, budget.steps // 10)
    log = _Log(folder / LOG, step, setup.quiet)
    with stoppable() as stop:
        while not stop and (share := budget.share(step, time.perf_counter() - began)) < 1:
            lr = rate_at(rate, step, warmup, share)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = lr
            losses = step_of(step, share)
            loss = next(iter(losses.values()))
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"{stage}: the loss is {float(loss.detach())} at step {step}; lower the rate.")
            for weight in weights:
                weight.grad = None
            loss.backward()
            nn.utils.clip_grad_norm_(weights, clip)
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            log.add(stage, step, time.perf_counter() - began, share, lr, losses)
            if time.perf_counter() - saved > setup.save_every:
                _save(folder / CHECKPOINT, model, optimizers, step, time.perf_counter() - began)
                saved = time.perf_counter()
    _save(folder / CHECKPOINT, model, optimizers, step, time.perf_counter() - began)
    log.close()
    if stop:
        raise KeyboardInterrupt
    return step


def _optimizers(model: nn.Module, rate: float, decay: float, muon: bool) -> list[torch.optim.Optimizer]:
    matrices = within_layers(model) if muon else []
    chosen = set(map(id, matrices))
    others = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in chosen]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=decay)]
    return [*found, Muon(matrices, rate, decay)] if matrices else found


def weights_of(setup: Setup, stage: str) -> dict[str, Tensor]:
    """The weights of a stage's checkpoint, on the CPU.

    Raises:
        FileNotFoundError: that stage was not trained yet.
    """
    path = setup.place(stage) / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. Train the stage `{stage}` first.")
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """``write`` to a file beside ``path``, then put it in its place."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(fresh)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _save(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], step: int, seconds: float) -> None:
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
        "seconds": seconds,
        "random": torch.get_rng_state(),
    }
    write_atomically(path, lambda fresh: torch.save(state, fresh))


def _resume(
    path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], device: torch.device
) -> tuple[int, float]:
    if not path.is_file():
        return 0, 0.0
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    torch.set_rng_state(state["random"].cpu())
    return int(state["step"]), float(state["seconds"])


class _Log:
    """A row a step in a CSV file; a line on the terminal twice a second. Rows of steps that are done again go."""

    def __init__(self, path: Path, step: int, quiet: bool):
        kept: list[list[str]] = []
        if path.is_file():
            rows = list(csv.reader(path.read_text("utf-8").splitlines()))
            kept = rows[:1] + [row for row in rows[1:] if row and int(row[0]) <= step] if step else []
        self.file = path.open("w", newline="", encoding="utf-8")
        self.rows, self.quiet, self.fresh, self.shown, self.mean = csv.writer(self.file), quiet, not kept, 0.0, None
        self.rows.writerows(kept)
        self.first, self.began = step, time.perf_counter()

    def add(self, stage: str, step: int, seconds: float, share: float, lr: float, losses: Mapping[str, Tensor]) -> None:
        if self.fresh:
            self.rows.writerow(["step", "seconds", "share", "rate", *losses])
            self.fresh = False
        values = {name: float(value.detach()) for name, value in losses.items()}
        self.rows.writerow(
            [step, f"{seconds:.2f}", f"{share:.5f}", f"{lr:.3e}", *(f"{value:.5f}" for value in values.values())]
        )
        first = next(iter(values.values()))
        self.mean = first if self.mean is None else 0.98 * self.mean + 0.02 * first
        now = time.perf_counter()
        if self.quiet or now - self.shown < 0.5:
            return
        self.shown = now
        speed = (step - self.first) / max(now - self.began, 1e-9)
        parts = " ".join(f"{name} {value:.3f}" for name, value in values.items())
        text = f"{stage} step {step} {share:6.1%} {speed:.2f} steps/s mean {self.mean:.4f} | {parts}"
        print(f"\r\033[K{text[:150]}" if sys.stderr.isatty() else text, end="", file=sys.stderr, flush=True)
        print("" if sys.stderr.isatty() else "\n", end="", file=sys.stderr)
        self.shown += 0 if sys.stderr.isatty() else 9.5
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        if not self.quiet and sys.stderr.isatty():
            print(file=sys.stderr)


class _Stop:
    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stoppable() -> Iterator[_Stop]:
    """True as soon as Ctrl-C or SIGTERM came; what is under way is finished."""
    stop, before = _Stop(), {}

    def ask(*_: object) -> None:
        stop.asked = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # signals belong to the main thread
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

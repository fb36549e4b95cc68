"""A run on disk as a value: its curve, its checkpoints, and its adapter for use elsewhere.

>>> run = Run("jazz", Path("output/acestep/runs/jazz"), model.config)
>>> export_file(run, host, "jazz-v1", which="best")
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..host import Host
from ..lora.adapter import Adapter
from ..lora.folders import adapter_roots
from ..lora.formats import read_adapter
from ..lora.writing import write_file, write_peft
from ..models.config import ModelConfig
from . import checkpoint
from .limits import DTYPES, FORMATS, WHICH
from .loss_log import Point, read_points
from .places import RUNS, checked_name, place_of
from .trainer import FINAL, LOSSES, RUN

_TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "as trained": None}


DORA_NOTE = (
    "ComfyUI's own LoRA loader scales a DoRA by the norms of the plain weights, so it sounds a little different there; "
    "Load LoRA of this pack plays it as it was trained."
)


class RunError(ValueError):
    """A run that is not there, or has not what is asked for."""


@dataclass(frozen=True)
class Exported:
    """Where an adapter was written, the name that Load LoRA lists, and what to know; "" for nothing."""

    path: Path
    name: str
    note: str = ""

    def text(self) -> str:
        return "\n".join(filter(None, (str(self.path), self.note)))


@dataclass(frozen=True)
class Run:
    """A folder that :func:`trainer.train` trains in; ``config`` is that of the model it trains."""

    name: str
    folder: Path
    config: ModelConfig

    @property
    def csv(self) -> Path:
        """The table of all steps."""
        return self.folder / LOSSES

    @property
    def points(self) -> list[Point]:
        return read_points(self.csv)

    def report(self) -> str:
        values, points = described(self.folder), self.points
        if not points:
            return f"{self.name}: nothing trained yet."
        last = points[-1]
        steps = f"{last.step} of {values['steps']}" if isinstance(values.get("steps"), int) else str(last.step)
        kept = ", ".join(str(_step(path)) for path in reversed(checkpoint.found(self.folder))) or "none"
        best = min(points, key=lambda point: point.ema if point.ema == point.ema else float("inf"))
        return "\n".join(
            [
                f"{self.name}: step {steps}, epoch {last.epoch}, loss {last.ema:.4f}, first {points[0].loss:.4f}.",
                f"Lowest running mean {best.ema:.4f} at step {best.step}.",
                f"Checkpoints at steps: {kept}.",
                f"In {self.folder}.",
            ]
        )


def described(folder: Path) -> dict[str, Any]:
    """What ``run.json`` of a run says; nothing where there is none."""
    try:
        values = json.loads((folder / RUN).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def stamp(folder: Path) -> str:
    """Changes when something is trained or exported in the folder of a run."""
    files = [folder / RUN, folder / LOSSES, folder / FINAL, *checkpoint.found(folder)]
    return " ".join(f"{file.name}:{file.stat().st_mtime_ns}" for file in files if file.exists())


def open_run(host: Host, name: str, config: ModelConfig) -> Run:
    """The run called ``name``.

    Raises:
        RunError: there is none.
    """
    folder = place_of(host, RUNS, name)
    if not (folder / RUN).is_file():
        raise RunError(f"There is no run {name!r} in {folder.parent}. Train one, or choose another name.")
    return Run(checked_name(name), folder, config)


def adapter_of(run: Run, which: str = "final", step: int = 0) -> Adapter:
    """What a run has learned.

    Args:
        which: ``final``, what the run ended with; ``latest``, the newest checkpoint; ``best``, the kept checkpoint
            where the running mean of the loss was lowest. step: that checkpoint, whatever ``which`` says; 0 for none.

    Raises:
        RunError: there is none like it; it says which there are.
    """
    places = checkpoint.found(run.folder)
    steps = [_step(path) for path in places]
    if step:
        if step not in steps:
            have = ", ".join(map(str, sorted(steps))) or "none"
            raise RunError(f"{run.name} has no checkpoint of step {step}; there are {have}.")
        place = places[steps.index(step)]
    elif which == "final":
        place = run.folder / FINAL
        if not place.is_dir():
            raise RunError(f"{run.name} has not ended yet. Let it train on, or take latest or best.")
    elif which in WHICH:
        if not places:
            raise RunError(f"{run.name} has no checkpoint yet. Let it train on.")
        place = places[0] if which == "latest" else places[steps.index(_best(run, steps))]
    else:
        raise RunError(f"which is {which!r}; allowed is {', '.join(WHICH)}.")
    return replace(read_adapter(place, run.config, name=run.name), name=run.name)


def _best(run: Run, steps: list[int]) -> int:
    means = {point.step: point.ema for point in run.points if point.ema == point.ema}
    return min(steps, key=lambda step: (means.get(step, float("inf")), -step))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def export(
    run: Run,
    host: Host,
    name: str,
    *,
    format: str = FORMATS[0],
    which: str = "final",
    step: int = 0,
    dtype: str = "bf16",
    overwrite: bool = False,
) -> Exported:
    """Write the adapter of a run where Load LoRA finds it, alpha included.

    Args:
        name: of the file or folder in ``models/loras`` (else ``models/acestep/loras``), without its ending;
            "" for the name of the run.
        format: one of :data:`limits.FORMATS`. which, step: see :func:`adapter_of`. dtype: one of :data:`limits.DTYPES`.

    Raises:
        RunError, ValueError: nothing to export, or a name that cannot be one.
        FileExistsError: it is there, and ``overwrite`` is off.
    """
    if format not in FORMATS or dtype not in DTYPES:
        raise RunError(f"format is {format!r}, dtype {dtype!r}; allowed: {', '.join(FORMATS)}; {', '.join(DTYPES)}.")
    ending = ".safetensors" if format == FORMATS[0] else ""
    name = checked_name((name.strip() or run.name).removesuffix(".safetensors")) + ending
    place = adapter_roots(host)[0] / name
    if place.exists() and not overwrite:
        raise FileExistsError(f"{place} is there already. Choose another name, or allow overwriting it.")
    adapter = adapter_of(run, which, step)
    if ending:
        about = _about(run, which, step)
        path = write_file(adapter, place, dtype=_TORCH[dtype], about=about, overwrite=overwrite)
    else:
        path = write_peft(adapter, place, dtype=_TORCH[dtype], overwrite=overwrite)
    scaled = any(change.magnitude is not None for change in adapter.changes.values())
    return Exported(path, name, DORA_NOTE if scaled and ending else "")


def _about(run: Run, which: str, step: int) -> dict[str, str]:
    """Metadata of an exported file."""
    values, points = described(run.folder), run.points
    songs = values.get("items")
    done = step or (points[-1].step if points and which != "best" else 0)
    named = [song for song in songs if isinstance(song, dict)] if isinstance(songs, list) else []
    tags = dict.fromkeys(str(song["tag"]) for song in named if song.get("tag"))
    found = {
        "run": run.name,
        "tag": ", ".join(tags) or None,
        "base_model": values.get("model_kind"),
        "songs": len(named) or None,
        "steps": done or None,
        "date": time.strftime("%Y-%m-%d"),
        "settings": json.dumps(values.get("settings", {}), sort_keys=True),
    }
    return {key: str(value) for key, value in found.items() if value is not None}

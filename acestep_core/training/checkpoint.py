"""Checkpoints of a run: everything that going on needs, in one folder that is there whole or not at all.

``checkpoints/step_0000200/`` holds an adapter that plays anywhere (PEFT's ``adapter_config.json`` and
``adapter_model.safetensors``, or ``lokr_weights.safetensors``), the optimizer (``state.safetensors``), and
``state.json``: step, position in the data, state of the random numbers, the settings, and the checksums of the other
files. It is written under another name, forced to the disk, and renamed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..lora.adapter import Adapter
from ..lora.formats import read_adapter
from ..lora.writing import write_folder
from ..models.config import ModelConfig

FOLDER, LAST = "checkpoints", "last"
STATE, TENSORS = "state.json", "state.safetensors"
FORMAT = "acestep-graph checkpoint 1"
TEMPORARY = "."
"""How names of folders begin that are not finished, or no longer wanted."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands, between two optimizer steps.

    Attributes:
        step: optimizer steps done; with the settings it says which epoch, which items of it come next, and what
            the learning rate is. epoch: passes over the data that are complete. position: batches used of the next.
        random: state of the one generator that every draw of a run comes from.
        ema: running mean of the loss. skipped: steps in a row whose gradients were no numbers.
        seconds: time spent so far.
    """

    step: int
    epoch: int
    position: int
    random: bytes
    ema: float | None = None
    skipped: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run at rest.

    Attributes:
        optimizer: tensors by ``parameter/name``. numbers: what the optimizer keeps beside tensors, likewise.
        run: what makes this run this run: settings, and fingerprints of data and model.
        why: epoch, time, stop, cancel, error or end. stays: false for one that only guards until the next.
    """

    adapter: Adapter
    progress: Progress
    run: Mapping[str, Any]
    optimizer: Mapping[str, Tensor]
    numbers: Mapping[str, float] = field(default_factory=dict)
    why: str = "epoch"
    stays: bool = True


def name_of(step: int) -> str:
    return f"step_{step:07d}"


def write(run: Path, checkpoint: Checkpoint) -> Path:
    """Write ``checkpoint`` under the folder of a run, and drop the one that guarded before it.

    Raises:
        OSError: the disk is full, or refuses; nothing that was there is lost.
    """
    parent = run / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    place = parent / name_of(checkpoint.progress.step)
    fresh = parent / f"{TEMPORARY}{place.name}.{secrets.token_hex(4)}"
    try:
        write_folder(checkpoint.adapter, fresh)
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in checkpoint.optimizer.items()}
        _save(tensors, fresh / TENSORS)
        files = {path.name: _sha256(path) for path in sorted(fresh.iterdir())}
        (fresh / STATE).write_text(_json(_values(checkpoint, files)), "utf-8")
        for path in fresh.iterdir():
            _sync(path)
        _sync_folder(fresh)
        if place.exists():
            _discard(place)
        os.replace(fresh, place)
        _sync_folder(parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    replace_text(run / LAST, f"{FOLDER}/{place.name}\n")
    for path in found(run):
        if path != place and _stays(path) is False:
            _discard(path)
    return place


def keep(place: Path, why: str) -> None:
    """Make a checkpoint stay, and say why the run was left there."""
    values = json.loads((place / STATE).read_text("utf-8"))
    replace_text(place / STATE, _json({**values, "why": why, "stays": True}))


def found(run: Path) -> list[Path]:
    """Folders that have the name of a checkpoint, newest first."""
    try:
        names = os.listdir(run / FOLDER)
    except FileNotFoundError:
        return []
    folders = [run / FOLDER / name for name in names if name.startswith("step_") and name[5:].isdecimal()]
    return sorted(filter(Path.is_dir, folders), key=lambda path: int(path.name[5:]), reverse=True)


def clean(run: Path, names: Iterable[str] = ()) -> None:
    """Take away what an interrupted write left behind, of checkpoints and of ``names`` in the folder of the run."""
    left = list((run / FOLDER).glob(f"{TEMPORARY}*step_*"))
    for name in (LAST, *names):
        left += run.glob(f"{TEMPORARY}{name}.*")
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class Broken(ValueError):
    """A checkpoint that is not as it was written; the message says what of it."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A checkpoint on disk, every file of it as it was written, without its tensors. See :class:`Checkpoint`."""

    path: Path
    progress: Progress
    run: Mapping[str, Any]
    numbers: Mapping[str, float]
    why: str
    stays: bool

    def load(self, config: ModelConfig) -> Checkpoint:
        """Raises CheckpointError where the adapter is of another model, OSError and MemoryError as they come."""
        adapter, optimizer = read_adapter(self.path, config, name=self.path.name), load_file(self.path / TENSORS)
        return Checkpoint(adapter, self.progress, self.run, optimizer, self.numbers, self.why, self.stays)


def newest(run: Path, say: Callable[[str], None]) -> Stored | None:
    """The newest complete checkpoint of a run; None where there is none. Broken ones are skipped with a note.

    Raises:
        Broken: there are some, and all are broken. OSError: one cannot be read now, but may be whole.
    """
    broken: list[str] = []
    for path in found(run):
        try:
            stored = opened(path)
        except Broken as error:
            broken.append(f"{path.name} is not used, because it is broken: {error}")
            continue
        for text in broken:
            say(f"The checkpoint {text}")
        return stored
    if broken:
        raise Broken("; ".join(broken))
    return None


def opened(path: Path) -> Stored:
    """Look at one checkpoint, and check every file of it.

    Raises:
        Broken: a file is missing or is not as it was written. OSError: the disk does not answer.
    """
    try:
        values = json.loads((path / STATE).read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError) as error:
        raise Broken(f"{STATE} cannot be read ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise Broken(f"{STATE} is of another format")
    try:
        files, progress = dict(values["files"]), dict(values["progress"])
        progress["random"] = base64.b64decode(progress["random"])
        kept = {name: values[name] for name in ("numbers", "why", "stays")}
        stored = Stored(path, Progress(**progress), dict(values["run"]), **kept)
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(f"{STATE} is not as it was written ({error})") from error
    for name, digest in files.items():
        try:
            whole = _sha256(path / name) == digest
        except FileNotFoundError as error:
            raise Broken(f"{name} is missing") from error
        if not whole:
            raise Broken(f"{name} is not as it was written")
    return stored


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole: beside its place, forced to the disk, then renamed."""
    fresh = path.parent / f"{TEMPORARY}{path.name}.{secrets.token_hex(4)}"
    try:
        fresh.write_text(text, "utf-8")
        _sync(fresh)
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


# -- files


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """``save_file``, which has an error of its own for a disk that is full or refuses, with Python's."""
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _values(checkpoint: Checkpoint, files: Mapping[str, str]) -> dict[str, Any]:
    progress = asdict(checkpoint.progress)
    return {
        "format": FORMAT,
        "why": checkpoint.why,
        "stays": checkpoint.stays,
        "progress": {**progress, "random": base64.b64encode(progress["random"]).decode()},
        "run": dict(checkpoint.run),
        "numbers": dict(checkpoint.numbers),
        "files": dict(files),
    }


def _stays(path: Path) -> bool | None:
    """Whether a checkpoint is to stay; None where it does not say."""
    try:
        return json.loads((path / STATE).read_text("utf-8"))["stays"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def _discard(path: Path) -> None:
    """Remove a folder; from its first moment on it no longer has the name of a checkpoint."""
    aside = path.parent / f"{TEMPORARY}{path.name}.{secrets.token_hex(4)}"
    os.replace(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Where the system knows it (Windows does not)."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""What is to be trained from what, as files say it: ``run.json`` of a run, or settings written by hand.

>>> plan = read_plan("output/acestep/runs/jazz")      # to go on with a run, wherever it was begun
>>> plan = read_plan("jazz.yaml")                     # to begin one
>>> train(model, plan.items(width), plan.settings, folder)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..song import Song, make_song
from .items import ItemError, TrainItem
from .limits import EVERY_RANGE
from .places import RUN
from .published import load_tensors
from .settings import CHOICES, SWITCHES, TrainSettings

NAMES = ("run", "model", "text_encoder", "vae", "tensors", "settings", "samples")
"""What a file of settings may say."""
SAMPLE_NAMES = (
    "every",
    "seed",
    "caption",
    "lyrics",
    "language",
    "instrumental",
    "bpm",
    "key",
    "time_signature",
    "duration",
)
ENDINGS = (".json", ".yaml", ".yml")
LARGEST_BYTES = 20_000_000


class PlanError(ValueError):
    """A file that is no run and no settings, or says what cannot be."""


@dataclass(frozen=True)
class Plan:
    """A run to begin or to go on with.

    Attributes:
        folder: of the run; None where only its name is known. name: of the run.
        settings: of training. model: a name or a file; "" for any. kind: turbo, sft or base, "" to find out.
        text_encoder, vae: names or files, for samples; "" for any.
        tensors: their folder, "" for a run, which knows its ``files``: (path, repeats) of each item.
        samples: what :class:`samples.Samples` is made of, with the song's fields side by side; empty for none.
    """

    folder: Path | None
    name: str
    settings: TrainSettings
    model: str = ""
    kind: str = ""
    text_encoder: str = ""
    vae: str = ""
    tensors: str = ""
    files: tuple[tuple[str, int], ...] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)

    def items(self, width: int | None = None) -> tuple[TrainItem, ...]:
        """What there is to learn from; ``width`` is that of the model's conditions.

        Raises:
            ItemError: tensors are gone or cannot be used. PlanError: the file does not say where they are.
        """
        if self.tensors:
            return load_tensors(self.tensors, width).items
        if not self.files:
            raise PlanError(f"{self.name} does not say where its tensors are. Give their folder with --tensors.")
        loaded: dict[str, TrainItem] = {}
        for folder in dict.fromkeys(str(Path(path).parent) for path, _ in self.files):
            loaded |= {item.path: item for item in load_tensors(folder, width).items}
        gone = [path for path, _ in self.files if path not in loaded]
        if gone:
            raise ItemError(f"{gone[0]}, which {self.name} learns from, is gone. Give the folder with --tensors.")
        return tuple(replace(loaded[path], repeat=repeat) for path, repeat in self.files)


def read_plan(path: str | Path) -> Plan:
    """The plan that a folder of a run or a file of settings tells.

    Raises:
        PlanError: there is none; the message says what was expected.
    """
    path = Path(path)
    if path.name == RUN:
        path = path.parent
    if path.is_dir():
        if not (path / RUN).is_file():
            raise PlanError(f"{path} is no folder of a run: there is no {RUN} in it.")
        return _of_run(path, _mapping(path / RUN))
    if path.suffix.lower() not in ENDINGS or not path.is_file():
        raise PlanError(
            f"There is no run and no settings file {path}. Give a folder with {RUN}, a JSON or a YAML file."
        )
    return _of_settings(path, _mapping(path))


def with_settings(settings: TrainSettings, assignments: list[str]) -> TrainSettings:
    """``settings`` with ``name=value`` of each assignment.

    >>> with_settings(TrainSettings(), ["rank=16", "mlp=on"]).mlp
    True

    Raises:
        PlanError: no such setting, or a value that is not allowed.
    """
    values = settings.values()
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name, text = name.strip(), text.strip()
        if not separator or name not in values:
            raise PlanError(f"{assignment!r} sets nothing. Write NAME=VALUE with one of {', '.join(values)}.")
        values[name] = _parsed(name, text)
    return _checked(values)


def _parsed(name: str, text: str) -> Any:
    """What ``text`` means as the value of a setting; as it is where it means nothing."""
    if name in SWITCHES:
        switch = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
        return switch.get(text.lower(), text)
    if name in CHOICES:
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _checked(values: Mapping[str, Any]) -> TrainSettings:
    try:
        return TrainSettings.from_values(values)
    except (ValueError, TypeError) as error:
        raise PlanError(str(error)) from error


def _mapping(path: Path) -> dict[str, Any]:
    """A small JSON or YAML file that holds names and values."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise PlanError(f"{path.name} is too large to be settings.")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} cannot be read ({error}).") from error
    try:
        if path.suffix.lower() == ".json":
            values = json.loads(text)
        else:
            import yaml

            values = yaml.safe_load(text)
    except Exception as error:  # both have errors of their own, and deep nesting another
        raise PlanError(f"{path.name} cannot be read: {str(error).splitlines()[0]}.") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise PlanError(f"{path.name} holds no settings; expected is one object with {', '.join(NAMES)}.")
    return values


def _of_run(folder: Path, values: Mapping[str, Any]) -> Plan:
    settings, items = values.get("settings"), values.get("items")
    if not isinstance(settings, dict):
        raise PlanError(f"{folder / RUN} has no settings in it; it is not the file of a run.")
    listed = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    whole = bool(listed) and all(isinstance(i.get("file"), str) and i["file"] for i in listed)
    samples = values.get("samples")
    return Plan(
        folder=folder,
        name=folder.name,
        settings=_checked(settings),
        model=_model_in(values, "model_files"),
        kind=str(values.get("model_kind") or ""),
        text_encoder=_model_in(values, "text_files"),
        vae=_model_in(values, "vae_files"),
        files=tuple((i["file"], i.get("repeat", 1)) for i in listed) if whole else (),
        samples=samples if isinstance(samples, dict) else {},
    )


def _model_in(values: Mapping[str, Any], name: str) -> str:
    files = values.get(name)
    return model_of([str(file) for file in files] if isinstance(files, list) else [])


def holds_tensors(folder: Path) -> bool:
    """Whether there are any in ``folder``; one with the songs they were made of may have their name."""
    return any(True for ending in ("*.safetensors", "**/*.pt") for _ in folder.glob(ending))


def model_of(files: list[str]) -> str:
    """What to load again of the weight ``files`` that a model was loaded from: the one, or their folder."""
    if len(files) > 1:
        return str(Path(files[0]).parent)
    return files[0] if files else ""


def _of_settings(path: Path, values: Mapping[str, Any]) -> Plan:
    unknown = sorted(set(values) - set(NAMES))
    if unknown:
        raise PlanError(f"{path.name} says {unknown[0]}, which means nothing here; known are {', '.join(NAMES)}.")
    for name in ("settings", "samples"):
        if not isinstance(values.get(name, {}) or {}, dict):
            raise PlanError(f"{name} in {path.name} is no list of names and values.")
    for name in set(NAMES) - {"settings", "samples"}:
        if not isinstance(values.get(name, ""), str):
            raise PlanError(f"{name} in {path.name} is {values[name]!r}; expected is text.")
    tensors = values.get("tensors", "")
    if not tensors:
        raise PlanError(f"{path.name} does not say its tensors: the folder that was preprocessed.")
    beside = path.parent / Path(tensors).expanduser()  # else the name of tensors of ours
    samples = dict(values.get("samples") or {})
    if samples.get("every", 1) == 0:
        samples = {}
    if samples:
        _check_samples(path, samples)
    written = dict(values.get("settings") or {})  # YAML reads 1e-4 as text
    settings = {name: _parsed(name, value) if isinstance(value, str) else value for name, value in written.items()}
    return Plan(
        folder=None,
        name=values.get("run") or path.stem,
        settings=_checked(settings),
        model=values.get("model", ""),
        text_encoder=values.get("text_encoder", ""),
        vae=values.get("vae", ""),
        tensors=str(beside) if holds_tensors(beside) else tensors,
        samples=samples,
    )


def _check_samples(path: Path, samples: Mapping[str, Any]) -> None:
    unknown = sorted(map(str, set(samples) - set(SAMPLE_NAMES)))
    if unknown:
        raise PlanError(f"samples in {path.name} say {unknown[0]}; known are {', '.join(SAMPLE_NAMES)}.")
    low, high = EVERY_RANGE
    every = samples.get("every", low)
    try:
        if isinstance(every, bool) or not isinstance(every, int) or not low <= every <= high:
            raise ValueError(
                f"every is {every!r}; allowed is a whole number from {low} to {high}, or 0 for no samples."
            )
        song = song_of(samples)
        if not (song.caption or song.sung.strip()):
            raise ValueError("they need a caption or lyrics.")
    except (ValueError, TypeError) as error:
        raise PlanError(f"samples in {path.name}: {error}") from error


def song_of(samples: Mapping[str, Any]) -> Song:
    """The song of ``samples``."""
    return make_song(**{name: value for name, value in samples.items() if name not in ("every", "seed")})

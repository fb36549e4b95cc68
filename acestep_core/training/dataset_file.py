"""The published data set file: one JSON object with ``metadata`` and ``samples``.

Read generously: a bare list of samples, an object with ``samples`` alone, and other programs' names of the fields are
taken too; what cannot be is named, sample by sample. Written whole or not at all, with the fields of others kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .dataset import (
    DEFAULT_NAME,
    GENRE_RATIO_RANGE,
    TAG_POSITIONS,
    Dataset,
    DatasetError,
    Found,
    Sample,
    make_sample,
    parse_field,
    parse_flag,
    unique_names,
    written_lyrics,
)

LARGEST_BYTES = 200_000_000
NAME = "name"
"""Our own field of a sample: its name within the data set, which the file name alone does not tell."""
_FIELDS = {
    "caption": ("caption",),
    "genre": ("genre", "genres"),
    "lyrics": ("lyrics",),
    "raw_lyrics": ("raw_lyrics",),
    "formatted_lyrics": ("formatted_lyrics",),
    "bpm": ("bpm", "tempo"),
    "key": ("keyscale", "key", "key_scale"),
    "time_signature": ("timesignature", "time_signature"),
    "duration": ("duration",),
    "language": ("language", "vocal_language"),
    "instrumental": ("is_instrumental", "instrumental"),
    "tag": ("custom_tag", "trigger"),
    "labelled": ("labeled", "labelled"),
    "prompt": ("prompt_override",),
    "repeat": ("repeat",),
}
"""Our fields and what files call them; the first is written."""
_PATHS = ("audio_path", "path", "audio", "file")
_METADATA = ("name", "custom_tag", "tag_position", "created_at", "num_samples", "all_instrumental", "genre_ratio")
_KNOWN = {*(n for names in _FIELDS.values() for n in names), *_PATHS, "filename", "id", NAME}


def load(path: str | os.PathLike) -> Found:
    """Read a data set file. Recordings that are gone stay in the data set and are named.

    Relative paths start from the folder of the file. A recording that is not where the file says, but lies beside
    it under the same name, is found there.

    Raises:
        DatasetError: no such file, no data set, or not one usable sample in it; it tells the reasons.
    """
    path = Path(os.path.abspath(path))
    data = _parsed(path)
    top = {"samples": data} if isinstance(data, list) else data
    if not isinstance(top, dict) or not isinstance(top.get("samples"), list):
        raise DatasetError(f'{path.name} is no data set: it needs a list "samples".')
    remarks: list[tuple[str, str]] = []
    refused: list[tuple[str, str]] = []
    settings = _settings(top.get("metadata"), path, remarks)
    others = {name: value for name, value in top.items() if name not in ("metadata", "samples")}
    if others:
        settings["extra"] = {**settings["extra"], _TOP: others}
    samples: list[Sample] = []
    entries = [(number, entry) for number, entry in enumerate(top["samples"], start=1)]
    for number, entry in entries:
        try:
            sample, said = _sample(entry, number, path.parent, settings["tag"])
        except DatasetError as error:
            refused.append((f"sample {number}", str(error)))
            continue
        samples.append(sample)
        remarks += [(sample.name, text) for text in said]
    if not samples:
        reasons = "".join(f"\n{name}: {reason}" for name, reason in refused)
        raise DatasetError(f"{path.name} holds no sample that can be used.{reasons}")
    return Found(Dataset(samples=_distinct(samples), **settings), tuple(refused), tuple(remarks))


def fingerprint(path: str | os.PathLike) -> str:
    """SHA-256 over names, sizes and times of a data set file and of every recording that it names."""
    path, digest = Path(os.path.abspath(path)), hashlib.sha256()
    for place in (path, *_recordings(path)):
        try:
            about = os.stat(place)
            state = f"{about.st_size} {about.st_mtime_ns}"
        except (OSError, ValueError):
            state = "missing"
        digest.update(f"{place} {state}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _recordings(path: Path) -> list[Path]:
    """Where the recordings of a data set file are or should be; none where :func:`load` will say what is wrong."""
    try:
        data = _parsed(path)
    except DatasetError:
        return []
    entries = data.get("samples") if isinstance(data, dict) else data
    given = map(_named, entries) if isinstance(entries, list) else ()
    return [_place(name, path.parent, []) for name in given if name]


_TOP = "\0top"
"""Where the extra fields of a data set keep those beside metadata and samples."""


def _parsed(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise DatasetError(f"{path.name} has more than {LARGEST_BYTES // 1_000_000} MB; it is no data set file.")
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be opened ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path.name} is no valid JSON in UTF-8 ({error}).") from error


def _settings(metadata: object, path: Path, remarks: list[tuple[str, str]]) -> dict[str, Any]:
    """Settings of the data set; what is wrong becomes the default, with a remark."""
    if not isinstance(metadata, (Mapping, type(None))):
        remarks.append((path.name, f"metadata is {metadata!r}, not an object; it is left out."))
    given = metadata if isinstance(metadata, Mapping) else {}
    low, high = GENRE_RATIO_RANGE
    checks: dict[str, tuple[str, Any, Any, str]] = {
        "name": ("name", DEFAULT_NAME if metadata else path.stem, lambda v: _text(v), "text"),
        "custom_tag": ("tag", "", lambda v: _text(v).strip(), "text"),
        "tag_position": ("tag_position", "prepend", lambda v: _one_of(v, TAG_POSITIONS), ", ".join(TAG_POSITIONS)),
        "created_at": ("created", "", lambda v: _text(v), "text"),
        "all_instrumental": ("all_instrumental", True, lambda v: parse_flag("", v), "true or false"),
        "genre_ratio": ("genre_ratio", 0, lambda v: _whole(v, low, high), f"{low} to {high}"),
    }
    found: dict[str, Any] = {}
    for name, (field, default, parse, allowed) in checks.items():
        value = given.get(name)
        found[field] = default
        if value is not None:
            try:
                found[field] = parse(value)
            except ValueError:
                text = f"{name} is {value!r}; allowed is {allowed}. {default!r} is taken."
                remarks.append((path.name, text))
    found["extra"] = {name: value for name, value in given.items() if name not in _METADATA}
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value.encode("utf-8", "replace").decode()


def _one_of(value: object, allowed: Sequence[str]) -> Any:
    if value not in allowed:
        raise ValueError
    return value


def _whole(value: object, low: int, high: int) -> int:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or value != int(value):
        raise ValueError
    return int(value)


def _sample(entry: object, number: int, folder: Path, tag: str) -> tuple[Sample, list[str]]:
    if not isinstance(entry, Mapping):
        raise DatasetError(f"it is {entry!r:.80}, not an object.")
    given = _named(entry)
    if not given:
        raise DatasetError("it names no audio file under audio_path.")
    said: list[str] = []
    place = _place(given, folder, said)
    values: dict[str, Any] = {}
    for field, names in _FIELDS.items():
        written = next((name for name in names if entry.get(name) is not None), None)
        if written is None:
            continue
        try:
            values[field] = parse_field(field, _forgiven(field, entry[written]))
        except DatasetError as error:
            said.append(f"{error} It is left open.")
    if values.get("tag") == tag:
        del values["tag"]
    values.setdefault("labelled", bool(values.get("caption")))
    if "instrumental" not in values:
        values["instrumental"] = not values.get("lyrics", "").strip()
    name, digits = entry.get(NAME), entry.get("id")
    shown = name if isinstance(name, str) and name else re.split(r"[/\\]", given)[-1] or f"sample {number}"
    if isinstance(digits, str) and re.fullmatch(r"[\w.-]{1,64}", digits, re.ASCII):
        values["id"] = digits
    elif digits is not None:
        said.append(f"id is {digits!r:.80}; allowed are letters, digits, - and _. It gets none.")
    extra = {key: value for key, value in entry.items() if key not in _KNOWN}
    return make_sample(shown.encode("utf-8", "replace").decode(), place, extra=extra, **values), said


def _named(entry: object) -> str:
    """The recording that an entry names; "" for none."""
    values = entry if isinstance(entry, Mapping) else {}
    given = next((values[name] for name in (*_PATHS, "filename") if values.get(name) not in (None, "")), None)
    if not isinstance(given, str) or "\0" in given:
        return ""
    return given.encode("utf-8", "replace").decode()


def _forgiven(field: str, value: Any) -> Any:
    """What files have where the interfaces that wrote them meant nothing, or a number as text."""
    if field == "prompt" and isinstance(value, str) and value not in ("caption", "genre"):
        return None if value.strip().lower() in ("", "none", "use global ratio") else value
    if field == "duration" and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if field == "genre" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return value


def _place(given: str, folder: Path, said: list[str]) -> Path:
    """Where a recording is: as written, with Windows separators, or by its name beside the file."""
    path = Path(os.path.abspath(folder / given))
    for place in (path, Path(os.path.abspath(folder / given.replace("\\", "/")))):
        if _is_file(place):
            return place
    beside = folder / re.split(r"[/\\]", given)[-1]
    if _is_file(beside):
        said.append(f"{given} is not there; the file of this name beside the data set is taken.")
        return beside
    said.append(f"its recording {given} is not there; put it back before preprocessing.")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _distinct(samples: list[Sample]) -> tuple[Sample, ...]:
    """``samples`` with names of their own, and ids that no other has."""
    taken: set[str] = set()
    made = []
    for sample, name in zip(samples, unique_names(sample.name for sample in samples), strict=True):
        again = sample.id in taken
        taken.add(sample.id)
        made.append(replace(sample, name=name, id="" if again else sample.id))
    return tuple(made)


def save(dataset: Dataset, path: str | os.PathLike, *, relative: bool = False) -> Path:
    """Write a data set file; what was there is replaced only by a whole one.

    Args:
        relative: paths of recordings below the folder of the file are written from there, so that the folder can
            move; the original reads such paths from the folder it was started in.

    Raises:
        DatasetError: it cannot be written there.
    """
    path = Path(os.path.abspath(path))
    text = json.dumps(as_json(dataset, path.parent if relative else None), ensure_ascii=False, indent=2)
    part = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(text.encode("utf-8", "replace") + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DatasetError(f"{path} cannot be written ({error.strerror}).") from error
    return path


def as_json(dataset: Dataset, folder: Path | None = None) -> dict[str, Any]:
    """The content of the file, with paths from ``folder`` where that is possible."""
    extra = dict(dataset.extra)
    top = extra.pop(_TOP, {})
    metadata = {
        "name": dataset.name,
        "custom_tag": dataset.tag,
        "tag_position": dataset.tag_position,
        "created_at": dataset.created or time.strftime("%Y-%m-%dT%H:%M:%S"),
        "num_samples": len(dataset),
        "all_instrumental": dataset.all_instrumental,
        "genre_ratio": dataset.genre_ratio,
        **extra,
    }
    return {"metadata": metadata, "samples": [_entry(sample, dataset, folder) for sample in dataset.samples], **top}


def _entry(sample: Sample, dataset: Dataset, folder: Path | None) -> dict[str, Any]:
    values = {
        **{names[0]: getattr(sample, field) for field, names in _FIELDS.items()},
        "lyrics": written_lyrics(sample),
        "custom_tag": sample.tag or dataset.tag,
        "prompt_override": sample.prompt or None,
        "duration": int(sample.duration) if sample.duration == int(sample.duration) else sample.duration,
    }
    if sample.repeat == 1:
        del values["repeat"]
    path = Path(os.path.abspath(sample.path))
    inside = folder is not None and path.is_relative_to(folder)
    place = path.relative_to(folder).as_posix() if inside else str(path)
    return {"id": sample.id, NAME: sample.name, "audio_path": place, "filename": path.name, **values, **sample.extra}

"""What an adapter learns from: a :class:`Dataset` of :class:`Sample` values. Edits give new ones.

>>> found = scan("my songs")                                        # training.scan
>>> songs = configured(found.dataset, tag="hrbrtape", tag_position="prepend")
>>> songs = with_edits(songs, {"tide.flac": {"bpm": 84, "caption": "slow folk, nylon guitar"}})
>>> save(songs, "my songs/dataset.json")                            # training.dataset_file
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..song import (
    INSTRUMENTAL,
    LANGUAGES,
    UNKNOWN_LANGUAGE,
    make_song,
    parse_bpm,
    parse_key,
    parse_time_signature,
)
from .limits import GENRE_RATIO_RANGE, PROMPTS, REPEAT_RANGE, TAG_POSITIONS

DEFAULT_NAME = "untitled_dataset"
INSTRUMENTAL_LANGUAGE = "instrumental"
"""Some files give this for the language of a piece without words."""


class DatasetError(ValueError):
    """A data set that cannot be made or read, or a value it cannot hold."""


@dataclass(frozen=True)
class Sample:
    """One recording and what is known of it. Make one with :func:`make_sample`, change it with :func:`edited`.

    Attributes:
        name: unique in the data set, the path within it with ``/``. path: the audio file. id: eight hex digits or more.
        caption, genre: what the prompt can be made of. prompt: one of :data:`PROMPTS`.
        lyrics: what is sung. raw_lyrics: as found beside the recording. formatted_lyrics: as the planner wrote them.
        instrumental: lyrics do not count. language, bpm, key, time_signature: as in :class:`song.Song`.
        duration: seconds, 0 for not known. tag: activation tag, "" for that of the data set.
        labelled: whether it is ready to be learned from. repeat: how often it comes in an epoch.
        extra: fields of other programs, kept.
    """

    name: str
    path: Path
    id: str = ""
    caption: str = ""
    genre: str = ""
    lyrics: str = ""
    raw_lyrics: str = ""
    formatted_lyrics: str = ""
    language: str = UNKNOWN_LANGUAGE
    instrumental: bool = True
    bpm: int | None = None
    key: str = ""
    time_signature: str = ""
    duration: float = 0.0
    tag: str = ""
    prompt: str = ""
    labelled: bool = False
    repeat: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def silent(self) -> bool:
        """Whether nothing is sung: it is an instrumental, or there are no lyrics."""
        return self.instrumental or not self.lyrics.strip()


EDITABLE = (
    *("caption", "genre", "prompt", "lyrics", "language", "instrumental", "bpm", "key", "time_signature"),
    *("tag", "labelled", "repeat"),
)
"""Fields that :func:`edited` changes."""


def make_sample(name: str, path: str | Path, **values: Any) -> Sample:
    """A checked Sample.

    Raises:
        DatasetError: which field, what it was, what is allowed.
    """
    known = {entry.name for entry in fields(Sample)} - {"name", "path"}
    for wrong in set(values) - known:
        raise DatasetError(f"A sample has no field {wrong!r}; there are {', '.join(sorted(known))}.")
    if not isinstance(name, str) or not name:
        raise DatasetError(f"A sample needs a name, not {name!r}.")
    checked = {field_name: _checked(field_name, value) for field_name, value in values.items()}
    return Sample(name, Path(path), **checked)


def edited(sample: Sample, **changes: Any) -> Sample:
    """``sample`` with some of its :data:`EDITABLE` fields changed, checked as :func:`make_sample` does.

    New lyrics make it a sung piece and a new caption a labelled one, unless the same edit says otherwise.

    >>> edited(sample, bpm=84, key="Am", lyrics="[Verse]\\nGrey boats come in").instrumental
    False
    """
    for wrong in set(changes) - set(EDITABLE):
        raise DatasetError(f"{sample.name}: {wrong!r} cannot be edited; allowed is {', '.join(EDITABLE)}.")
    try:
        checked = {name: _checked(name, value) for name, value in changes.items()}
    except DatasetError as error:
        raise DatasetError(f"{sample.name}: {error}") from error
    if "lyrics" in checked and "instrumental" not in checked:
        checked["instrumental"] = not checked["lyrics"].strip()
    if checked.get("caption") and "labelled" not in checked:
        checked["labelled"] = True
    return replace(sample, **checked)


@dataclass(frozen=True)
class Dataset:
    """Samples and what they share.

    Attributes:
        tag: activation tag of every sample without one of its own; tag_position: one of :data:`TAG_POSITIONS`.
        all_instrumental: samples found without lyrics are instrumentals.
        genre_ratio: percent of the samples whose prompt is made of the genre.
        created: ISO 8601, "" for not saved yet. extra: fields of other programs, kept.
    """

    name: str = DEFAULT_NAME
    samples: tuple[Sample, ...] = ()
    tag: str = ""
    tag_position: str = "prepend"
    all_instrumental: bool = True
    genre_ratio: int = 0
    created: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.tag, str):
            raise DatasetError("Name and tag of a data set must be text.")
        if self.tag_position not in TAG_POSITIONS:
            raise DatasetError(f"tag position is {self.tag_position!r}; allowed is {', '.join(TAG_POSITIONS)}.")
        if not isinstance(self.all_instrumental, bool):
            raise DatasetError(f"all instrumental is {self.all_instrumental!r}; allowed is true or false.")
        _check_whole("genre ratio", self.genre_ratio, GENRE_RATIO_RANGE)
        for what in ("name", "id"):
            seen: set[str] = set()
            for sample in self.samples:
                value = getattr(sample, what)
                if value in seen:
                    raise DatasetError(f"Two samples have the {what} {value!r}; give each its own.")
                seen.update([value] if value else [])

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labelled(self) -> tuple[Sample, ...]:
        """The samples that can be learned from."""
        return tuple(sample for sample in self.samples if sample.labelled)

    def index_of(self, which: str | int) -> int:
        """Position of a sample: by number from 0, by ``#1`` for the first, by id, by name, or by file name.

        Raises:
            DatasetError: there is none, or several.
        """
        if isinstance(which, int) and not isinstance(which, bool):
            places = [which] if 0 <= which < len(self) else []
        elif isinstance(which, str) and which[:1] == "#" and which[1:].isdecimal():
            places = [int(which[1:]) - 1] if 0 < int(which[1:]) <= len(self) else []
        else:
            ways = (lambda s: s.id, lambda s: s.name, lambda s: s.path.name)
            found = ([i for i, s in enumerate(self.samples) if way(s) == which] for way in ways)
            places = next((hits for hits in found if hits), [])
        if len(places) != 1:
            problem = "Several samples are" if places else "There is no sample"
            raise DatasetError(f"{problem} {which!r} among the {len(self)}; give its name within the data set, or #1.")
        return places[0]

    def with_sample(self, index: int, sample: Sample) -> Dataset:
        return replace(self, samples=(*self.samples[:index], sample, *self.samples[index + 1 :]))

    def table(self) -> str:
        """An overview to read: a line a sample."""
        rows = [("#", "file", "length", "lyrics", "labelled", "bpm", "key", "caption")]
        for number, sample in enumerate(self.samples, start=1):
            seconds = f"{int(sample.duration) // 60}:{int(sample.duration) % 60:02d}" if sample.duration else "?"
            sung = "instrumental" if sample.silent else "found" if sample.lyrics == sample.raw_lyrics else "written"
            head = " ".join(sample.caption.split())[:40]
            labelled = "yes" if sample.labelled else "no"
            about = (str(sample.bpm or "auto"), sample.key or "auto", head)
            rows.append((str(number), sample.name, seconds, sung, labelled, *about))
        widths = [min(40, max(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def configured(
    dataset: Dataset,
    *,
    name: str | None = None,
    tag: str | None = None,
    tag_position: str | None = None,
    all_instrumental: bool | None = None,
    genre_ratio: int | None = None,
) -> Dataset:
    """``dataset`` with some of its own settings changed; None keeps one.

    ``tag`` also takes the place of tags that samples have of their own. ``all_instrumental`` decides about samples
    found without lyrics; those found with some are sung.
    """
    given = {
        **{"name": name, "tag": None if tag is None else _checked("tag", tag)},
        **{"tag_position": tag_position, "all_instrumental": all_instrumental, "genre_ratio": genre_ratio},
    }
    changed = replace(dataset, **{key: value for key, value in given.items() if value is not None})
    samples = changed.samples
    if tag is not None:
        samples = tuple(replace(sample, tag="") for sample in samples)
    if all_instrumental is not None:
        samples = tuple(_told(sample, all_instrumental) for sample in samples)
    return replace(changed, samples=samples)


def _told(sample: Sample, all_instrumental: bool) -> Sample:
    if not sample.raw_lyrics.strip():
        return replace(sample, instrumental=all_instrumental)
    return replace(sample, instrumental=False, lyrics=sample.lyrics or sample.raw_lyrics)


def with_edits(dataset: Dataset, edits: Mapping[str, Mapping[str, Any]]) -> Dataset:
    """``dataset`` after edits: for each sample (see :meth:`Dataset.index_of`) the fields to change.

    Raises:
        DatasetError: no such sample or field, or a value that is not allowed. All edits are made, or none.
    """
    for which, changes in edits.items():
        index = dataset.index_of(which)
        if not isinstance(changes, Mapping) or not all(isinstance(name, str) for name in changes):
            raise DatasetError(f"The edits of {which!r} must be fields and values, such as {{'bpm': 90}}.")
        dataset = dataset.with_sample(index, edited(dataset.samples[index], **changes))
    return dataset


def parse_edits(text: str) -> dict[str, dict[str, Any]]:
    """Edits from JSON text, as a workflow keeps them; empty text is no edits.

    >>> parse_edits('{"#1": {"caption": "slow folk"}, "live/tide.flac": {"bpm": 84}}')["#1"]
    {'caption': 'slow folk'}
    """
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"The edits are no valid JSON: {error}.") from error
    if not isinstance(found, dict) or not all(isinstance(changes, dict) for changes in found.values()):
        raise DatasetError('The edits must be an object of objects, such as {"#1": {"bpm": 90}}.')
    return found


def as_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Every sample as plain values, for a table: its name, its seconds and all :data:`EDITABLE` fields."""
    return [
        {"name": sample.name, "seconds": sample.duration, **{name: getattr(sample, name) for name in EDITABLE}}
        for sample in dataset.samples
    ]


def unique_names(names: Iterable[str]) -> list[str]:
    """``names`` with a number behind every one that was there before."""
    taken: set[str] = set()
    result = []
    for name in names:
        number, free = 2, name
        while free in taken:
            free, number = f"{name} ({number})", number + 1
        taken.add(free)
        result.append(free)
    return result


# -- single fields


def parse_language(value: object) -> str:
    """A code of :data:`song.LANGUAGES`; nothing at all, N/A and ``instrumental`` are ``unknown``."""
    text = value.strip().lower() if isinstance(value, str) else "" if value is None else str(value)
    if text in ("", "n/a", "auto", "none", INSTRUMENTAL_LANGUAGE):
        return UNKNOWN_LANGUAGE
    if text not in LANGUAGES:
        raise DatasetError(f"language is {value!r}; allowed is {', '.join(LANGUAGES)}.")
    return text


def parse_flag(name: str, value: object) -> bool:
    """True or false, also written as words or 0 and 1."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
    text = str(value).strip().lower()
    if not isinstance(value, (bool, str, int)) or text not in words:
        raise DatasetError(f"{name} is {value!r}; allowed is true or false.")
    return words[text]


def parse_lyrics(value: object) -> str:
    """Lyrics with plain line ends; those that only say instrumental are none."""
    song = make_song(lyrics=_text("lyrics", value))
    return "" if song.instrumental or not song.lyrics.strip() else song.lyrics


def parse_seconds(value: object) -> float:
    """Seconds from 0, which is not known."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if value is None:
        return 0.0
    if number is None or not 0 <= number < 1e6:
        raise DatasetError(f"duration is {value!r}; allowed is a number of seconds.")
    return float(number)


def parse_repeat(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    return _check_whole("repeat", value, REPEAT_RANGE)


def parse_prompt(value: object) -> str:
    """One of :data:`PROMPTS`; None is ""."""
    text = "" if value is None else value
    if text not in PROMPTS:
        raise DatasetError(f"prompt is {value!r}; allowed is caption, genre, or nothing for the ratio of the data set.")
    return str(text)


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DatasetError(f"{name} is {value!r}; it must be text.")
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode()
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _check_whole(name: str, value: object, limits: tuple[int, int]) -> int:
    low, high = limits
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DatasetError(f"{name} is {value!r}; allowed is a whole number from {low} to {high}.")
    return value


def _extra(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DatasetError("extra must be a mapping of fields.")
    return dict(value)


_PARSERS = {
    "lyrics": parse_lyrics,
    "language": parse_language,
    "bpm": parse_bpm,
    "key": parse_key,
    "time_signature": parse_time_signature,
    "duration": parse_seconds,
    "prompt": parse_prompt,
    "repeat": parse_repeat,
    "extra": _extra,
}


def _checked(name: str, value: object) -> Any:
    try:
        if name in _PARSERS:
            return _PARSERS[name](value)
        if name in ("instrumental", "labelled"):
            return parse_flag(name, value)
        text = _text(name, value)
        return text if name in ("raw_lyrics", "formatted_lyrics") else text.strip()
    except DatasetError:
        raise
    except ValueError as error:
        raise DatasetError(str(error)) from error


def parse_field(name: str, value: object) -> Any:
    """``value`` as the field ``name`` of a :class:`Sample` holds it, or :class:`DatasetError`."""
    return _checked(name, value)


def written_lyrics(sample: Sample) -> str:
    """Lyrics as the published file has them: never empty."""
    return sample.lyrics if sample.lyrics.strip() else INSTRUMENTAL


# -- what became of files


@dataclass(frozen=True)
class Found:
    """A data set from outside, and what became of every file or entry.

    Attributes:
        refused: (name, reason) of what cannot be used. remarks: (name, what to know) of what was used differently.
    """

    dataset: Dataset
    refused: tuple[tuple[str, str], ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()

    def report(self) -> str:
        """Sentences to read."""
        count, labelled = len(self.dataset), len(self.dataset.labelled)
        minutes = sum(sample.duration for sample in self.dataset.samples) / 60
        lines = [f"{count} samples, {minutes:.1f} minutes, {labelled} labelled; {len(self.refused)} files not used."]
        lines += [f"Not used: {name}: {reason}" for name, reason in self.refused]
        lines += [f"{name}: {text}" for name, text in self.remarks]
        return "\n".join(lines)

"""From the planner's words back to values.

:func:`read` takes a reply apart as the original does; :func:`song_of` makes a checked song of it and forgives
what a model may get wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from ..song import (
    BPM_RANGE,
    DURATION_RANGE,
    LANGUAGES,
    UNKNOWN_LANGUAGE,
    Song,
    make_song,
    parse_key,
    parse_time_signature,
)
from ..tasks.codes import CODE_TOKEN, parse_item
from .prompts import END
from .prompts import FIELDS as PLAN_FIELDS
from .vocabulary import CONTROL

FIELDS = (*PLAN_FIELDS, "genres")
"""What is read; genres are written by older replies only."""
SYNONYMS = {
    "tempo": "bpm",
    "key": "keyscale",
    "key_scale": "keyscale",
    "time_signature": "timesignature",
    "vocal_language": "language",
}
_THOUGHT = re.compile(r"<think>(.*?)</think>|<reasoning>(.*?)</reasoning>", re.DOTALL)
_HEADER = re.compile(r"^#\s*Lyri[c|cs]?\s*\n", re.IGNORECASE)
_LOOSE_HEADER = re.compile(r"^(?:#\s*Languages?\s*\n[^\n#]*\n+)?(?:#\s*Lyrics?\s*(?:\n|$))?", re.IGNORECASE)
_BLOCK_MARKS = ("|", "|-", "|+", ">", ">-", ">+")


@dataclass(frozen=True)
class Reply:
    """A reply taken apart: ``metas`` under the model's names, lyrics as text, codes as numbers."""

    metas: dict[str, Any]
    lyrics: str
    codes: tuple[int, ...]


def read(raw: str) -> Reply:
    """Take a reply apart. Nothing is required: what is missing or cannot be read is simply not there."""
    metas: dict[str, Any] = {}
    for name, lines in _fields(raw).items():
        value = _joined(lines)
        if not value:
            continue
        if name in ("bpm", "duration"):
            metas[name] = _try(int, value, value)
        elif name in FIELDS:
            metas[name] = value
    return Reply(metas, _lyrics(raw), parse_item(raw))


def _thought(raw: str) -> str:
    match = _THOUGHT.search(raw)
    inner = (match[1] or match[2] or "").strip("\n") if match else ""
    return inner if inner.strip() else CODE_TOKEN.split(raw, maxsplit=1)[0]


def _fields(raw: str) -> dict[str, list[str]]:
    """The lines of every ``name: value`` of the thought; names in lower case, folded lines below their own."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in _thought(raw).split("\n"):
        if line.lstrip().startswith("<"):
            continue
        if line[:1] in (" ", "\t"):
            current.append(line)
        elif ":" in line:
            name, _, rest = line.partition(":")
            current = found[name.strip().lower()] = [rest]
    return found


def _joined(lines: list[str]) -> str:
    return " ".join(part for line in lines if (part := line.strip()))


def _lyrics(raw: str) -> str:
    _, end, after = raw.partition("</think>")
    after = _HEADER.sub("", after.strip()) if end else ""
    return after.strip().removesuffix(END).strip()


def song_of(raw: str) -> Song:
    """The song a reply describes. Values out of range are drawn into it; those that make no sense are left out."""
    fields = {SYNONYMS.get(name, name): _scalar(lines) for name, lines in _fields(raw).items()}
    language = fields.get("language", "").lower()
    return make_song(
        caption=_plain(fields.get("caption", "")),
        lyrics=clean_lyrics(_lyrics(raw)),
        language=language if language in LANGUAGES else UNKNOWN_LANGUAGE,
        bpm=_within(fields.get("bpm"), BPM_RANGE),
        key=_try(parse_key, fields.get("keyscale"), ""),
        time_signature=_try(parse_time_signature, fields.get("timesignature"), ""),
        duration=_within(fields.get("duration"), DURATION_RANGE),
    )


def clean_lyrics(text: str) -> str:
    """Lyrics without headers, control tokens and codes."""
    return _plain(_LOOSE_HEADER.sub("", text.strip())).strip()


def _plain(text: str) -> str:
    return "" if text.strip().upper() == "N/A" else CONTROL.sub("", text)


def _scalar(lines: list[str]) -> str:
    """A YAML scalar without its quotes or block mark, on one line."""
    plain = _joined(lines)
    mark, _, rest = plain.partition(" ")
    if mark in _BLOCK_MARKS:
        return rest
    if plain[:1] not in ("'", '"'):
        return plain
    value = _try(yaml.safe_load, "\n".join(lines), None)
    return " ".join(value.split()) if isinstance(value, str) else plain.strip(plain[0])


def _within(value: str | None, limits: tuple[float, float]) -> float | None:
    number = _try(float, value, math.nan)
    return min(max(number, limits[0]), limits[1]) if math.isfinite(number) else None


def _try(parse: Callable[[Any], Any], value: Any, otherwise: Any) -> Any:
    try:
        return parse(value)
    except (TypeError, ValueError, yaml.YAMLError):
        return otherwise

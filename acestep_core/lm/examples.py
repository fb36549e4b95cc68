"""The collection of example descriptions and songs, for whoever wants to begin somewhere."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..song import Song, make_song

Entry = TypeVar("Entry")
FILE = Path(__file__).resolve().parent.parent / "data" / "examples.json"


@dataclass(frozen=True)
class Description:
    """A song in a sentence, as one types it into Create Sample."""

    description: str
    instrumental: bool
    language: str


@functools.cache
def collection() -> dict[str, list[dict[str, Any]]]:
    """The whole collection as plain values: ``descriptions`` and ``songs``."""
    return json.loads(FILE.read_text(encoding="utf-8"))


@functools.cache
def _collection() -> tuple[tuple[Description, ...], tuple[Song, ...]]:
    data = collection()
    return (
        tuple(Description(**entry) for entry in data["descriptions"]),
        tuple(make_song(**entry) for entry in data["songs"]),
    )


def descriptions() -> tuple[Description, ...]:
    return _collection()[0]


def songs() -> tuple[Song, ...]:
    return _collection()[1]


def random_description(seed: int) -> Description:
    """The description that belongs to ``seed``."""
    return _drawn(descriptions(), seed)


def random_song(seed: int, language: str | None = None) -> Song:
    """The song that belongs to ``seed``, among those in ``language``.

    Raises:
        ValueError: there is no song in that language; says in which there are.
    """
    found = [song for song in songs() if language in (None, song.language)]
    if not found:
        there = ", ".join(sorted({song.language for song in songs()}))
        raise ValueError(f"There is no example song in {language!r}; there are some in {there}.")
    return _drawn(found, seed)


def _drawn(entries: Sequence[Entry], seed: int) -> Entry:
    """Mixed, but so that seeds in a row go through all entries before one comes again."""
    order = random.Random(len(entries)).sample(range(len(entries)), len(entries))
    return entries[order[seed % len(entries)]]

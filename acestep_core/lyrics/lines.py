"""Lines and words with times, from tokens with times."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..tokenizer import Tokenizer

_TAG = re.compile(r"(?:\[[^\]]*\]\s*)+")
_ALONE = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Characters that are words of their own: Han and kana."""
_JOINED = "ーゝゞヽヾ々ゃゅょぁぃぅぇぉゎっャュョァィゥェォヮッ"
"""Kana that go with what stands before them."""


@dataclass(frozen=True)
class Word:
    """Seconds from ``start`` to ``end``; the texts of a line's words make up the line."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Line:
    """One line of the lyrics.

    Attributes:
        start, end: seconds. confidence: 0 to 1, how strongly the music attends to it along its path.
        tag: whether it is a mark such as ``[Chorus]``, which is not sung.
    """

    text: str
    start: float
    end: float
    words: tuple[Word, ...]
    confidence: float = 0.0
    tag: bool = False


def make_lines(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    starts: Sequence[float],
    ends: Sequence[float],
    confidence: Sequence[float] | None = None,
) -> tuple[Line, ...]:
    """Lines of lyrics whose tokens ``ids`` sound from ``starts`` to ``ends`` (seconds, never falling).

    A line ends with the token that holds a newline; blank lines are dropped. Within a token that holds several
    characters, its time is shared evenly among them.
    """
    pieces, lines, first = tokenizer.bytes_of(ids), [], 0
    for index, piece in enumerate(pieces):
        if b"\n" not in piece and index + 1 < len(pieces):
            continue
        part = slice(first, index + 1)
        first = index + 1
        characters = list(_characters(pieces[part], starts[part], ends[part]))
        words = tuple(_words(characters))
        if not words:
            continue
        text = "".join(word.text for word in words)
        sure = 0.0 if confidence is None else float(np.mean(confidence[part]))
        span = round(float(starts[part.start]), 3), round(float(ends[index]), 3)
        lines.append(Line(text, *span, words, sure, bool(_TAG.fullmatch(text))))
    return tuple(lines)


def _characters(
    pieces: Sequence[bytes], starts: Sequence[float], ends: Sequence[float]
) -> Iterator[tuple[str, float, float]]:
    """Each character of a line with its times."""
    owner = [index for index, piece in enumerate(pieces) for _ in piece]
    whole = b"".join(pieces)
    text = whole.decode("utf-8", "replace")
    spans, place = [], 0
    for character in text:
        written = character.encode()
        size = len(written) if whole.startswith(written, place) else 1  # what could not be read counts byte by byte
        last = min(place + size, len(owner)) - 1
        if place < len(owner):
            spans.append((character, owner[place], owner[last]))
        place += size
    for token, group in itertools.groupby(spans, key=lambda span: span[1]):
        members = list(group)
        share = (ends[token] - starts[token]) / len(members)
        for number, (character, _, final) in enumerate(members):
            end = ends[final] if final != token else starts[token] + share * (number + 1)
            yield character, starts[token] + share * number, end


def _words(characters: Sequence[tuple[str, float, float]]) -> Iterator[Word]:
    """Words of a line without the space around it; the space between two words belongs to the second."""
    first, last = 0, len(characters)
    while first < last and characters[first][0].isspace():
        first += 1
    while last > first and characters[last - 1][0].isspace():
        last -= 1
    groups: list[list[tuple[str, float, float]]] = []
    for index in range(first, last):
        if groups and not _opens_word(characters[index][0], characters[index - 1][0]):
            groups[-1].append(characters[index])
        else:
            groups.append([characters[index]])
    begun = 0.0
    for group in groups:
        sounding = [part for part in group if not part[0].isspace()] or group
        begun = max(begun, round(float(sounding[0][1]), 3))
        end = max(begun, round(float(max(part[2] for part in sounding)), 3))
        yield Word("".join(part[0] for part in group), begun, end)


def _opens_word(character: str, before: str) -> bool:
    if character.isspace():
        return not before.isspace()
    if before.isspace():
        return False
    if _ALONE.match(character):
        return character not in _JOINED
    return bool(_ALONE.match(before)) and character.isalnum()

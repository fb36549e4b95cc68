"""Timed lyrics as text: LRC (a stamp a line, or also a word) and WebVTT."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .lines import Line

MERGE_MS = 2000
"""Lines that start within this time of the first of a group share one subtitle."""
UNKNOWN_LENGTH_MS, EMPTY_LENGTH_MS = 5000, 3000
_STAMP = re.compile(r"\[(\d+):(\d{1,2})[.:](\d{2,3})\]")
_BREAK = re.compile(r"\r\n|\n|\r")
"""Where WebVTT and LRC begin a new line; other separators are part of one."""
_WORD_STAMP = re.compile(r"<\d+:\d{1,2}[.:]\d{2,3}>")


def stamp(seconds: float) -> str:
    """``mm:ss.xx``, minutes with two digits or more; what rounds to 60 seconds is the next minute."""
    hundredths = round(float(f"{max(0.0, seconds):.2f}") * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes:02d}:{rest // 100:02d}.{rest % 100:02d}"


def lrc(lines: Sequence[Line], *, words: bool = False, ends: bool = False, tags: bool = True) -> str:
    """LRC text.

    Args:
        words: enhanced LRC, with a stamp ``<mm:ss.xx>`` before every word.
        ends: a second stamp for the end of each line. tags: keep marks such as ``[Chorus]``.
    """
    written = []
    for line in lines:
        if line.tag and not tags:
            continue
        text = "".join(_stamped(word.text, word.start) for word in line.words) if words else line.text
        written.append(f"[{stamp(line.start)}]{f'[{stamp(line.end)}]' if ends else ''}{text}")
    return "\n".join(written)


def _stamped(text: str, start: float) -> str:
    bare = text.lstrip()
    return f"{text[: len(text) - len(bare)]}<{stamp(start)}>{bare}"


def vtt(text: str, seconds: float = 0.0) -> str:
    """WebVTT from LRC ``text`` of a piece of ``seconds``, for players that show subtitles.

    Lines that start less than two seconds after the first of a group become one subtitle. It ends where the LRC
    says so, else with the next one, else with the piece.
    """
    total, groups = int(seconds * 1000), []
    for start, end, words in sorted(_read(text), key=lambda entry: entry[0]):
        if groups and start - groups[-1][0] < MERGE_MS:
            first, known, before = groups[-1]
            groups[-1] = (first, max((e for e in (known, end) if e is not None), default=None), f"{before}\n{words}")
        else:
            groups.append((start, end, words))
    out = ["WEBVTT", ""]
    for index, (start, end, words) in enumerate(groups):
        if end is None:
            following = groups[index + 1][0] if index + 1 < len(groups) else None
            end = following if following is not None else total if total > start else start + UNKNOWN_LENGTH_MS
        if end <= start:
            end = start + EMPTY_LENGTH_MS
        out += [str(index + 1), f"{_clock(start)} --> {_clock(end)}", words, ""]
    return "\n".join(out)


def _read(text: str) -> list[tuple[int, int | None, str]]:
    """(start, end or None, words) of each line, in milliseconds; lines without a stamp or words are left out."""
    found = []
    for line in _BREAK.split(text):
        stamps, rest = [], line.strip()
        while hit := _STAMP.match(rest):
            minutes, seconds, fraction = hit.groups()
            stamps.append((int(minutes) * 60 + int(seconds)) * 1000 + int(fraction.ljust(3, "0")))
            rest = rest[hit.end() :].lstrip()
        rest = _WORD_STAMP.sub("", rest).strip()
        if stamps and rest:
            found.append((stamps[0], stamps[1] if len(stamps) > 1 else None, _plain(rest)))
    return found


def _plain(words: str) -> str:
    """Words that a player takes as words: no arrow that would start a subtitle, no markup."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;")


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"

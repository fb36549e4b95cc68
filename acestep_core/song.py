"""What to make: one :class:`Song`, checked and put into the words the models know. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

LANGUAGES = (
    "ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt ro ru "
    "sa sk sr sv sw ta te th tl tr uk ur vi yue zh unknown"
).split()
UNKNOWN_LANGUAGE = "unknown"
NOTES = "ABCDEFG"
ACCIDENTALS = ("", "#", "b", "♯", "♭")
MODES = ("major", "minor")
KEYS = tuple(f"{note}{accidental} {mode}" for note in NOTES for accidental in ACCIDENTALS for mode in MODES)
TIME_SIGNATURES = ("2", "3", "4", "6")
BPM_RANGE = (30, 300)
DURATION_RANGE = (10.0, 600.0)
AUTO_DURATION = -1.0
AUTO_DURATION_RANGE = (10, 120)
CAPTION_LIMIT = 512
LYRICS_LIMIT = 4096
INSTRUMENTAL = "[Instrumental]"
AUTO = "auto"

_KEY = re.compile(r"([A-Ga-g])\s*(#|♯|b|♭|sharp|flat)?\s*(major|minor|maj|min|m|M)?", re.IGNORECASE)


@dataclass(frozen=True)
class Song:
    """Everything the models are told about a piece. Make one with :func:`make_song`.

    Attributes:
        caption: style, instruments, mood. lyrics: with section tags in square brackets.
        language: code of the sung language, or ``unknown``.
        bpm: 30 to 300, None for auto. key: one of :data:`KEYS`, "" for auto.
        time_signature: one of :data:`TIME_SIGNATURES`, "" for auto.
        duration: seconds, 10 to 600, or −1 for auto.
    """

    caption: str = ""
    lyrics: str = ""
    language: str = UNKNOWN_LANGUAGE
    instrumental: bool = False
    bpm: int | None = None
    key: str = ""
    time_signature: str = ""
    duration: float = AUTO_DURATION

    @property
    def sung(self) -> str:
        """The lyrics as the model gets them."""
        return INSTRUMENTAL if self.instrumental else self.lyrics

    @property
    def digest(self) -> str:
        """SHA-256 of every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def complete(self) -> bool:
        """Whether tempo, key, time signature and length are all given."""
        return bool(self.bpm and self.key and self.time_signature and self.duration > 0)

    def filled_from(self, other: Song) -> Song:
        """This song, with what it leaves open taken from ``other``: lyrics and language only where it is sung."""
        silent = self.instrumental or (not self.lyrics and other.instrumental)
        return replace(
            self,
            caption=self.caption or other.caption,
            lyrics=self.lyrics if silent else self.lyrics or other.lyrics,
            instrumental=silent,
            language=self.language if silent or self.language != UNKNOWN_LANGUAGE else other.language,
            bpm=self.bpm or other.bpm,
            key=self.key or other.key,
            time_signature=self.time_signature or other.time_signature,
            duration=self.duration if self.duration > 0 else other.duration,
        )

    def text(self) -> str:
        """Everything about the song, to read: a line a field, then the lyrics."""
        length = f"{self.duration:g} s" if self.duration > 0 else AUTO
        lines = [
            f"caption: {self.caption}",
            f"bpm: {self.bpm or AUTO}",
            f"key: {self.key or AUTO}",
            f"time signature: {self.time_signature or AUTO}",
            f"duration: {length}",
            f"language: {self.language}",
        ]
        return "\n".join([*lines, "", self.sung]).rstrip()

    def notes(self) -> tuple[str, ...]:
        """Sentences on what is unusual but allowed."""
        found = []
        if len(self.caption) >= CAPTION_LIMIT:
            found.append(f"The caption has {len(self.caption)} characters; beyond {CAPTION_LIMIT} its end may be lost.")
        if len(self.lyrics) >= LYRICS_LIMIT:
            found.append(f"The lyrics have {len(self.lyrics)} characters; beyond {LYRICS_LIMIT} their end may be lost.")
        return tuple(found)


def make_song(
    caption: str = "",
    lyrics: str = "",
    language: str = UNKNOWN_LANGUAGE,
    instrumental: bool = False,
    bpm: object = None,
    key: object = "",
    time_signature: object = "",
    duration: object = AUTO_DURATION,
) -> Song:
    """A checked Song. ``auto``, empty text, 0 and None mean auto for bpm, key and time signature.

    Raises:
        ValueError: which field, what it was, what is allowed.

    >>> make_song("warm jazz", key="F#m", time_signature="3/4").key
    'F# minor'
    """
    if not isinstance(caption, str) or not isinstance(lyrics, str):
        raise ValueError("caption and lyrics must be text.")
    if language not in LANGUAGES:
        raise ValueError(f"language is {language!r}; allowed is {', '.join(LANGUAGES)}.")
    lyrics = lyrics.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    silent = bool(instrumental) or _says_instrumental(lyrics)
    return Song(
        caption=caption.replace("\r\n", "\n").replace("\r", "\n").strip(),
        lyrics=lyrics,
        language=UNKNOWN_LANGUAGE if silent else language,
        instrumental=silent,
        bpm=parse_bpm(bpm),
        key=parse_key(key),
        time_signature=parse_time_signature(time_signature),
        duration=parse_duration(duration),
    )


def _says_instrumental(lyrics: str) -> bool:
    return lyrics.strip().lower() in ("[inst]", INSTRUMENTAL.lower())


def edited(song: Song, **changes: object) -> Song:
    """``song`` with some fields changed, checked as :func:`make_song` does.

    >>> edited(make_song("jazz", bpm=90), bpm=120, key="Am").key
    'A minor'
    """
    fields = {**asdict(song), **changes}
    if changes.get("instrumental") is False and _says_instrumental(fields["lyrics"]):
        fields["lyrics"] = ""
    return make_song(**fields)  # type: ignore[arg-type]


PARTS = {
    "caption": ("caption",),
    "lyrics": ("lyrics", "instrumental"),
    "language": ("language",),
    "metas": ("bpm", "key", "time_signature", "duration"),
}
"""What :func:`merged` chooses between, and the fields of each."""


def merged(song: Song, proposal: Song, prefer: Collection[str] = ()) -> Song:
    """``song`` completed by ``proposal``; of the :data:`PARTS` in ``prefer``, the proposal's comes first."""
    ours, theirs = song.filled_from(proposal), proposal.filled_from(song)
    return replace(ours, **{name: getattr(theirs, name) for part in prefer for name in PARTS[part]})


def _auto(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", AUTO, "n/a", "none"))


def parse_bpm(value: object) -> int | None:
    """Whole beats a minute, or None for auto (also 0)."""
    if _auto(value) or value == 0:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or not BPM_RANGE[0] <= round(number) <= BPM_RANGE[1]:
        raise ValueError(f"bpm is {value!r}; allowed is {BPM_RANGE[0]} to {BPM_RANGE[1]}, or 0 for auto.")
    return round(number)


def parse_key(value: object) -> str:
    """A key in the model's spelling: ``Am`` and ``a minor`` become ``A minor``; a bare note is major."""
    if _auto(value):
        return ""
    match = _KEY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"key is {value!r}; write a note and major or minor, such as C major, F# minor, Bb major, Am.")
    note, accidental, mode = match.group(1).upper(), match.group(2) or "", match.group(3) or "major"
    accidental = {"sharp": "#", "flat": "b", "B": "b"}.get(accidental.lower() or accidental, accidental.lower())
    minor = mode == "m" or mode.lower() in ("minor", "min")
    return f"{note}{accidental} {MODES[minor]}"


def parse_time_signature(value: object) -> str:
    """Beats in a bar as text: ``4/4`` and 4 become ``4``."""
    if _auto(value) or value == 0:
        return ""
    text = str(value).strip()
    numerator, slash, denominator = text.partition("/")
    if numerator.strip() not in TIME_SIGNATURES or (slash and not denominator.strip().isdigit()):
        allowed = ", ".join(f"{t} ({t}/{8 if t == '6' else 4})" for t in TIME_SIGNATURES)
        raise ValueError(f"time signature is {value!r}; allowed is {allowed}, or auto.")
    return numerator.strip()


def parse_duration(value: object) -> float:
    """Seconds, or −1 for auto (also None and 0)."""
    if _auto(value):
        return AUTO_DURATION
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if seconds in (AUTO_DURATION, 0):
        return AUTO_DURATION
    if isinstance(value, bool) or not DURATION_RANGE[0] <= seconds <= DURATION_RANGE[1]:
        low, high = DURATION_RANGE
        raise ValueError(f"duration is {value!r}; allowed is {low:g} to {high:g} seconds, or -1 for auto.")
    return seconds


def resolve_duration(song: Song) -> tuple[float, str]:
    """Seconds to make, and where they come from: the song, or one draw that follows from the song's text."""
    if song.duration > 0:
        return song.duration, "as given"
    seconds = float(random.Random(song.digest).randint(*AUTO_DURATION_RANGE))
    return seconds, f"drawn from {AUTO_DURATION_RANGE[0]} to {AUTO_DURATION_RANGE[1]} s, because none was given"

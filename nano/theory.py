"""Keys, scales and chords. Pitches are MIDI numbers (69 = A4 = 440 Hz), pitch classes 0 (C) to 11 (B)."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAJOR = (0, 2, 4, 5, 7, 9, 11)
SCALES = {
    "ionian": MAJOR,
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "aeolian": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
}
"""Mode → semitones above the tonic."""

TONICS = {
    "major": "C Db D Eb E F F# G Ab A Bb B".split(),
    "minor": "C C# D Eb E F F# G G# A Bb B".split(),
}
"""The usual spelling of each of the twelve tonics, from C upwards."""

SHARP_NAMES = "C C# D D# E F F# G G# A A# B".split()
FLAT_NAMES = "C Db D Eb E F Gb G Ab A Bb B".split()
FLAT_KEYS = {"major": {1, 3, 5, 8, 10}, "minor": {0, 2, 3, 5, 7, 10}}

QUALITIES = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "dim": (0, 3, 6),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "m7b5": (0, 3, 6, 10),
    "9": (0, 4, 7, 10, 14),
    "maj9": (0, 4, 7, 11, 14),
    "m9": (0, 3, 7, 10, 14),
    "6": (0, 4, 7, 9),
    "sus4": (0, 5, 7),
    "add9": (0, 4, 7, 14),
    "5": (0, 7),
}
"""Chord quality, as written after the root → semitones above the root."""

_ROMAN = re.compile(r"([b#]?)(VII|VI|V|IV|III|II|I|vii|vi|v|iv|iii|ii|i)(.*)")
_NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII")


@dataclass(frozen=True)
class Key:
    """``tonic`` 0 to 11, ``mode`` a name of :data:`SCALES`."""

    tonic: int
    mode: str

    @property
    def quality(self) -> str:
        """``major`` or ``minor``, after the third."""
        return "major" if 4 in SCALES[self.mode] else "minor"

    @property
    def name(self) -> str:
        """In the spelling of ``song.KEYS``: a Dorian key is called minor, a Mixolydian one major."""
        return f"{TONICS[self.quality][self.tonic]} {self.quality}"

    @property
    def scale(self) -> frozenset[int]:
        """Its seven pitch classes."""
        return frozenset((self.tonic + step) % 12 for step in SCALES[self.mode])


@dataclass(frozen=True)
class Chord:
    """``root`` 0 to 11, ``quality`` a key of :data:`QUALITIES`, ``name`` such as F#m7."""

    root: int
    quality: str
    name: str

    @property
    def tones(self) -> tuple[int, ...]:
        """Pitch classes, the root first."""
        return tuple((self.root + step) % 12 for step in QUALITIES[self.quality])

    @property
    def third(self) -> int:
        """Semitones from the root to the chord's third (its fourth where suspended, its fifth where bare)."""
        return QUALITIES[self.quality][1]

    @property
    def fifth(self) -> int:
        """Semitones from the root to the fifth, which may be diminished."""
        return next(step for step in QUALITIES[self.quality] if step in (6, 7))


def chord_of(numeral: str, key: Key) -> Chord:
    """The chord of a Roman numeral, whose roots count from the major scale: minor keys write bIII, bVI, bVII.

    Upper case is major and lower case minor: ``V7``, ``ii7``, ``Imaj7``, ``bVII``, ``iim7b5``, ``viidim``.

    Raises:
        ValueError: the text is no numeral of that kind.
    """
    match = _ROMAN.fullmatch(numeral)
    if match is None:
        raise ValueError(f"{numeral!r} is no chord; write a numeral such as I, vi, V7, bVII or Imaj7.")
    accidental, roman, suffix = match.groups()
    if roman.islower() and not suffix.startswith(("m", "dim")):
        suffix = f"m{suffix}"
    if suffix not in QUALITIES:
        raise ValueError(f"{numeral!r} has no known quality; allowed are {', '.join(filter(None, QUALITIES))}.")
    step = MAJOR[_NUMERALS.index(roman.upper())] + {"": 0, "b": -1, "#": 1}[accidental]
    root = (key.tonic + step) % 12
    names = FLAT_NAMES if key.tonic in FLAT_KEYS[key.quality] else SHARP_NAMES
    return Chord(root, suffix, names[root] + suffix)


def voiced(chord: Chord, centre: float, voices: int) -> tuple[int, ...]:
    """The chord in close position around ``centre``, from low to high; high voices double low ones."""
    classes = sorted(set(chord.tones[:5]))
    ladder = [octave * 12 + tone for octave in range(11) for tone in classes]
    best = min(range(len(ladder) - voices + 1), key=lambda i: abs(sum(ladder[i : i + voices]) / voices - centre))
    return tuple(ladder[best : best + voices])


def nearest(classes: frozenset[int] | tuple[int, ...], pitch: float) -> int:
    """The pitch nearest to ``pitch`` whose class is one of ``classes``; the lower one where two are as near."""
    return min(
        (candidate for candidate in range(int(pitch) - 7, int(pitch) + 8) if candidate % 12 in classes),
        key=lambda candidate: (abs(candidate - pitch), candidate),
    )


def moved(scale: frozenset[int], pitch: int, steps: int) -> int:
    """``pitch``, which lies on the scale, moved by so many of its steps."""
    direction = 1 if steps > 0 else -1
    for _ in range(abs(steps)):
        pitch += direction
        while pitch % 12 not in scale:
            pitch += direction
    return pitch

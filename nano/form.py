"""How a piece runs in time: bars, sections, chords, and which tracks play where."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .genres import Genre
from .theory import Chord, Key, chord_of

BEATS = {"2": 2, "3": 3, "4": 4, "6": 2}
"""Time signature → beats a bar. 6/8 has two dotted-quarter beats: its bpm counts those."""

STEPS = {"2": 8, "3": 12, "4": 16, "6": 12}
"""Time signature → steps of a groove a bar."""

ENERGY = {"intro": 0.4, "verse": 0.62, "prechorus": 0.75, "chorus": 1.0, "bridge": 0.55, "solo": 0.85, "outro": 0.45}


@dataclass(frozen=True)
class Part:
    """One section in bars. ``kind`` is a key of :data:`ENERGY`, ``tag`` how lyrics call it, ``energy`` 0 to 1."""

    kind: str
    tag: str
    first: int
    bars: int
    energy: float

    @property
    def last(self) -> int:
        """The bar after it."""
        return self.first + self.bars


@dataclass(frozen=True)
class Plan:
    """The frame that every part of a piece is written in. Times are in beats from the start unless said otherwise.

    Attributes:
        seconds: length of the piece. bpm, metre: tempo and time signature. swing: delay of off-beats in beats.
        bars: whole bars that are played; what is left after them rings out.
        parts: sections in order. chords: ``(chord, first beat, last beat)`` in order. ending: whether the last bar
        is a held final chord.
    """

    key: Key
    seconds: float
    bpm: int
    metre: str
    swing: float
    bars: int
    parts: tuple[Part, ...]
    chords: tuple[tuple[Chord, float, float], ...]
    ending: bool

    @property
    def beats(self) -> int:
        """Beats a bar."""
        return BEATS[self.metre]

    @property
    def steps(self) -> int:
        """Steps of a groove a bar."""
        return STEPS[self.metre]

    def at(self, beat: float) -> float:
        """Seconds of a beat, with swing."""
        whole = math.floor(beat)
        part = beat - whole
        if self.swing and self.metre != "6":
            half = 0.5 + self.swing
            part = part * half / 0.5 if part < 0.5 else half + (part - 0.5) * (1 - half) / 0.5
        return (whole + part) * 60.0 / self.bpm

    def chord_at(self, beat: float) -> Chord:
        """The chord that sounds at a beat; the last one from its end on."""
        for chord, _, last in self.chords:
            if beat < last - 1e-6:
                return chord
        return self.chords[-1][0]

    def part_of(self, bar: int) -> Part:
        """The section of a bar."""
        return next(part for part in self.parts if part.first <= bar < part.last)


_FORMS = (
    "intro verse chorus verse chorus bridge chorus outro",
    "verse chorus verse chorus solo chorus outro",
    "intro verse prechorus chorus verse prechorus chorus outro",
    "intro chorus verse chorus bridge chorus",
    "verse verse chorus verse chorus outro",
    "chorus verse chorus outro",
)
_SHORT = ("verse", "chorus", "verse chorus", "intro verse", "intro chorus", "verse chorus outro", "chorus outro")


def sections(bars: int, sung: bool, lead: str, rng: np.random.Generator) -> tuple[Part, ...]:
    """Sections that fill ``bars`` bars. ``lead`` names the instrument of a solo, for its tag."""
    if bars < 3:
        kinds, lengths = [str(rng.choice(("verse", "chorus")))], [bars]
    else:
        unit = 8 if bars >= 40 else 4 if bars >= 12 else 2
        pool = [form.split() for form in (_FORMS if bars >= 3 * unit else _SHORT)]
        kinds, lengths = [], []
        wanted = list(pool[rng.integers(len(pool))])
        while sum(lengths) < bars:
            kind = wanted.pop(0) if wanted else ("verse", "chorus")[kinds[-1] == "verse"]
            length = max(unit // 2, 1) if kind in ("intro", "outro", "prechorus") else unit
            kinds.append(kind)
            lengths.append(min(length, bars - sum(lengths)))
        if len(lengths) > 1 and lengths[-1] == 1:
            kinds.pop()
            lengths.pop()
            lengths[-1] += 1
        if len(kinds) > 2 and lengths[-1] <= 2 and kinds[-1] in ("verse", "bridge", "intro", "prechorus"):
            kinds[-1] = "outro"
    return _tagged(kinds, lengths, sung, lead)


def _tagged(kinds: list[str], lengths: list[int], sung: bool, lead: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    first = verse = 0
    for kind, bars in zip(kinds, lengths, strict=True):
        verse += kind == "verse"
        tag = {
            "verse": f"Verse {verse}" if kinds.count("verse") > 1 else "Verse",
            "prechorus": "Pre-Chorus",
            "solo": f"{lead.replace('_', ' ').title()} Solo",
        }.get(kind, kind.title())
        parts.append(Part(kind, tag, first, bars, ENERGY[kind]))
        first += bars
    return tuple(parts)


def harmony(
    genre: Genre, key: Key, parts: tuple[Part, ...], beats: int, ending: bool, rng: np.random.Generator
) -> tuple[tuple[Chord, float, float], ...]:
    """A chord a bar: one loop for each kind of section, beginning on the tonic more often than not."""
    loops = list(genre.minor_loops if key.quality == "minor" else genre.major_loops)
    home = [loop for loop in loops if loop[0] in "iI" and loop[:2].lower() not in ("ii", "iv")] or loops
    chosen: dict[str, list[str]] = {}
    bars: list[str] = []
    for part in parts:
        kind = "verse" if part.kind in ("intro", "outro", "solo") else part.kind
        if kind not in chosen:
            pool = home if kind in ("verse", "chorus") or rng.random() < 0.5 else loops
            chosen[kind] = pool[rng.integers(len(pool))].split()
        bars += [chosen[kind][bar % len(chosen[kind])] for bar in range(part.bars)]
    if ending:
        bars[-1] = next(
            (n for n in chosen[next(iter(chosen))] if n.lower().startswith("i") and n[1:2] not in "iIvV"), ""
        )
        bars[-1] = bars[-1] or ("i" if key.quality == "minor" else "I")
        if len(bars) > 3 and bars[-2].lower()[:2] not in ("v", "v7", "iv", "bv"):
            bars[-2] = "V"
    return tuple(
        (chord_of(numeral, key), float(bar * beats), float((bar + 1) * beats)) for bar, numeral in enumerate(bars)
    )


def playing(
    tracks: dict[str, float], parts: tuple[Part, ...], backbone: tuple[str, ...], rng: np.random.Generator
) -> dict[str, tuple[bool, ...]]:
    """For each track, in which sections it plays. ``tracks``: name → energy from which on it joins.

    Every section has at least one track of ``backbone``, and every track at least one section.
    """
    active = {name: [part.energy >= enters for part in parts] for name, enters in tracks.items()}
    for name, on in active.items():
        if not any(on):
            on[int(np.argmax([part.energy for part in parts]))] = True
        if len(parts) > 3 and rng.random() < 0.1 and name not in backbone:
            on[int(rng.integers(len(parts)))] = False
            if not any(on):
                on[int(np.argmax([part.energy for part in parts]))] = True
    for at in range(len(parts)):
        if not any(active[name][at] for name in backbone):
            active[backbone[at % len(backbone)]][at] = True
    return {name: tuple(on) for name, on in active.items()}

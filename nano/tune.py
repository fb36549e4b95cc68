"""Melodies, played or sung: a rhythm for each kind of section, a contour, and pitches that fit the chords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .form import Part, Plan
from .parts import Note
from .theory import nearest
from .words import Language, Word, line_of, written

SUNG = ("verse", "prechorus", "chorus", "bridge")
"""Kinds of sections that have lyrics."""


@dataclass(frozen=True)
class Syllable:
    """``sounds`` as in :mod:`words`, sung from ``start`` to ``end`` seconds at a MIDI ``pitch``."""

    sounds: str
    start: float
    end: float
    pitch: int


@dataclass(frozen=True)
class Sung:
    """One line of lyrics in time. ``words``: text, start, end in seconds. ``part``: number of its section."""

    text: str
    words: tuple[tuple[str, float, float], ...]
    syllables: tuple[Syllable, ...]
    part: int


def phrase_bars(plan: Plan) -> int:
    """Bars of a phrase: two, or one where two would last longer than six seconds; four where they are very short."""
    bar = plan.beats * 60 / plan.bpm
    return 1 if bar > 3 else 2 if bar > 1.2 else 4


def grid(plan: Plan, least: float = 0.19) -> float:
    """The finest step of a melody in beats that lasts at least ``least`` seconds."""
    beat = 60 / plan.bpm
    steps = (1 / 3, 1.0) if plan.metre == "6" else (0.25, 0.5, 1.0)
    return next((step for step in steps if step * beat >= least), 1.0)


def rhythm(beats: float, step: float, count: int, rng: np.random.Generator) -> list[float]:
    """``count`` onsets, or as many as fit, within a phrase of so many beats; its last fifth is left for breath."""
    slots = np.arange(round(beats * 0.82 / step)) * step
    weight = np.where(np.abs(slots % 1) < 0.01, 2.0, np.where(np.abs(slots % 0.5) < 0.01, 1.0, 0.35))
    weight[0] += 6.0
    count = min(count, len(slots))
    return sorted(float(slot) for slot in rng.choice(slots, count, replace=False, p=weight / weight.sum()))


def contour(count: int, rng: np.random.Generator) -> np.ndarray:
    """Where a phrase goes, in semitones around its centre: an arch with small steps on it."""
    along = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    arch = rng.uniform(2, 5) * np.sin(np.pi * along ** rng.uniform(0.6, 1.6)) * rng.choice((1, 1, -1))
    return arch + np.cumsum(rng.choice((-2, -1, 0, 1, 2), count)) * 0.7 - 1.5


def pitched(plan: Plan, onsets: Sequence[float], shape: np.ndarray, centre: float, home: bool) -> list[int]:
    """Pitches for onsets in beats: chord tones on beats and at the end, notes of the scale between.

    ``home``: whether the phrase ends on the tonic where the chord has it.
    """
    result: list[int] = []
    for at, (beat, offset) in enumerate(zip(onsets, shape, strict=True)):
        tones = plan.chord_at(beat + 1e-3).tones
        last = at == len(onsets) - 1
        strong = last or abs(beat % 1) < 0.01 or onsets[at + 1] - beat >= 1
        target = centre + float(np.clip(offset, -7, 8))
        classes: tuple[int, ...] | frozenset[int] = tones[:3] if strong else plan.key.scale
        if last and home and plan.key.tonic in tones:
            classes = (plan.key.tonic,)
        result.append(nearest(classes, target))
    return result


def _phrases(plan: Plan, part: Part) -> list[tuple[int, int]]:
    """Phrases of a section as (first bar, bars)."""
    size = min(phrase_bars(plan), part.bars)
    return [(bar, min(size, part.last - bar)) for bar in range(part.first, part.last, size)]


def played(plan: Plan, active: Sequence[bool], centre: float, busy: float, rng: np.random.Generator) -> list[Note]:
    """A tune for an instrument. ``busy``: notes a second, about."""
    step = grid(plan, 0.13)
    shapes: dict[tuple[str, int], tuple[list[float], np.ndarray]] = {}
    result = []
    for part, on in zip(plan.parts, active, strict=True):
        for number, (bar, bars) in enumerate(_phrases(plan, part) if on else ()):
            beats = bars * plan.beats
            key = (part.kind, (0, 1, 0, 2)[number % 4] * 100 + bars)
            if key not in shapes:
                count = max(2, round(busy * beats * 60 / plan.bpm * 0.8))
                onsets = rhythm(beats, step, count, rng)
                shapes[key] = onsets, contour(len(onsets), rng)
            onsets, shape = shapes[key]
            at = [bar * plan.beats + onset for onset in onsets]
            ends = [*at[1:], min((bar + bars) * plan.beats, at[-1] + 2.5)]
            pitches = pitched(plan, at, shape, centre + 2 * (part.energy - 0.6), number % 2 == 1)
            for beat, end, pitch in zip(at, ends, pitches, strict=True):
                start = plan.at(beat)
                length = (plan.at(min(end, beat + 3)) - start) * 0.94
                result.append(Note(start, length, pitch, 0.7 + 0.25 * part.energy))
    return result


def sung(
    plan: Plan, active: Sequence[bool], language: Language, centre: float, rng: np.random.Generator
) -> tuple[Sung, ...]:
    """Lyrics and their tune. A chorus that returns has the words and the tune of the first; verses get new words."""
    step = grid(plan)
    shapes: dict[tuple[str, int], tuple[list[float], np.ndarray]] = {}
    texts: dict[tuple[str, int], tuple[Word, ...]] = {}
    result = []
    for index, (part, on) in enumerate(zip(plan.parts, active, strict=True)):
        if not on or part.kind not in SUNG:
            continue
        for number, (bar, bars) in enumerate(_phrases(plan, part)):
            beats = bars * plan.beats
            wanted = int(np.clip(round(beats * 60 / plan.bpm * rng.uniform(1.6, 2.3)), 3, 11))
            same = (part.kind, number if part.kind == "chorus" else index * 100 + number)
            if same not in texts:
                texts[same] = line_of(language, min(wanted, round(beats * 0.8 / step)), rng)
            words = texts[same]
            count = sum(len(word.syllables) for word in words)
            key = (part.kind, (number % 2) * 1000 + bars * 100 + count)
            if key not in shapes:
                onsets = rhythm(beats, step, count, rng)
                shapes[key] = onsets, contour(len(onsets), rng)
            onsets, shape = shapes[key]
            if len(onsets) == count:
                at = [bar * plan.beats + onset for onset in onsets]
                lift = 2.5 if part.kind == "chorus" else 0.0
                pitches = pitched(plan, at, shape, centre + lift, number % 2 == 1)
                limit = min((bar + bars) * plan.beats - 0.25, at[-1] + 2.5)
                result.append(_line(plan, language, words, at, max(limit, at[-1] + step * 0.9), pitches, index))
    return tuple(result)


def _line(
    plan: Plan,
    language: Language,
    words: tuple[Word, ...],
    at: list[float],
    limit: float,
    pitches: list[int],
    part: int,
) -> Sung:
    ends = [*at[1:], limit]
    sounds = [syllable for word in words for syllable in word.syllables]
    syllables = tuple(
        Syllable(sound, plan.at(beat), plan.at(min(end, beat + 3)), pitch)
        for sound, beat, end, pitch in zip(sounds, at, ends, pitches, strict=True)
    )
    timed, first = [], 0
    for word in words:
        last = first + len(word.syllables) - 1
        timed.append((word.text, syllables[first].start, syllables[last].end))
        first = last + 1
    return Sung(written(language, words), tuple(timed), syllables, part)


def harmony_below(plan: Plan, line: Sung, steps: int) -> tuple[Syllable, ...]:
    """The line for a second voice: the chord tone, or on short notes the scale's, about ``steps`` semitones away."""
    result = []
    for syllable in line.syllables:
        chord = plan.chord_at(syllable.start * plan.bpm / 60 + 1e-3)
        classes = chord.tones[:3] if syllable.end - syllable.start > 0.3 else plan.key.scale
        pitch = nearest(classes, syllable.pitch + steps)
        if pitch == syllable.pitch:
            pitch = nearest(classes, syllable.pitch + steps * 1.7)
        result.append(Syllable(syllable.sounds, syllable.start, syllable.end, pitch))
    return tuple(result)

"""What each player plays: grooves, bass lines and chords, as lists of notes and strokes in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .form import Part, Plan
from .genres import CHORD_STYLES, Genre
from .theory import Chord, nearest, voiced

VELOCITY = {"X": 1.0, "x": 0.72, "o": 0.42}
BASS_STEPS = "12358" + "6"


@dataclass(frozen=True)
class Note:
    """``start`` and ``seconds`` in seconds, ``pitch`` a MIDI number, ``velocity`` 0 to 1."""

    start: float
    seconds: float
    pitch: int
    velocity: float


@dataclass(frozen=True)
class Stroke:
    """One hit of the named unpitched sound at ``start`` seconds."""

    sound: str
    start: float
    velocity: float


def bars_of(plan: Plan, active: Sequence[bool]) -> Iterator[tuple[Part, int, bool]]:
    """Bars in which a track plays: section, bar, and whether it is the held final one."""
    for part, on in zip(plan.parts, active, strict=True):
        if on:
            for bar in range(part.first, part.last):
                yield part, bar, plan.ending and bar == plan.bars - 1


def held(pattern: str) -> Iterator[tuple[int, int, str]]:
    """Events of a groove with holds: step, steps held, character.

    >>> list(held("X--.x-"))
    [(0, 3, 'X'), (4, 2, 'x')]
    """
    for step, mark in enumerate(pattern):
        if mark not in ".-":
            rest = pattern[step + 1 :]
            yield step, 1 + len(rest) - len(rest.lstrip("-")), mark


def _beat(plan: Plan, bar: int, step: float) -> float:
    return bar * plan.beats + step * plan.beats / plan.steps


def _span(plan: Plan, bar: int, step: int, steps: int, gate: float) -> tuple[float, float]:
    """Start and length in seconds of a note that fills ``gate`` of its steps."""
    start, end = plan.at(_beat(plan, bar, step)), plan.at(_beat(plan, bar, step + steps))
    return start, (end - start) * gate


def strokes(
    plan: Plan,
    grooves: Sequence[tuple[tuple[str, str], ...]],
    active: Sequence[bool],
    rng: np.random.Generator,
    fills: bool,
) -> list[Stroke]:
    """Drums or percussion: a groove for each kind of section, fills into the next one and crashes if ``fills``."""
    chosen: dict[str, tuple[tuple[str, str], ...]] = {}
    result = []
    for part, bar, final in bars_of(plan, active):
        if final:
            names = ("kick", "crash") if fills else (grooves[0][0][0],)
            result += [Stroke(name, plan.at(_beat(plan, bar, 0)), 1.0) for name in names]
            continue
        groove = chosen.setdefault(part.kind, grooves[rng.integers(len(grooves))])
        level = 0.6 + 0.4 * part.energy
        filling = fills and bar == part.last - 1 and part.bars > 1
        cut = plan.steps - plan.steps // plan.beats if filling else plan.steps
        for name, pattern in groove:
            if part.energy < 0.5 and fills and name in ("snare", "clap") and len(groove) > 2:
                continue
            result += [
                Stroke(name, plan.at(_beat(plan, bar, step)), VELOCITY[mark] * level)
                for step, mark in enumerate(pattern)
                if mark != "." and (step < cut or name == "kick")
            ]
        if filling:
            sounds = [str(rng.choice(("snare", "high tom", "low tom"))) for _ in range(plan.steps - cut)]
            result += [
                Stroke(sound, plan.at(_beat(plan, bar, cut + at)), (0.5 + 0.4 * at / len(sounds)) * level)
                for at, sound in enumerate(sounds)
                if at % 2 == 0 or rng.random() < 0.5
            ]
        if fills and bar == part.first and bar and part.energy > 0.6:
            result.append(Stroke("crash", plan.at(_beat(plan, bar, 0)), 0.8))
    return result


def bass_line(
    plan: Plan, patterns: Sequence[str], active: Sequence[bool], low: int, rng: np.random.Generator
) -> list[Note]:
    """Roots and their neighbours from ``low`` upwards; ``2`` steps into the next chord's root from below or above."""
    chosen: dict[str, str] = {}
    result = []
    for part, bar, final in bars_of(plan, active):
        chord = plan.chord_at(_beat(plan, bar, 0))
        root = low + (chord.root - low) % 12
        if final:
            start, _ = _span(plan, bar, 0, plan.steps, 1.0)
            result.append(Note(start, plan.seconds - start, root, 0.9))
            continue
        pattern = chosen.setdefault(part.kind, patterns[rng.integers(len(patterns))])
        following = plan.chord_at(_beat(plan, bar + 1, 0)).root
        for step, steps, mark in held(pattern):
            start, length = _span(plan, bar, step, steps, 0.92)
            pitch = _bass_pitch(mark, root, chord, following)
            accent = 1.0 if step == 0 else 0.8
            result.append(Note(start, length, pitch, accent * (0.7 + 0.3 * part.energy)))
    return result


def _bass_pitch(mark: str, root: int, chord: Chord, following: int) -> int:
    fifth = root + chord.fifth
    if mark == "2":
        return nearest((following,), root) + (1 if (root - following) % 12 < 6 else -1)
    return {"3": root + chord.third, "5": fifth if fifth < 48 else fifth - 12, "6": root + 9, "8": root + 12}.get(
        mark, root
    )


def chords(
    plan: Plan,
    style: str,
    active: Sequence[bool],
    centre: float,
    rng: np.random.Generator,
    voices: int = 4,
    strum: float = 0.0,
) -> list[Note]:
    """Accompaniment in a style of :data:`CHORD_STYLES`, or ``pad``: chords held through.

    ``strum``: seconds between the strings of a chord.
    """
    patterns = ("X" + "-" * (plan.steps - 1),) if style == "pad" else CHORD_STYLES[style][plan.metre]
    chosen: dict[str, str] = {}
    result = []
    for part, bar, final in bars_of(plan, active):
        pitches = voiced(plan.chord_at(_beat(plan, bar, 0)), centre, voices)
        level = 0.65 + 0.35 * part.energy
        if final:
            start, _ = _span(plan, bar, 0, plan.steps, 1.0)
            result += [Note(start + strum * at, plan.seconds - start, pitch, 0.8) for at, pitch in enumerate(pitches)]
            continue
        pattern = chosen.setdefault(part.kind, patterns[rng.integers(len(patterns))])
        for step, steps, mark in held(pattern):
            start, length = _span(plan, bar, step, steps, 1.0 if style == "pad" else 0.9)
            if mark.isdigit():
                pitch = pitches[min(int(mark), voices) - 1]
                accent = 0.85 if step % (plan.steps // plan.beats) == 0 else 0.7
                result.append(Note(start, length * 1.3, pitch, accent * level))
            else:
                up = strum and step % 4 == 2
                result += [
                    Note(start + strum * at, length, pitch, VELOCITY[mark] * level * 0.9)
                    for at, pitch in enumerate(pitches[::-1] if up else pitches)
                ]
    return result


def effects(plan: Plan, name: str, bed: bool, active: Sequence[bool]) -> list[tuple[float, float]]:
    """When an effect sounds, as (start, seconds): a bed under the section; a stroke where it begins, risers before."""
    result = []
    bar_seconds = plan.beats * 60 / plan.bpm
    for part, on in zip(plan.parts, active, strict=True):
        if not on:
            continue
        start, end = plan.at(part.first * plan.beats), plan.at(part.last * plan.beats)
        if bed:
            result.append((start, end - start))
        elif name == "risers":
            length = min(end - start, max(1.5, 2 * bar_seconds))
            result.append((end - length, length))
        else:
            result.append((start, min(2.5, end - start)))
    return result


def grooves_of(genre: Genre, metre: str, track: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """A genre's grooves of the drums or the percussion in a metre; empty where it has none."""
    return {"drums": genre.drums, "percussion": genre.percussion}[track].get(metre, ())

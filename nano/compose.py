"""Composes a song of a seed and plays it: ``python -m nano.compose SEED song.wav [--seconds 20] [--stems FOLDER]``.

Everything is made from oscillators and noise; no recording is used. The same seed and length give the same samples.
"""

from __future__ import annotations

import argparse
import json
import math
import wave as wav
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acestep_graph.acestep_core.song import INSTRUMENTAL, Song, make_song

from . import captions as describing
from .arrangement import Arrangement, Player, arranged, power_chords
from .hits import BEDS
from .mixing import LOUDNESS_OF, add, beaten, effect, leveled, mixed, notes, pumped, with_room
from .parts import bass_line, chords, effects, grooves_of, strokes
from .tone import RATE
from .tune import Sung, harmony_below, played, sung
from .voice import voice

SECONDS = (5.0, 60.0)
"""Lengths that can be composed."""

_ROOMS = {"drums": (0.03, 0.5), "percussion": (0.05, 0.5), "bass": (0.0, 0.0), "fx": (0.05, 1.0)}
_PUMPED = ("house", "techno", "synthwave")


@dataclass(frozen=True)
class Timed:
    """A word, a line of lyrics or a chord from ``start`` to ``end`` seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Section:
    """A section from ``start`` to ``end`` seconds. ``tag`` as in the lyrics; ``tracks`` that play in it."""

    tag: str
    start: float
    end: float
    tracks: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """A composed song.

    Attributes:
        seed: what it was made of. genre, mood: names from :mod:`genres` and :mod:`arrangement`.
        mix: ``[2, N]`` float32 at 48 kHz, peak at most 0.95. stems: track class → ``[2, N]``; their sum is the mix.
        song: caption, lyrics with section tags, language, bpm, key, time signature, duration in seconds. A 6/8 song's
        bpm counts dotted quarters. Below 10 s the duration lies outside what ``make_song`` allows.
        captions: phrasings of the whole. stem_captions: track class → its stem in words.
        lines, words: lyrics in time, in order. sections, chords: in order, without gaps over the bars that are played.
    """

    seed: int
    genre: str
    mood: str
    mix: np.ndarray
    stems: Mapping[str, np.ndarray]
    song: Song
    captions: tuple[str, ...]
    stem_captions: Mapping[str, str]
    lines: tuple[Timed, ...]
    words: tuple[Timed, ...]
    sections: tuple[Section, ...]
    chords: tuple[Timed, ...]


def compose(seed: int, seconds: float | None = None) -> Piece:
    """The song of a seed.

    Args:
        seed: 0 or more. seconds: 5 to 60; None for a length of 10 to 40 s that follows from the seed.

    Raises:
        ValueError: a seed or a length outside of that.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; allowed is 0 or more.")
    if seconds is not None and not (math.isfinite(seconds) and SECONDS[0] <= seconds <= SECONDS[1]):
        raise ValueError(f"seconds is {seconds!r}; allowed is {SECONDS[0]:g} to {SECONDS[1]:g}, or None.")
    arrangement = arranged(seed, seconds)
    lyrics: tuple[Sung, ...] = ()
    if arrangement.singer and arrangement.language:
        lyrics = sung(
            arrangement.plan,
            arrangement.active["vocals"],
            arrangement.language,
            arrangement.singer.centre,
            np.random.default_rng([seed, 2]),
        )
    stems, sounds = _stems(arrangement, lyrics, seed)
    mix, stems = mixed(stems)
    names = describing.instrument_names(arrangement, sounds)
    names = {track: name for track, name in names.items() if track in stems}
    phrasings = describing.captions(arrangement, names, np.random.default_rng([seed, 4]))
    return Piece(
        seed=seed,
        genre=arrangement.genre.name,
        mood=arrangement.mood.name,
        mix=mix,
        stems=stems,
        song=_song(arrangement, lyrics, phrasings[0]),
        captions=phrasings,
        stem_captions=describing.stem_captions(arrangement, names),
        lines=tuple(Timed(line.text, line.words[0][1], line.words[-1][2]) for line in lyrics),
        words=tuple(Timed(*word) for line in lyrics for word in line.words),
        sections=_sections(arrangement, stems),
        chords=tuple(
            Timed(c.name, _time(arrangement, a), _time(arrangement, b)) for c, a, b in arrangement.plan.chords
        ),
    )


def _time(arrangement: Arrangement, beat: float) -> float:
    return beat * 60 / arrangement.plan.bpm


def _sections(arrangement: Arrangement, stems: Mapping[str, np.ndarray]) -> tuple[Section, ...]:
    plan = arrangement.plan
    return tuple(
        Section(
            part.tag,
            _time(arrangement, part.first * plan.beats),
            _time(arrangement, part.last * plan.beats),
            tuple(track for track in stems if arrangement.active[track][at]),
        )
        for at, part in enumerate(plan.parts)
    )


def _song(arrangement: Arrangement, lyrics: tuple[Sung, ...], caption: str) -> Song:
    plan = arrangement.plan
    blocks = [
        "\n".join([f"[{part.tag}]", *(line.text for line in lyrics if line.part == at)])
        for at, part in enumerate(plan.parts)
    ]
    song = make_song(
        caption=caption,
        lyrics="\n\n".join(blocks) if lyrics else INSTRUMENTAL,
        language=describing.language_code(arrangement) if lyrics else "unknown",
        instrumental=not lyrics,
        bpm=plan.bpm,
        key=plan.key.name,
        time_signature=plan.metre,
    )
    return replace(song, duration=plan.seconds)


def _stems(
    arrangement: Arrangement, lyrics: tuple[Sung, ...], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """Stems before the common gain, and the strokes that drums and percussion have."""
    plan = arrangement.plan
    samples = round(plan.seconds * RATE)
    stems: dict[str, np.ndarray] = {}
    sounds: dict[str, tuple[str, ...]] = {}
    for track in arrangement.active:
        rng = np.random.default_rng([seed, 3, sum(map(ord, track))])
        level = LOUDNESS_OF[track]
        if track in ("drums", "percussion"):
            grooves = grooves_of(arrangement.genre, plan.metre, track)
            hits = strokes(plan, grooves, arrangement.active[track], rng, fills=track == "drums")
            sounds[track] = tuple(sorted({hit.sound for hit in hits}))
            stem = beaten(arrangement.kit, hits, samples, hand=track == "percussion")
        elif track == "fx":
            name = arrangement.effect
            stem = effect(name, effects(plan, name, name in BEDS, arrangement.active[track]), samples)
        elif track in ("vocals", "backing_vocals"):
            stem = _voices(arrangement, lyrics, track, samples)
        else:
            players = [player for player in arrangement.players if player.track == track]
            stem = sum(_played(arrangement, player, samples, rng) for player in players)
            level += 3.5 if any(player.style == "lead" for player in players) else 0.0
            if track == "synth" and arrangement.genre.name in _PUMPED and "drums" in arrangement.active:
                beats = np.arange(plan.bars * plan.beats) * 60 / plan.bpm
                stem = pumped(stem, beats, 0.6)
        amount, length = _ROOMS.get(track, (0.1, 1.0))
        if amount:
            stem = with_room(stem, amount, length)
        stem = leveled(stem, level)
        if stem.any():
            stems[track] = stem
    return stems, sounds


def _played(arrangement: Arrangement, player: Player, samples: int, rng: np.random.Generator) -> np.ndarray:
    plan, active = arrangement.plan, arrangement.active[player.track]
    if player.style == "bass":
        low = 28 if player.patch.name in ("sub bass", "synth bass") else 31
        events = bass_line(plan, arrangement.genre.bass[plan.metre], active, low, rng)
    elif player.style == "solo":
        solos = [on and part.kind == "solo" for on, part in zip(active, plan.parts, strict=True)]
        events = played(plan, solos, player.centre, 2.2 + 1.3 * arrangement.mood.fast, rng)
    elif player.style == "lead":
        events = played(plan, active, player.centre, 1.7 + 1.3 * arrangement.mood.fast, rng)
    elif player.style == "line":
        events = played(plan, active, player.centre, 0.9, rng)
    elif player.patch.drive > 2:
        events = chords(power_chords(plan), player.style, active, player.centre, rng, 3)
    else:
        strum = 0.02 if player.track == "guitar" and "strum" in player.style else 0.0
        voices = 3 if player.track in ("brass", "woodwinds") or player.style == "oompah" else 4
        events = chords(plan, player.style, active, player.centre, rng, voices, strum)
    width = 0.0 if player.track == "bass" else 0.25
    return notes(player.patch, events, samples, player.pan, width)


def _voices(arrangement: Arrangement, lyrics: tuple[Sung, ...], track: str, samples: int) -> np.ndarray:
    stem = np.zeros((2, samples), np.float32)
    lyrics = tuple(line for line in lyrics if arrangement.active[track][line.part])
    if not lyrics or arrangement.singer is None:
        return stem
    if track == "vocals":
        line = [syllable for sung_line in lyrics for syllable in sung_line.syllables]
        add(stem, voice([line], samples, arrangement.singer), 0.0, 1.0, 0.0)
        return stem
    singer = replace(arrangement.singer, breath=arrangement.singer.breath + 0.05)
    for steps, pan in ((-4, -0.6), (4, 0.6)):
        below = [s for sung_line in lyrics for s in harmony_below(arrangement.plan, sung_line, steps)]
        add(stem, voice([below], samples, singer), 0.0, 1.0, pan)
    return stem


def save(path: Path, wave: np.ndarray) -> None:
    """Write ``wave [2, N]`` as a 16-bit WAV file at 48 kHz."""
    with wav.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(np.clip(wave.T, -1, 1) * 32767).astype("<i2").tobytes())


def main(arguments: list[str] | None = None) -> None:
    """Compose a song and write it, its stems if asked for, and what is known of it to the terminal."""
    parser = argparse.ArgumentParser(prog="python -m nano.compose", description="Compose a song and write it.")
    parser.add_argument("seed", type=int, help="0 or more; every seed is another song")
    parser.add_argument("file", type=Path, help="where to write the mix, a .wav file")
    parser.add_argument("--seconds", type=float, help=f"{SECONDS[0]:g} to {SECONDS[1]:g}; by the seed if not given")
    parser.add_argument("--stems", type=Path, help="folder for one .wav file a track")
    given = parser.parse_args(arguments)
    if not given.file.absolute().parent.is_dir():
        parser.error(f"the folder {given.file.parent} is not there.")
    try:
        piece = compose(given.seed, given.seconds)
    except ValueError as error:
        parser.error(str(error))
    save(given.file, piece.mix)
    if given.stems:
        given.stems.mkdir(parents=True, exist_ok=True)
        for track, stem in piece.stems.items():
            save(given.stems / f"{track}.wav", stem)
    print(piece.song.text())
    for section in piece.sections:
        print(f"{section.start:7.2f} {section.end:7.2f}  {section.tag}: {', '.join(section.tracks)}")
    print(json.dumps([[chord.text, round(chord.start, 2)] for chord in piece.chords]))


if __name__ == "__main__":
    main()

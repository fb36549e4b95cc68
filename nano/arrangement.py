"""The choices before a note is written: genre, mood, key, tempo, form, and who plays what."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .form import Plan, harmony, playing, sections
from .genres import CHORD_STYLES, GENRES, Genre
from .hits import BEDS, KITS, Kit
from .instruments import PATCHES
from .parts import grooves_of
from .theory import Chord, Key
from .tone import Patch
from .tune import SUNG
from .voice import SINGERS, Singer
from .words import CHANCES, LANGUAGES, Language, language_of


@dataclass(frozen=True)
class Mood:
    """``fast``, 0 to 1, picks from the genre's tempi.

    ``minor``: how the mood bends towards minor: −1 never, 1 always, 0 as the genre has it.
    """

    name: str
    fast: float
    minor: int


MOODS = {
    mood.name: mood
    for mood in (
        Mood("happy", 0.6, -1),
        Mood("playful", 0.6, -1),
        Mood("energetic", 0.85, 0),
        Mood("epic", 0.55, 0),
        Mood("romantic", 0.4, 0),
        Mood("calm", 0.2, 0),
        Mood("dreamy", 0.35, 0),
        Mood("sad", 0.25, 1),
        Mood("dark", 0.5, 1),
    )
}

_PAD = ("synth pad", "warm synth pad", "string ensemble", "french horns")
_LINE = ("solo violin", "cello", "trumpet", "trombone", "saw lead", "square lead")
_OWN_STYLE = {
    "staccato strings": ("eighths", "fast arpeggio"),
    "pizzicato strings": ("arpeggio", "oompah"),
    "harp": ("arpeggio",),
    "synth pluck": ("arpeggio", "fast arpeggio"),
    "synth stabs": ("stabs", "offbeat", "syncopated"),
    "chiptune lead": ("fast arpeggio",),
    "brass section": ("stabs",),
}
_LEADS = {"synth": ("saw lead", "square lead"), "strings": ("solo violin", "cello")}
_CENTRES = {"keyboard": 62, "guitar": 57, "strings": 65, "synth": 63, "brass": 60, "woodwinds": 72, "lead": 71}
_PANS = {"guitar": -0.35, "keyboard": 0.25, "strings": 0.4, "synth": -0.2, "brass": 0.3, "woodwinds": -0.3}
_ENTERS = {"keyboard": 0.0, "guitar": 0.0, "synth": 0.0, "bass": 0.5, "drums": 0.45, "woodwinds": 0.5}
PITCHED = ("bass", "keyboard", "guitar", "strings", "synth", "brass", "woodwinds")


@dataclass(frozen=True)
class Player:
    """One instrument. ``style``: a chord style, ``pad``, ``line``, ``bass``, ``lead``, or ``solo``, a lead in solos.

    ``centre``: MIDI pitch around which it plays. ``pan``: −1 left to 1 right.
    """

    track: str
    patch: Patch
    style: str
    centre: float
    pan: float


@dataclass(frozen=True)
class Arrangement:
    """Everything that is settled before notes.

    Attributes:
        plan: form and harmony. players: pitched instruments; a track may have two.
        active: track → in which sections it plays. kit, hands: the drums, and the tuning of the percussion.
        effect: name of the fx, "" without. singer, language: None for instrumental pieces.
        lead: track that plays the tune, or the solo of a sung piece.
    """

    genre: Genre
    mood: Mood
    plan: Plan
    players: tuple[Player, ...]
    active: dict[str, tuple[bool, ...]]
    kit: Kit
    effect: str
    singer: Singer | None
    language: Language | None
    lead: str


def arranged(seed: int, seconds: float | None) -> Arrangement:
    """The arrangement of a seed; ``seconds`` 5 to 60 or None for 10 to 40 by the seed."""
    rng = np.random.default_rng([seed, 1])
    genre = GENRES[rng.integers(len(GENRES))]
    mood = MOODS[str(rng.choice(genre.moods))]
    length = float(rng.integers(10, 41)) if seconds is None else float(seconds)
    metre = str(rng.choice(list(genre.metres), p=list(genre.metres.values())))
    minor = {-1: 0.05, 0: genre.minor, 1: 0.93}[mood.minor]
    mode = genre.minor_mode if rng.random() < minor else genre.major_mode
    key = Key(int(rng.integers(12)), mode)
    low, high = genre.tempo
    bpm = int(np.clip(round(rng.normal(low + (high - low) * mood.fast, (high - low) * 0.22)), low, high))
    sung = bool(rng.random() < genre.vocal)
    lead = str(rng.choice(genre.lead))
    tracks = _tracks(genre, metre, sung, lead, rng)
    plan = _plan(genre, key, length, bpm, metre, sung, lead, rng)
    players = tuple(_players(genre, mood, tracks, lead, sung, rng))
    solos = tuple(part.kind == "solo" for part in plan.parts)
    if sung and any(solos):
        players += (_soloist(genre, mood, players, lead, rng),)
    if sung:
        singer, language = _singer(rng)
        tracks += ("vocals",)
    else:
        singer = language = None
    enters = {track: _ENTERS.get(track, 0.6) + rng.uniform(-0.1, 0.25) for track in tracks}
    if sung and rng.random() < 0.55:
        enters["backing_vocals"] = 0.9
    backbone = tuple(track for track in ("keyboard", "guitar", "synth", "strings") if track in genre.needed) or (
        "bass",
    )
    enters |= {backbone[0]: 0.0, "fx": 0.3, "vocals": 0.0} if "fx" in enters else {backbone[0]: 0.0, "vocals": 0.0}
    if not sung:
        enters.pop("vocals")
        enters[lead] = min(enters[lead], 0.58)
    active = playing(enters, plan.parts, backbone, rng)
    if sung:
        active = _with_silent_singers(active, plan)
    if sung and any(solos):
        joins = active.get(lead, (False,) * len(solos))
        active[lead] = tuple(on or solo for on, solo in zip(joins, solos, strict=True))
    kit = _kit(genre, rng)
    effect = str(rng.choice(genre.fx)) if "fx" in tracks else ""
    return Arrangement(genre, mood, plan, players, active, kit, effect, singer, language, lead)


def _tracks(genre: Genre, metre: str, sung: bool, lead: str, rng: np.random.Generator) -> tuple[str, ...]:
    chosen = list(genre.needed)
    chosen += [track for track, chance in genre.likely.items() if track not in chosen and rng.random() < chance]
    if not sung and lead not in chosen:
        chosen.append(lead)
    return tuple(t for t in chosen if t not in ("drums", "percussion") or grooves_of(genre, metre, t))


def _plan(
    genre: Genre, key: Key, seconds: float, bpm: int, metre: str, sung: bool, lead: str, rng: np.random.Generator
) -> Plan:
    plan = Plan(key, seconds, bpm, metre, genre.swing, 1, (), (), False)
    bars = max(1, int(seconds * bpm / 60 / plan.beats + 1e-9))
    parts = sections(bars, sung, lead, rng)
    ending = bars >= 4
    chords = harmony(genre, key, parts, plan.beats, ending, rng)
    return replace(plan, bars=bars, parts=parts, chords=chords, ending=ending)


def _players(
    genre: Genre, mood: Mood, tracks: tuple[str, ...], lead: str, sung: bool, rng: np.random.Generator
) -> list[Player]:
    players = []
    for track in tracks:
        if track not in PITCHED:
            continue
        name = str(rng.choice(genre.instruments[track]))
        patch = PATCHES[track][name]
        pan = _PANS.get(track, 0.0)
        style = "bass" if track == "bass" else _style(genre, track, name, rng)
        leads = track == lead and not sung
        if leads and style == "line":
            players.append(Player(track, patch, "lead", _CENTRES["lead"], pan * 0.3))
            continue
        centre = _CENTRES.get(track, 45) + (-8 if patch.drive > 2 else 0)
        players.append(Player(track, patch, style, centre, pan))
        if leads:
            players.append(replace(_soloist(genre, mood, tuple(players), track, rng), style="lead"))
    return players


def _soloist(genre: Genre, mood: Mood, players: tuple[Player, ...], track: str, rng: np.random.Generator) -> Player:
    """Who plays solos on a track: keyboards and guitars go on with the sound that they have, others take their own."""
    same = [player.patch for player in players if player.track == track and track in ("keyboard", "guitar")]
    fit = _LEADS.get(track, genre.instruments[track])
    names = [name for name in genre.instruments[track] if name in fit] or list(fit)
    patch = same[0] if same else PATCHES[track][str(rng.choice(names))]
    return Player(track, patch, "solo", _CENTRES["lead"], 0.0)


def _style(genre: Genre, track: str, name: str, rng: np.random.Generator) -> str:
    if name in _PAD:
        return "pad"
    if name in _LINE:
        return "line"
    styles = genre.chords.get(track) or _OWN_STYLE.get(name) or (("line",) if track == "woodwinds" else ("block",))
    if name in ("muted guitar", "synth stabs", "brass section"):
        styles = tuple(style for style in styles if "arpeggio" not in style) or _OWN_STYLE.get(name, ("offbeat",))
    return str(rng.choice(styles))


def _singer(rng: np.random.Generator) -> tuple[Singer, Language]:
    singer = SINGERS[str(rng.choice(list(SINGERS)))]
    singer = replace(singer, centre=singer.centre + rng.integers(-2, 3))
    if rng.random() < 0.07:
        return singer, language_of("unknown")
    return singer, LANGUAGES[int(rng.choice(len(LANGUAGES), p=CHANCES))]


def _with_silent_singers(active: dict[str, tuple[bool, ...]], plan: Plan) -> dict[str, tuple[bool, ...]]:
    """Voices rest where there are no lyrics: intro, solo, outro."""
    singing = tuple(part.kind in SUNG for part in plan.parts)
    voices = {
        name: tuple(on and sings for on, sings in zip(active[name], singing, strict=True))
        for name in ("vocals", "backing_vocals")
        if name in active
    }
    return {**active, **voices}


def _kit(genre: Genre, rng: np.random.Generator) -> Kit:
    return KITS[str(rng.choice(genre.kits))] if genre.kits else KITS["acoustic drums"]


def power_chords(plan: Plan) -> Plan:
    """The plan with bare fifths, for instruments whose distortion would muddy thirds."""
    return replace(plan, chords=tuple((Chord(c.root, "5", c.name), first, last) for c, first, last in plan.chords))


def known_names() -> tuple[str, ...]:
    """Every instrument that a caption may name, to check the tables of :mod:`genres` against."""
    names = [name for patches in PATCHES.values() for name in patches]
    return (*names, *KITS, *BEDS, *CHORD_STYLES)

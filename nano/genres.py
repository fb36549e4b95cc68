"""What makes a genre: tempo, metres, harmony, grooves, instruments, moods. Data only; one row of a table a genre.

A groove is a bar written as text, one character a step: 16 steps in 4/4, 12 in 3/4 and 6/8, 8 in 2/4. Drums and
chords: ``X`` loud, ``x`` medium, ``o`` soft, ``-`` held on, ``.`` silent. Bass: ``1`` root, ``3`` third, ``5`` fifth,
``8`` octave, ``2`` a step towards the next root, ``-`` held on. Arpeggios: the number of the voice from below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Choices = tuple[str, ...]


@dataclass(frozen=True)
class Genre:
    """One style.

    Attributes:
        name: as captions call it. tempo: bpm, lowest and highest. metres: metre → weight.
        minor: share of pieces in minor. major_loops, minor_loops: progressions as numerals, a chord a bar.
        minor_mode, major_mode: the scales of :mod:`theory` that melodies take from. swing: 0 to 0.17 of a beat by
        which off-beats come late. kits, drums: kits, and metre → grooves, each (hit, bar) pairs.
        percussion: grooves of the same kind. instruments: track class → names of patches.
        needed: classes that every piece has. likely: class → chance of others. lead: classes that may play the tune.
        chords: class → style of playing, one of :data:`CHORD_STYLES`, ``line``, ``pad``.
        bass: metre → bars. fx: names of effects. vocal: share of sung pieces. moods: names of :mod:`moods`.
    """

    name: str
    tempo: tuple[int, int]
    moods: Choices
    kits: Choices = ()
    drums: Mapping[str, tuple[tuple[tuple[str, str], ...], ...]] = field(default_factory=dict)
    percussion: Mapping[str, tuple[tuple[tuple[str, str], ...], ...]] = field(default_factory=dict)
    bass: Mapping[str, Choices] = field(default_factory=dict)
    instruments: Mapping[str, Choices] = field(default_factory=dict)
    needed: Choices = ()
    likely: Mapping[str, float] = field(default_factory=dict)
    lead: Choices = ()
    chords: Mapping[str, Choices] = field(default_factory=dict)
    fx: Choices = ("impacts", "chimes")
    metres: Mapping[str, float] = field(default_factory=lambda: {"4": 1.0})
    minor: float = 0.5
    major_loops: Choices = ("I V vi IV", "I vi IV V", "I IV V IV", "vi IV I V", "I iii IV V")
    minor_loops: Choices = ("i bVI bIII bVII", "i bVII bVI V", "i iv bVII i", "i bVI iv V", "i v bVI bVII")
    major_mode: str = "ionian"
    minor_mode: str = "aeolian"
    swing: float = 0.0
    vocal: float = 0.6


CHORD_STYLES: Mapping[str, Mapping[str, Choices]] = {
    "block": {
        "4": ("X---------------", "X-------x-------", "X-----x---x-----", "X--x--x-X---x---"),
        "3": ("X-----------", "X---x---x---", "X-----x-x---"),
        "6": ("X-----x-----", "X---x-X---x-"),
        "2": ("X-------", "X---x---"),
    },
    "eighths": {
        "4": ("X-x-x-x-X-x-x-x-", "X.x.x.x.X.x.x.x."),
        "3": ("X-x-x-x-x-x-",),
        "6": ("X-x-x-X-x-x-",),
        "2": ("X-x-x-x-",),
    },
    "strum": {
        "4": ("X---x-x-.-x-x-x-", "X---x---X-x-x-x-", "X-.-x-x-.-x-X-x-"),
        "3": ("X---x-x-x-x-", "X---x---x-x-"),
        "6": ("X-x-x-X-x-x-", "X---x-X---x-"),
        "2": ("X---x-x-", "X-x-x-x-"),
    },
    "offbeat": {
        "4": ("..x...x...x...x.", "....X.......X...", "....X.x.....X.x."),
        "3": ("....x...x...", "....x-..x-.."),
        "6": ("....x.....x.", "....x.....x."),
        "2": ("..x...x.", "..X...X."),
    },
    "syncopated": {
        "4": ("X--x--x---x--x--", "x..X..x..x..X...", ".x..X..x.x..X..x", "X..x..x...x..x.."),
        "3": ("X..x..x.x...",),
        "6": ("X..x..X..x..",),
        "2": ("X..x..x.",),
    },
    "funk": {
        "4": ("x.Xo.ox.x.Xo.oxo", "xoX..ox..xX.oox.", "X.ooX.ox.oX.oox."),
        "3": ("x.Xo.ox.x.Xo",),
        "6": ("x.Xo.xX.xo.x",),
        "2": ("x.Xo.ox.",),
    },
    "bossa": {
        "4": ("X-..x-...x-...x-", "X-....x-..x-....", "..x-..x-...x-..."),
        "3": ("X-..x-..x-..",),
        "6": ("X-..x-X-..x-",),
        "2": ("X-..x-x-",),
    },
    "montuno": {
        "4": ("x.x.xx.x.x.xx.x.", "xx.xx.x.xx.xx.x."),
        "3": ("x.x.xx.x.x.x",),
        "6": ("x.xx.xx.xx.x",),
        "2": ("x.xx.xx.",),
    },
    "stabs": {
        "4": ("X..X......X.....", "..x...X.......x.", "X.....x..X......", "....X.......X..X"),
        "3": ("X.......x...",),
        "6": ("X.....X...x.",),
        "2": ("X.....x.",),
    },
    "arpeggio": {
        "4": ("1-2-3-4-3-2-3-2-", "1-3-2-3-4-3-2-3-", "1-2-3-2-4-3-2-3-"),
        "3": ("1-2-3-4-3-2-", "1-3-4-3-4-3-"),
        "6": ("1-2-3-4-3-2-", "1-3-2-4-2-3-"),
        "2": ("1-2-3-2-", "1-3-2-3-"),
    },
    "fast arpeggio": {
        "4": ("1234123412341234", "1323143213231432", "1243124312431243"),
        "3": ("123412341234", "132313231323"),
        "6": ("123432123432", "131313242424"),
        "2": ("12341234", "13231323"),
    },
    "oompah": {
        "4": ("..x...x...x...x.",),
        "3": ("....x...x...",),
        "6": ("....x-....x-",),
        "2": ("..x...x.",),
    },
}

_ROCK = (
    (("kick", "X.....x.X......."), ("snare", "....X.......X..."), ("hat", "X.x.X.x.X.x.X.x.")),
    (("kick", "X..x....X.x....."), ("snare", "....X.......X..."), ("hat", "x.x.x.x.x.x.x.o.")),
    (("kick", "X.x...x.X..x..x."), ("snare", "....X.......X..o"), ("open", "x...x...x...x...")),
)
_POP = (
    (("kick", "X.....x.x......."), ("snare", "....X.......X..."), ("hat", "x.x.x.x.x.x.x.xo")),
    (("kick", "X..x..x...x....."), ("clap", "....X.......X..."), ("hat", "x.o.x.o.x.o.x.o.")),
)
_FOUR = (
    (("kick", "X...X...X...X..."), ("clap", "....X.......X..."), ("open", "..x...x...x...x.")),
    (("kick", "X...X...X...X..."), ("snare", "....X.......X..."), ("hat", "xoXoxoXoxoXoxoXo")),
)
_WALTZ = (
    (("kick", "X..........."), ("rim", "....x...x..."), ("hat", "x...x...x...")),
    (("kick", "X..........."), ("brush", "....X...X..."), ("ride", "x...x.x.x...")),
)
_SIX = (
    (("kick", "X..........."), ("snare", "......X....."), ("hat", "X.o.o.X.o.o.")),
    (("kick", "X...x......."), ("snare", "......X....."), ("ride", "x.x.x.x.x.x.")),
)
_TWO = ((("kick", "X...X..."), ("snare", "..x...xo"), ("hat", "x.x.x.x.")),)
_BASS = {"4": ("1-----1-5---1---", "1-------1-------", "1-1-1-1-1-1-1-1-"), "3": ("1-------5---", "1-----------")}
_BASS |= {"6": ("1-----5-----", "1---1-5---1-"), "2": ("1---5---", "1---1---")}
_SHAKER = {
    "4": ((("shaker", "xoxoxoxoxoxoxoxo"),), (("tambourine", "....X.......X..."),), (("shaker", "x.oxx.oxx.oxx.ox"),)),
    "3": ((("shaker", "x.o.x.o.x.o."),), (("tambourine", "....x...x..."),)),
    "6": ((("shaker", "X.o.o.X.o.o."),), (("tambourine", "......X....."),)),
    "2": ((("tambourine", "..x...x."),), (("shaker", "x.o.x.o."),)),
}
_LATIN = {
    "4": (
        (("high conga", "..x...x...x...xx"), ("low conga", "X.......X.x....."), ("claves", "x..x..x...x.x...")),
        (("high bongo", "x.oxx.oxx.oxx.ox"), ("low bongo", "......x.......x."), ("cowbell", "X...x...X...x...")),
    )
}

GENRES = (
    Genre(
        "pop",
        (92, 128),
        ("happy", "energetic", "romantic", "sad"),
        ("acoustic drums", "909 drums"),
        {"4": _POP + _ROCK[:1]},
        _SHAKER,
        _BASS,
        {
            "bass": ("bass guitar", "synth bass"),
            "keyboard": ("piano", "electric piano"),
            "guitar": ("clean electric guitar", "acoustic guitar"),
            "synth": ("synth pad", "synth pluck"),
            "strings": ("string ensemble",),
        },
        ("drums", "bass", "keyboard"),
        {"guitar": 0.6, "synth": 0.5, "strings": 0.25, "percussion": 0.3, "fx": 0.2},
        ("synth", "guitar", "keyboard"),
        {"keyboard": ("block", "eighths"), "guitar": ("strum", "arpeggio")},
        ("risers", "chimes"),
        minor=0.35,
        vocal=0.9,
    ),
    Genre(
        "rock",
        (104, 160),
        ("energetic", "dark", "epic"),
        ("rock drums",),
        {"4": _ROCK},
        _SHAKER,
        {"4": ("1-1-1-1-1-1-1-1-", "1---1-1-1---5-1-")},
        {
            "bass": ("picked bass",),
            "guitar": ("distorted guitar",),
            "keyboard": ("organ",),
            "strings": ("string ensemble",),
        },
        ("drums", "bass", "guitar"),
        {"keyboard": 0.3, "percussion": 0.15},
        ("guitar",),
        {"guitar": ("eighths", "syncopated"), "keyboard": ("block",)},
        ("impacts",),
        major_loops=("I bVII IV I", "I V IV IV", "I IV I V"),
        minor_loops=("i bVII bVI bVII", "i bIII bVII iv", "i bVI bIII bVII"),
        major_mode="mixolydian",
        vocal=0.7,
    ),
    Genre(
        "ballad",
        (60, 80),
        ("sad", "romantic", "calm"),
        ("acoustic drums",),
        {"4": _POP[:1] + _ROCK[:1], "3": _WALTZ[:1]},
        _SHAKER,
        {"4": ("1-------1-------", "1-----------5---"), "3": ("1-----------",)},
        {
            "bass": ("bass guitar",),
            "keyboard": ("piano",),
            "strings": ("string ensemble", "cello"),
            "guitar": ("acoustic guitar",),
            "woodwinds": ("oboe", "flute"),
        },
        ("keyboard",),
        {"strings": 0.8, "bass": 0.7, "drums": 0.5, "guitar": 0.4, "woodwinds": 0.2},
        ("strings", "woodwinds", "keyboard"),
        {"keyboard": ("arpeggio", "block"), "guitar": ("arpeggio",)},
        ("chimes",),
        {"4": 0.75, "3": 0.25},
        vocal=0.85,
        major_loops=("I iii IV iv", "I V vi iii", "I vi ii V", "Iadd9 vi IV V"),
    ),
    Genre(
        "jazz",
        (96, 180),
        ("romantic", "playful", "calm"),
        ("brushed drums", "acoustic drums"),
        {
            "4": (
                (("ride", "x...X.x.x...X.x."), ("hat", "....x.......x..."), ("kick", "o.......o.......")),
                (
                    ("ride", "x...X..xx...X..x"),
                    ("hat", "....x.......x..."),
                    ("rim", "..........o....."),
                    ("kick", "x..............."),
                ),
                (("brush", "x...X...x...X..."), ("hat", "....x.......x..."), ("kick", "x.......o.......")),
            ),
            "3": _WALTZ[1:],
        },
        {"4": ((("shaker", "x.o.x.o.x.o.x.o."),),)},
        {"4": ("1---3---5---2---", "1---5---3---2---", "1---8---5---2---"), "3": ("1---3---5---", "1-------2---")},
        {
            "bass": ("upright bass",),
            "keyboard": ("piano", "vibraphone"),
            "guitar": ("clean electric guitar",),
            "brass": ("trumpet", "trombone"),
            "woodwinds": ("saxophone", "clarinet"),
        },
        ("drums", "bass", "keyboard"),
        {"woodwinds": 0.5, "brass": 0.4, "guitar": 0.2},
        ("woodwinds", "brass", "keyboard"),
        {"keyboard": ("syncopated", "stabs", "block"), "guitar": ("offbeat",)},
        metres={"4": 0.85, "3": 0.15},
        swing=0.14,
        minor=0.4,
        vocal=0.3,
        major_loops=("Imaj7 vi7 ii7 V7", "ii7 V7 Imaj7 Imaj7", "Imaj7 IVmaj7 ii7 V7", "I6 VI7 ii7 V7"),
        minor_loops=("i iim7b5 V7 im7", "im7 iv7 bVII7 bIIImaj7", "im7 bVImaj7 iim7b5 V7"),
        minor_mode="dorian",
    ),
    Genre(
        "bossa nova",
        (110, 144),
        ("calm", "romantic", "happy"),
        ("brushed drums",),
        {"4": ((("kick", "X.....x.X.....x."), ("rim", "x..x..x...x..x.."), ("hat", "xoxoxoxoxoxoxoxo")),)},
        {"4": ((("shaker", "xoxoxoxoxoxoxoxo"),), (("claves", "x..x..x...x..x.."), ("shaker", "x.x.x.x.x.x.x.x.")))},
        {"4": ("1-----5-5-----1-", "1-----5-8-----5-")},
        {
            "bass": ("upright bass", "bass guitar"),
            "guitar": ("nylon guitar",),
            "keyboard": ("electric piano", "piano"),
            "woodwinds": ("flute", "saxophone"),
            "strings": ("string ensemble",),
        },
        ("bass", "guitar"),
        {"drums": 0.7, "percussion": 0.6, "woodwinds": 0.5, "keyboard": 0.4, "strings": 0.2},
        ("woodwinds", "guitar", "keyboard"),
        {"guitar": ("bossa",), "keyboard": ("block", "stabs")},
        minor=0.4,
        major_loops=("Imaj7 vi7 ii7 V7", "Imaj7 II7 ii7 V7", "Imaj9 IVmaj7 iii7 VI7"),
        minor_loops=("im7 iv7 bVII7 bIIImaj7", "im9 bVImaj7 iim7b5 V7"),
        vocal=0.5,
    ),
    Genre(
        "funk",
        (92, 116),
        ("energetic", "playful", "happy"),
        ("acoustic drums", "breakbeat drums"),
        {
            "4": (
                (("kick", "X..x..x...x....."), ("snare", "....X..o.o..X..o"), ("hat", "xoxoxoxoxoxoxoxo")),
                (("kick", "X.x......x.x...."), ("snare", "....X..o....X.o."), ("hat", "x.x.x.x.x.x.x.x.")),
            )
        },
        {"4": (*_SHAKER["4"][:2], (("cowbell", "x...x...x...x..."),), _LATIN["4"][0][:2])},
        {"4": ("1..1..8.1..5.81.", "1.1..18...1.5.8.", "1..81.....1.3.5.")},
        {
            "bass": ("slap bass", "bass guitar"),
            "guitar": ("clean electric guitar", "muted guitar"),
            "keyboard": ("clavinet", "organ", "electric piano"),
            "brass": ("brass section", "trumpet"),
            "woodwinds": ("saxophone",),
        },
        ("drums", "bass", "guitar"),
        {"keyboard": 0.7, "brass": 0.6, "percussion": 0.35, "woodwinds": 0.15},
        ("brass", "woodwinds", "keyboard"),
        {"guitar": ("funk",), "keyboard": ("funk", "syncopated"), "brass": ("stabs",)},
        minor=0.6,
        minor_mode="dorian",
        major_mode="mixolydian",
        vocal=0.5,
        major_loops=("I7 I7 IV7 I7", "I9 IV9 I9 IV9"),
        minor_loops=("im7 im7 IV7 im7", "im9 bVII im9 IV7"),
    ),
    Genre(
        "soul",
        (64, 96),
        ("romantic", "calm", "sad"),
        ("acoustic drums",),
        {"4": _POP[:1], "6": _SIX},
        _SHAKER,
        _BASS,
        {
            "bass": ("bass guitar",),
            "keyboard": ("electric piano", "organ"),
            "guitar": ("clean electric guitar",),
            "brass": ("brass section",),
            "strings": ("string ensemble",),
        },
        ("drums", "bass", "keyboard"),
        {"guitar": 0.6, "brass": 0.4, "strings": 0.3},
        ("guitar", "brass", "keyboard"),
        {"keyboard": ("block",), "guitar": ("offbeat", "arpeggio"), "brass": ("stabs",)},
        metres={"4": 0.6, "6": 0.4},
        minor=0.4,
        vocal=0.9,
        swing=0.04,
        major_loops=("Imaj7 vi7 ii7 V7", "I iii IV V", "I VI7 ii7 V7"),
        minor_loops=("im7 iv7 im7 V7", "im7 bVImaj7 iv7 V7"),
    ),
    Genre(
        "lo-fi hip hop",
        (68, 90),
        ("calm", "dreamy", "sad"),
        ("lo-fi drums",),
        {
            "4": (
                (("kick", "X......x..x....."), ("snare", "....X.......X..."), ("hat", "x.x.x.x.x.x.x.x.")),
                (("kick", "X.x.......x..x.."), ("snare", "....X.......X..."), ("hat", "x.xox.x.x.xox.xo")),
            )
        },
        {"4": _SHAKER["4"][:1]},
        {"4": ("1-----1---5-----", "1---------1-5---")},
        {
            "bass": ("upright bass", "sub bass"),
            "keyboard": ("electric piano", "piano", "vibraphone"),
            "guitar": ("nylon guitar", "clean electric guitar"),
            "synth": ("warm synth pad",),
            "woodwinds": ("flute", "saxophone"),
        },
        ("drums", "bass", "keyboard"),
        {"guitar": 0.35, "synth": 0.35, "fx": 0.75, "woodwinds": 0.2},
        ("keyboard", "woodwinds", "guitar"),
        {"keyboard": ("block", "syncopated"), "guitar": ("arpeggio",)},
        ("vinyl crackle", "rain"),
        swing=0.09,
        vocal=0.2,
        major_loops=("Imaj7 vi7 ii7 V7", "IVmaj7 iii7 vi7 Imaj7"),
        minor_loops=("im9 iv7 bVImaj7 v7", "im7 bVImaj7 bIIImaj7 bVII"),
    ),
    Genre(
        "trap",
        (66, 80),
        ("dark", "sad", "energetic"),
        ("808 drums",),
        {
            "4": (
                (("kick", "X.....x....x...."), ("clap", "........X......."), ("hat", "xoxoxoxoxoxoxxxx")),
                (("kick", "X..x......x..x.."), ("clap", "........X......."), ("hat", "x.xoxoxxx.xoxoxo")),
            )
        },
        {"4": ((("shaker", "..x...x...x...x."),),)},
        {"4": ("1-----1----1----", "1--1------1--8--")},
        {
            "bass": ("sub bass",),
            "keyboard": ("piano", "celesta"),
            "synth": ("synth pluck", "warm synth pad"),
            "strings": ("pizzicato strings", "string ensemble"),
            "woodwinds": ("pan flute",),
        },
        ("drums", "bass", "synth"),
        {"keyboard": 0.5, "strings": 0.3, "fx": 0.5, "woodwinds": 0.15},
        ("keyboard", "synth", "woodwinds"),
        {"synth": ("arpeggio", "fast arpeggio"), "keyboard": ("arpeggio", "block"), "strings": ("arpeggio",)},
        ("risers", "downlifters", "impacts"),
        minor=0.92,
        minor_mode="harmonic minor",
        vocal=0.55,
        minor_loops=("i bVI i V", "i iv bVI V", "i i bVI V"),
    ),
    Genre(
        "house",
        (118, 128),
        ("energetic", "happy", "dreamy"),
        ("909 drums",),
        {"4": _FOUR},
        {"4": (*_SHAKER["4"], *_LATIN["4"][:1])},
        {"4": ("..1...1...1...1.", "1..1..1.1..1..5.", "..1-..1-..1-..8-")},
        {
            "bass": ("synth bass", "sub bass"),
            "keyboard": ("piano", "organ"),
            "synth": ("synth stabs", "synth pad", "synth pluck"),
            "strings": ("string ensemble",),
        },
        ("drums", "bass", "synth"),
        {"keyboard": 0.5, "percussion": 0.5, "fx": 0.5, "strings": 0.15},
        ("synth", "keyboard"),
        {"keyboard": ("syncopated", "offbeat"), "synth": ("syncopated", "stabs", "offbeat")},
        ("risers", "downlifters", "impacts"),
        minor=0.6,
        vocal=0.5,
        minor_loops=("im7 bVImaj7 bIII bVII", "im7 iv7 im7 bVII", "i bVII iv bVI"),
    ),
    Genre(
        "techno",
        (126, 142),
        ("dark", "energetic"),
        ("909 drums",),
        {
            "4": (
                (("kick", "X...X...X...X..."), ("hat", "..X...X...X...X."), ("rim", "...x..x....x..x.")),
                (("kick", "X...X...X...X..."), ("clap", "....x.......x..."), ("hat", "xxXxxxXxxxXxxxXx")),
            )
        },
        {"4": ((("tambourine", "..x...x...x...x."),), (("woodblock", "x..x..x..x..x..x"),))},
        {"4": (".1.1.1.1.1.1.1.1", "..11..11..11..18", "1.11.11.1.11.118")},
        {"bass": ("synth bass",), "synth": ("synth pluck", "synth stabs", "warm synth pad")},
        ("drums", "bass", "synth"),
        {"percussion": 0.5, "fx": 0.7},
        ("synth",),
        {"synth": ("fast arpeggio", "stabs")},
        ("risers", "downlifters", "impacts", "wind"),
        minor=0.95,
        vocal=0.1,
        minor_loops=("i i i i", "i i bVI bVII", "i i iv i"),
    ),
    Genre(
        "drum and bass",
        (160, 178),
        ("energetic", "dark", "dreamy"),
        ("breakbeat drums",),
        {
            "4": (
                (("kick", "X.........x....."), ("snare", "....X.......X..."), ("hat", "x.x.x.x.x.x.x.x.")),
                (("kick", "X..x......x....."), ("snare", "....X..o.o..X..o"), ("ride", "x.x.x.x.x.x.x.x.")),
            )
        },
        {"4": _SHAKER["4"][:1]},
        {"4": ("1-------1---5---", "1-----1-------8-")},
        {
            "bass": ("sub bass", "synth bass"),
            "synth": ("synth pad", "warm synth pad", "synth pluck"),
            "keyboard": ("piano", "electric piano"),
            "strings": ("string ensemble",),
        },
        ("drums", "bass", "synth"),
        {"keyboard": 0.4, "strings": 0.2, "fx": 0.5},
        ("synth", "keyboard"),
        {"synth": ("arpeggio",), "keyboard": ("block", "syncopated")},
        ("risers", "impacts", "downlifters"),
        minor=0.8,
        vocal=0.35,
    ),
    Genre(
        "synthwave",
        (84, 116),
        ("dreamy", "energetic", "dark"),
        ("909 drums", "808 drums"),
        {
            "4": (
                (("kick", "X...X...X...X..."), ("snare", "....X.......X..."), ("hat", "x.x.x.x.x.x.x.x.")),
                (("kick", "X.......X......."), ("snare", "....X.......X..."), ("hat", "xoxoxoxoxoxoxoxo")),
            )
        },
        {},
        {"4": ("1.1.1.1.1.1.1.1.", "1111111111111111", "1.181.181.181.18")},
        {
            "bass": ("synth bass",),
            "synth": ("synth pluck", "synth pad", "saw lead"),
            "guitar": ("distorted guitar",),
            "keyboard": ("electric piano",),
        },
        ("drums", "bass", "synth"),
        {"guitar": 0.2, "keyboard": 0.3, "fx": 0.3},
        ("synth", "guitar"),
        {"synth": ("fast arpeggio", "arpeggio"), "guitar": ("block",), "keyboard": ("block",)},
        ("risers", "impacts"),
        minor=0.75,
        vocal=0.4,
    ),
    Genre(
        "chiptune",
        (124, 170),
        ("playful", "happy", "energetic"),
        ("808 drums",),
        {"4": ((("kick", "X...x...X...x..."), ("snare", "....X.......X..."), ("hat", "x.x.x.x.x.x.x.x.")),)},
        {},
        {"4": ("1.8.1.8.1.8.1.8.", "1-1-5-5-1-1-5-5-"), "3": ("1.8.5.8.5.8.",)},
        {"bass": ("synth bass",), "synth": ("chiptune lead", "square lead")},
        ("drums", "bass", "synth"),
        {"fx": 0.3},
        ("synth",),
        {"synth": ("fast arpeggio",)},
        ("downlifters", "chimes"),
        minor=0.3,
        vocal=0.0,
        metres={"4": 1.0},
    ),
    Genre(
        "reggae",
        (66, 90),
        ("happy", "calm", "playful"),
        ("acoustic drums",),
        {
            "4": (
                (("kick", "........X......."), ("rim", "........X......."), ("hat", "x.x.x.x.x.x.x.x.")),
                (("kick", "X...X...X...X..."), ("rim", "....x.......x..."), ("hat", "..x...x...x...x.")),
            )
        },
        {
            "4": (
                (("shaker", "x.o.x.o.x.o.x.o."),),
                (("high bongo", "..x..x....x..xx."), ("low bongo", "x.......x.......")),
            )
        },
        {"4": ("1-..3.5-..1.....", "..1-1-3-....5-3-", "1---..1-5-3-....")},
        {
            "bass": ("bass guitar", "sub bass"),
            "guitar": ("muted guitar", "clean electric guitar"),
            "keyboard": ("organ", "piano"),
            "brass": ("trombone", "brass section"),
        },
        ("drums", "bass", "guitar"),
        {"keyboard": 0.8, "percussion": 0.4, "brass": 0.35},
        ("brass", "keyboard", "guitar"),
        {"guitar": ("offbeat",), "keyboard": ("offbeat",), "brass": ("stabs",)},
        swing=0.06,
        minor=0.4,
        vocal=0.7,
        major_loops=("I IV I V", "I ii IV I", "I V vi IV"),
        minor_loops=("i iv i v", "i bVII i bVII", "i bVI bVII i"),
    ),
    Genre(
        "country",
        (88, 132),
        ("happy", "playful", "sad"),
        ("acoustic drums", "brushed drums"),
        {
            "4": ((("kick", "X.......X......."), ("snare", "....x.......x..."), ("hat", "..x...x...x...x.")), _ROCK[0]),
            "2": _TWO,
        },
        _SHAKER,
        {"4": ("1-------5-------", "1-------5---2---"), "2": ("1---5---",)},
        {
            "bass": ("upright bass", "bass guitar"),
            "guitar": ("steel-string guitar", "acoustic guitar", "banjo"),
            "strings": ("solo violin",),
            "keyboard": ("piano",),
        },
        ("bass", "guitar"),
        {"drums": 0.8, "strings": 0.5, "keyboard": 0.35, "percussion": 0.15},
        ("strings", "guitar"),
        {"guitar": ("strum", "arpeggio"), "keyboard": ("oompah", "block")},
        metres={"4": 0.7, "2": 0.3},
        minor=0.15,
        vocal=0.8,
        swing=0.03,
        major_loops=("I IV V I", "I I IV V", "I vi IV V", "I V IV I"),
    ),
    Genre(
        "folk",
        (72, 120),
        ("calm", "sad", "romantic", "happy"),
        (),
        {},
        _SHAKER,
        _BASS,
        {
            "bass": ("upright bass",),
            "guitar": ("acoustic guitar", "nylon guitar", "banjo"),
            "strings": ("solo violin", "cello"),
            "woodwinds": ("flute", "tin whistle"),
            "keyboard": ("accordion",),
        },
        ("guitar",),
        {"bass": 0.5, "strings": 0.45, "woodwinds": 0.3, "percussion": 0.35, "keyboard": 0.25},
        ("woodwinds", "strings", "keyboard"),
        {"guitar": ("arpeggio", "strum"), "keyboard": ("block",)},
        ("rain", "wind", "chimes"),
        {"4": 0.5, "3": 0.3, "6": 0.2},
        minor=0.45,
        minor_mode="dorian",
        vocal=0.7,
        major_loops=("I IV I V", "I V vi IV", "I ii IV I"),
        minor_loops=("i bVII bVI bVII", "i bIII bVII i", "i v bVI bVII"),
    ),
    Genre(
        "waltz",
        (96, 180),
        ("romantic", "playful", "happy"),
        (),
        {},
        {"3": ((("triangle", "....x...x..."),), (("tambourine", "x...o...o..."),))},
        {"3": ("1-------....", "1---........")},
        {
            "bass": ("upright bass", "tuba"),
            "strings": ("string ensemble", "pizzicato strings"),
            "keyboard": ("accordion", "piano", "harpsichord"),
            "woodwinds": ("clarinet", "flute", "oboe"),
            "brass": ("french horns",),
        },
        ("bass", "keyboard"),
        {"strings": 0.7, "woodwinds": 0.6, "percussion": 0.3, "brass": 0.2},
        ("woodwinds", "strings", "keyboard"),
        {"keyboard": ("oompah",), "strings": ("oompah", "pad")},
        ("chimes",),
        {"3": 1.0},
        minor=0.4,
        minor_mode="harmonic minor",
        vocal=0.2,
        major_loops=("I I V7 V7", "I IV V7 I", "I vi ii V7"),
        minor_loops=("i i V7 i", "i iv V7 i", "i bVI iv V7"),
    ),
    Genre(
        "celtic jig",
        (92, 124),
        ("playful", "happy", "energetic"),
        (),
        {},
        {"6": ((("frame drum", "X.o.x.X.o.x."),), (("frame drum", "X...x.X...x."), ("shaker", "X.o.o.X.o.o.")))},
        {"6": ("1-----5-----", "1-----1-----")},
        {
            "bass": ("upright bass",),
            "guitar": ("steel-string guitar", "banjo"),
            "strings": ("solo violin",),
            "woodwinds": ("tin whistle", "flute"),
            "keyboard": ("accordion",),
        },
        ("guitar", "percussion", "woodwinds"),
        {"strings": 0.5, "bass": 0.4, "keyboard": 0.4},
        ("woodwinds", "strings"),
        {"guitar": ("strum",), "keyboard": ("offbeat",), "strings": ("pad",)},
        metres={"6": 1.0},
        minor=0.45,
        minor_mode="dorian",
        major_mode="ionian",
        vocal=0.15,
        major_loops=("I I IV V", "I bVII I V", "I IV I V"),
        minor_loops=("i bVII i bVII", "i i bVII v", "i bVII bIII bVII"),
    ),
    Genre(
        "march",
        (100, 126),
        ("happy", "epic", "playful"),
        ("orchestral drums", "acoustic drums"),
        {
            "2": ((("kick", "X...X..."), ("snare", "x.xxx.xx")), (("kick", "X...X..."), ("snare", "X.ooX.oo"))),
            "4": ((("kick", "X.......X......."), ("snare", "X..xX.xxX..xXxxx")),),
        },
        {"2": ((("triangle", "..x...x."),),), "4": ((("tambourine", "....x.......x..."),),)},
        {"2": ("1---5---",), "4": ("1---5---1---5---",)},
        {
            "bass": ("tuba",),
            "brass": ("trumpet", "brass section", "trombone"),
            "woodwinds": ("clarinet", "flute", "tin whistle"),
            "keyboard": ("celesta",),
        },
        ("drums", "bass", "brass"),
        {"woodwinds": 0.7, "percussion": 0.4},
        ("brass", "woodwinds"),
        {"brass": ("oompah",), "woodwinds": ("oompah",), "keyboard": ("offbeat",)},
        metres={"2": 0.7, "4": 0.3},
        minor=0.2,
        vocal=0.1,
        major_loops=("I I V7 I", "I IV V7 I", "I vi IV V"),
        minor_loops=("i i V7 i", "i iv V7 i"),
    ),
    Genre(
        "cinematic",
        (60, 110),
        ("epic", "dark", "sad", "dreamy"),
        ("orchestral drums",),
        {
            "4": (
                (("kick", "X.....x.X......."), ("low tom", "..x...x...x.x.x.")),
                (("kick", "X.......X..x...."), ("high tom", "....x.....x.....")),
            ),
            "3": ((("kick", "X..........."), ("low tom", "....x...x.x.")),),
        },
        {
            "4": (
                (("timpani", "X.......x......."),),
                (("timpani", "X.............xx"), ("triangle", "........x.......")),
            ),
            "3": ((("timpani", "X..........."),),),
        },
        {"4": ("1---------------", "1-------1-------"), "3": ("1-----------",)},
        {
            "bass": ("tuba", "upright bass"),
            "strings": ("string ensemble", "staccato strings", "cello"),
            "brass": ("french horns", "brass section", "trombone"),
            "woodwinds": ("oboe", "flute", "clarinet"),
            "keyboard": ("piano", "celesta"),
            "synth": ("warm synth pad",),
        },
        ("strings",),
        {
            "brass": 0.7,
            "drums": 0.55,
            "percussion": 0.5,
            "woodwinds": 0.45,
            "keyboard": 0.5,
            "bass": 0.5,
            "synth": 0.2,
            "fx": 0.45,
        },
        ("brass", "woodwinds", "strings", "keyboard"),
        {"keyboard": ("arpeggio", "fast arpeggio"), "strings": ("pad", "fast arpeggio"), "brass": ("pad",)},
        ("impacts", "risers", "chimes", "wind"),
        {"4": 0.75, "3": 0.25},
        minor=0.7,
        vocal=0.12,
        minor_mode="aeolian",
        major_loops=("I V vi IV", "I bVI IV I", "I iii IV iv"),
        minor_loops=("i bVI bIII bVII", "i bVI i V", "i iv bVI V"),
    ),
    Genre(
        "ambient",
        (60, 84),
        ("dreamy", "calm", "dark"),
        (),
        {},
        {"4": ((("triangle", "x..............."),), (("frame drum", "x.......o......."),))},
        {"4": ("1---------------",), "3": ("1-----------",)},
        {
            "bass": ("sub bass",),
            "synth": ("warm synth pad", "synth pad"),
            "keyboard": ("celesta", "electric piano", "piano"),
            "strings": ("harp", "string ensemble"),
            "woodwinds": ("pan flute", "flute"),
            "guitar": ("clean electric guitar",),
        },
        ("synth",),
        {"keyboard": 0.6, "fx": 0.7, "bass": 0.4, "strings": 0.35, "woodwinds": 0.3, "guitar": 0.3, "percussion": 0.2},
        ("keyboard", "woodwinds", "guitar"),
        {"keyboard": ("arpeggio", "block"), "strings": ("arpeggio", "pad"), "guitar": ("arpeggio",), "synth": ("pad",)},
        ("ocean waves", "rain", "wind"),
        {"4": 0.8, "3": 0.2},
        minor=0.5,
        major_mode="lydian",
        vocal=0.1,
        major_loops=("Imaj7 Imaj7 IVmaj7 IVmaj7", "Iadd9 vi IV I"),
        minor_loops=("im9 im9 bVImaj7 bVImaj7", "i bVI bIII iv"),
    ),
    Genre(
        "salsa",
        (90, 112),
        ("energetic", "happy", "playful"),
        (),
        {},
        _LATIN,
        {"4": ("...1--5-...1--8-", "1--5--8-...5--8-")},
        {
            "bass": ("upright bass", "bass guitar"),
            "keyboard": ("piano",),
            "brass": ("trumpet", "brass section", "trombone"),
            "guitar": ("nylon guitar",),
            "woodwinds": ("flute",),
        },
        ("percussion", "bass", "keyboard"),
        {"brass": 0.85, "guitar": 0.25, "woodwinds": 0.25},
        ("brass", "woodwinds"),
        {"keyboard": ("montuno",), "brass": ("stabs",), "guitar": ("offbeat",)},
        minor=0.6,
        minor_mode="harmonic minor",
        vocal=0.6,
        major_loops=("I IV V IV", "I VI7 ii V7"),
        minor_loops=("i iv V7 iv", "i bVII bVI V7", "i V7 i V7"),
    ),
    Genre(
        "blues",
        (60, 92),
        ("sad", "playful", "calm"),
        ("acoustic drums", "brushed drums"),
        {"6": _SIX, "4": (_ROCK[0],)},
        {"6": _SHAKER["6"]},
        {"6": ("1---3-5---6-", "1-----1---5-"), "4": ("1-1-3-3-5-5-3-3-", "1---3---5---3---")},
        {
            "bass": ("bass guitar", "upright bass"),
            "guitar": ("clean electric guitar", "steel-string guitar"),
            "keyboard": ("organ", "piano"),
            "brass": ("trombone",),
            "woodwinds": ("saxophone",),
        },
        ("drums", "bass", "guitar"),
        {"keyboard": 0.6, "woodwinds": 0.3, "brass": 0.15},
        ("guitar", "woodwinds", "keyboard"),
        {"guitar": ("strum", "offbeat"), "keyboard": ("block", "stabs"), "brass": ("stabs",)},
        metres={"6": 0.6, "4": 0.4},
        swing=0.13,
        minor=0.3,
        major_mode="mixolydian",
        minor_mode="dorian",
        vocal=0.6,
        major_loops=("I7 IV7 I7 V7", "I7 I7 IV7 I7", "I7 V7 IV7 I7"),
        minor_loops=("im7 iv7 im7 V7", "i iv i V7"),
    ),
)
BY_NAME = {genre.name: genre for genre in GENRES}

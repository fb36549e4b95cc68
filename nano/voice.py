"""A singer: a pulse at the sung pitch and noise, shaped every 10.7 ms by the formants of what is sung.

Vowel formants are the means of Peterson and Barney (1952) for women; other voices scale them. The shaping is a
product of second-order resonances (a cascade), applied to overlapping windows of the source's spectrum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .tone import GRID, NOISE, RATE, hertz
from .tune import Syllable
from .words import VOWELS, split

HOP = 512
_SIZE = 2 * HOP
_BINS = 256
_FREQUENCY = np.arange(_BINS, dtype=np.float32) * np.float32(RATE / _SIZE)
_WINDOW = np.sin(np.pi * (np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE).astype(np.float32)

FORMANTS = {
    "a": (850, 1220, 2810),
    "e": (610, 2330, 2990),
    "i": (310, 2790, 3310),
    "o": (480, 880, 2700),
    "u": (370, 950, 2670),
    "A": (860, 2050, 2850),
    "E": (650, 1400, 2780),
    "O": (590, 920, 2710),
    "I": (430, 2480, 3070),
}


@dataclass(frozen=True)
class Consonant:
    """``voiced`` 0 to 1; ``formants`` in Hz; noise of a level around ``centre`` ± ``width`` Hz; ``closed`` seconds."""

    seconds: float
    voiced: float = 0.0
    formants: tuple[int, int, int] | None = None
    noise: float = 0.0
    centre: float = 5000.0
    width: float = 2500.0
    closed: float = 0.0


CONSONANTS = {
    "m": Consonant(0.07, 0.5, (250, 1100, 2300)),
    "n": Consonant(0.06, 0.5, (250, 1650, 2600)),
    "N": Consonant(0.07, 0.5, (250, 2200, 2800)),
    "l": Consonant(0.06, 0.6, (360, 1300, 2800)),
    "r": Consonant(0.06, 0.6, (420, 1250, 1700)),
    "w": Consonant(0.06, 0.6, (300, 700, 2400)),
    "y": Consonant(0.05, 0.6, (280, 2500, 3200)),
    "s": Consonant(0.09, 0.0, None, 0.5, 7000, 2200),
    "z": Consonant(0.07, 0.35, (300, 1600, 2600), 0.3, 7000, 2200),
    "S": Consonant(0.09, 0.0, None, 0.55, 3600, 1500),
    "f": Consonant(0.07, 0.0, None, 0.2, 6500, 4000),
    "v": Consonant(0.05, 0.45, (280, 1100, 2300), 0.1, 6000, 4000),
    "T": Consonant(0.07, 0.0, None, 0.18, 7500, 3500),
    "D": Consonant(0.04, 0.5, (280, 1500, 2600), 0.08, 6000, 4000),
    "h": Consonant(0.06, 0.0, None, 0.28, 1800, 1500),
    "p": Consonant(0.075, 0.0, None, 0.4, 1200, 1200, 0.05),
    "t": Consonant(0.075, 0.0, None, 0.55, 5000, 2500, 0.045),
    "k": Consonant(0.075, 0.0, None, 0.55, 2200, 1200, 0.045),
    "b": Consonant(0.05, 0.35, (250, 900, 2300), 0.25, 1000, 900, 0.035),
    "d": Consonant(0.05, 0.35, (250, 1700, 2700), 0.35, 4500, 2500, 0.035),
    "g": Consonant(0.05, 0.35, (250, 2000, 2500), 0.35, 2000, 1000, 0.035),
    "C": Consonant(0.1, 0.0, None, 0.6, 3800, 1700, 0.04),
    "J": Consonant(0.08, 0.25, (260, 2000, 2700), 0.45, 3600, 1700, 0.035),
}


@dataclass(frozen=True)
class Singer:
    """``name`` as a caption calls them; ``tract`` scales the formants; ``centre`` MIDI pitch of a comfortable tune.

    ``tilt``: the source's partial k has the level k^−tilt. ``breath``: level of noise in vowels.
    """

    name: str
    tract: float = 1.0
    centre: float = 66.0
    tilt: float = 1.0
    breath: float = 0.03


SINGERS = {
    "female vocals": Singer("female vocals"),
    "male vocals": Singer("male vocals", tract=0.84, centre=55.0),
    "deep male vocals": Singer("deep male vocals", tract=0.8, centre=49.0),
    "breathy female vocals": Singer("breathy female vocals", tilt=1.35, breath=0.08),
}


@dataclass
class _Score:
    """Controls of each frame: ``formants [3, F]`` in Hz; ``voiced``, ``noise``, ``centre``, ``width`` are ``[F]``."""

    formants: np.ndarray
    voiced: np.ndarray
    noise: np.ndarray
    centre: np.ndarray
    width: np.ndarray


def _frames(samples: int) -> int:
    return samples // HOP + 2


def _score(syllables: Sequence[Syllable], frames: int, singer: Singer) -> _Score:
    score = _Score(
        np.repeat(np.array(FORMANTS["E"], np.float32)[:, None], frames, 1),
        np.zeros(frames, np.float32),
        np.zeros(frames, np.float32),
        np.full(frames, 5000, np.float32),
        np.full(frames, 2500, np.float32),
    )
    for at, syllable in enumerate(syllables):
        following = syllables[at + 1].start if at + 1 < len(syllables) else np.inf
        _sing(score, syllable, following - syllable.end > 0.04)
    score.formants *= singer.tract
    score.formants = np.stack([_smooth(row, 5) for row in score.formants])
    score.voiced = _smooth(score.voiced, 5)
    score.noise = _smooth(score.noise, 3)
    return score


def _sing(score: _Score, syllable: Syllable, rest_after: bool) -> None:
    before, vowels, after = split(syllable.sounds)
    room = (syllable.end - syllable.start) * 0.4
    lead = sum(CONSONANTS[sound].seconds for sound in before)
    tail = sum(CONSONANTS[sound].seconds for sound in after)
    squeeze = min(1.0, room / max(lead, tail, 1e-6))
    time = syllable.start - 0.02
    for sound in before:
        time = _consonant(score, CONSONANTS[sound], time, squeeze, FORMANTS[vowels[0]])
    end = syllable.end - tail * squeeze - (0.03 if rest_after else 0.0)
    turn = time + (end - time) * 0.6
    spans = ((time, end),) if len(vowels) == 1 else ((time, turn), (turn, end))
    for vowel, (first, last) in zip((vowels[0], vowels[-1]), spans, strict=False):
        part = _span(first, last, len(score.voiced))
        score.formants[:, part] = np.array(FORMANTS[vowel], np.float32)[:, None]
        score.voiced[part] = 1.0
        score.noise[part] = 0.0
    time = end
    for sound in after:
        time = _consonant(score, CONSONANTS[sound], time, squeeze, FORMANTS[vowels[-1]])


def _consonant(score: _Score, sound: Consonant, time: float, squeeze: float, near: tuple[int, int, int]) -> float:
    end = time + sound.seconds * squeeze
    whole = _span(time, end, len(score.voiced))
    score.formants[:, whole] = np.array(sound.formants or near, np.float32)[:, None]
    score.voiced[whole] = sound.voiced
    score.noise[whole] = 0.0
    noisy = _span(time + sound.closed * squeeze, end, len(score.voiced))
    score.noise[noisy] = sound.noise
    score.centre[noisy] = sound.centre
    score.width[noisy] = sound.width
    return end


def _span(start: float, end: float, frames: int) -> slice:
    first = int(np.clip(round(start * RATE / HOP), 0, frames))
    return slice(first, int(np.clip(max(round(end * RATE / HOP), first + 1), 0, frames)))


def _smooth(row: np.ndarray, width: int) -> np.ndarray:
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(row, width // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), "valid").astype(np.float32)


@lru_cache(maxsize=64)
def _pulse(tilt: float, partials: int) -> np.ndarray:
    """One period of the source, ``[2048 + 1]``: levels k^−tilt, phases of a rounded pulse."""
    k = np.arange(1, partials + 1)
    spectrum = np.zeros(1025, np.complex64)
    spectrum[1 : partials + 1] = k**-tilt * np.exp(-0.9j * k**0.7)
    wave = np.fft.irfft(spectrum, 2048) * 1024
    return np.append(wave, wave[0]).astype(np.float32)


def _source(syllables: Sequence[Syllable], samples: int, singer: Singer) -> np.ndarray:
    """A train of pulses that begins anew with each syllable, on the grid that instruments keep too."""
    starts = [round((syllable.start - 0.02) * RATE / GRID) * GRID for syllable in syllables]
    table = _pulse(singer.tilt, int(min(60, 10500 / max(hertz(syllable.pitch) for syllable in syllables))))
    source = np.zeros(samples, np.float32)
    for syllable, start, following in zip(syllables, starts, [*starts[1:], samples], strict=True):
        first, last = max(start, 0), min(following, samples)
        place = np.arange(max(last - first, 0)) * (hertz(syllable.pitch) * 2048 / RATE)
        whole = place.astype(np.int64)
        part = (place - whole).astype(np.float32)
        whole &= 2047
        low = table[whole]
        source[first:last] = low + part * (table[whole + 1] - low)
    return source


def _gains(formants: np.ndarray, singer: Singer) -> np.ndarray:
    """What the vocal tract lets through, ``[F, bins]``, evened out in loudness."""
    squared = _FREQUENCY**2
    gains = np.ones((formants.shape[1], _BINS), np.float32)
    for centre, width in zip(formants, (90.0, 110.0, 170.0), strict=True):
        peak = (centre**2)[:, None]
        gains *= peak / np.sqrt((peak - squared) ** 2 + np.float32(width**2) * squared)
    fixed = np.ones(_BINS, np.float32)
    for centre, width in ((3900.0 * singer.tract, 250.0), (5000.0 * singer.tract, 400.0)):
        fixed *= centre**2 / np.sqrt((centre**2 - squared) ** 2 + width**2 * squared)
    gains *= fixed * (1 + 0.35 * _FREQUENCY / 1000) / (1 + (_FREQUENCY / 7500) ** 6)
    weight = 1 / np.maximum(_FREQUENCY, 150) ** np.float32(2 * singer.tilt) * 1e5
    loudness = np.sqrt((gains**2 * weight).sum(axis=1, keepdims=True))
    return gains / loudness**0.8


def voice(parts: Sequence[Sequence[Syllable]], samples: int, singer: Singer) -> np.ndarray:
    """``[samples]`` float32 of one or more voices that sing the same syllables at pitches of their own.

    ``parts``: for each voice its syllables in order of time; words and times are those of the first.
    """
    frames = _frames(samples)
    score = _score(parts[0], frames, singer)
    level = (score.voiced > 0.004) | (score.noise > 0.004)
    used = np.flatnonzero(level)
    if not len(used):
        return np.zeros(samples, np.float32)
    length = (frames + 1) * HOP
    source = np.zeros(length, np.float32)
    for part in parts:
        source[HOP : HOP + (frames - 1) * HOP] += _source(part, (frames - 1) * HOP, singer)
    noise = np.resize(NOISE, length)
    cut = lambda wave: np.lib.stride_tricks.sliding_window_view(wave, _SIZE)[::HOP][used] * _WINDOW  # noqa: E731
    tone = np.fft.rfft(cut(source))[:, :_BINS]
    hiss = np.fft.rfft(cut(noise))[:, :_BINS]
    through = _gains(score.formants[:, used], singer) * score.voiced[used, None]
    band = np.exp(-(((_FREQUENCY - score.centre[used, None]) / score.width[used, None]) ** 2))
    shaped = np.zeros((len(used), HOP + 1), np.complex64)
    shaped[:, :_BINS] = through * (tone + np.float32(4 * singer.breath) * hiss)
    shaped[:, :_BINS] += hiss * band * (0.16 * score.noise[used, None]).astype(np.float32)
    waves = np.fft.irfft(shaped, _SIZE).astype(np.float32) * _WINDOW
    blocks = np.zeros((frames + 2, HOP), np.float32)
    blocks[used] += waves[:, :HOP]
    blocks[used + 1] += waves[:, HOP:]
    return blocks.reshape(-1)[HOP : HOP + samples]


def check_sounds(sounds: str) -> None:
    """Raises ValueError for a syllable with a sound that cannot be sung."""
    unknown = set(sounds) - set(VOWELS) - set(CONSONANTS)
    if unknown:
        raise ValueError(f"{sounds!r} has the sounds {sorted(unknown)}, which are not known; see nano/words.py.")

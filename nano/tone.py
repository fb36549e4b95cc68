"""Pitched instruments, by one additive model with a decay for each band of partials.

A note's partials are put into a spectrum whose inverse transform is a loop of a whole number of periods; the loop is
repeated for as long as the note lasts. So there is no aliasing and no interpolation, and a note costs a few
multiplications a sample. Ensembles spread each partial over a band with random phases (PADsynth, N. O. Paul).
Arrays are float32 at 48 kHz.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RATE = 48000
GRID = 960
"""Samples, 20 ms: where sounds may begin. An ear forgives 10 ms, and a small model has fewer cases to learn."""
LOUDNESS = (0.45, 0.7, 1.0)
"""Strengths for which a note's colour is computed; velocity scales the level smoothly on top."""

_TOP = 15000.0
_SMOOTH = np.array(
    sorted(
        size
        for a, b, c, d in itertools.product(range(1, 18), range(11), range(8), range(4))
        if 64 <= (size := 2**a * 3**b * 5**c * 7**d) <= 200_000
    )
)


@dataclass(frozen=True)
class Patch:
    """How an instrument sounds.

    Attributes:
        name: as a caption calls it.
        tilt: partial k has the level k^−tilt before the rest.
        even: level of even partials against odd ones, 0 (hollow) to 1.
        cutoff: Hz at which the partials begin to fall by 12 dB an octave, at full loudness.
        soft: how far a soft note is darker, 0 to 1.
        pluck: where the string is plucked, as a part of its length; 0 for no such comb.
        formants: (Hz, width in Hz, gain) of resonances of the body.
        stiff: inharmonicity B of f_k = k·f·√(1 + B·k²).
        ring: seconds in which the lowest partial falls by 60 dB at middle C; 0 for a sustained tone.
        damp: how much faster a partial falls for each number above the first.
        attack, release: seconds. bloom: seconds that the bright half of a sustained tone comes later.
        vibrato: depth in cents, 5.4 Hz, growing after 0.2 s. tremolo: depth 0 to 1 at 5 Hz.
        spread: bandwidth of the partials in cents, for ensembles. breath: level of noise around the tone.
        tine: level of a short bell-like partial at 7 times the pitch. drive: 0 clean, above 1 distorted.
        octave: moves the whole part by so many octaves.
    """

    name: str
    tilt: float = 1.0
    even: float = 1.0
    cutoff: float = 4000.0
    soft: float = 0.6
    pluck: float = 0.0
    formants: tuple[tuple[float, float, float], ...] = ()
    stiff: float = 0.0
    ring: float = 0.0
    damp: float = 0.15
    attack: float = 0.004
    release: float = 0.08
    bloom: float = 0.0
    vibrato: float = 0.0
    tremolo: float = 0.0
    spread: float = 0.0
    breath: float = 0.0
    tine: float = 0.0
    drive: float = 0.0
    octave: int = 0


def hertz(pitch: float) -> float:
    """Frequency of a MIDI number, equal temperament."""
    return 440.0 * 2.0 ** ((pitch - 69) / 12)


@lru_cache(maxsize=1024)
def loop_size(hz: float, least: int) -> tuple[int, int]:
    """Samples and periods of a loop of at least ``least`` periods, of a length that is quick to transform.

    For notes of the tempered scale it is in tune to 2 cents.
    """
    periods = np.arange(least, 3 * least + 16)
    exact = periods * RATE / hz
    place = np.clip(np.searchsorted(_SMOOTH, exact), 1, len(_SMOOTH) - 1)
    sizes = np.where(exact - _SMOOTH[place - 1] < _SMOOTH[place] - exact, _SMOOTH[place - 1], _SMOOTH[place])
    best = int(np.argmin(np.abs(sizes / exact - 1)))
    return int(sizes[best]), int(periods[best])


def partials(patch: Patch, pitch: int, loudness: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies as multiples of the pitch, and levels, both ``[K]``."""
    hz = hertz(pitch)
    k = np.arange(1, max(2, min(64, int(_TOP / hz))) + 1)
    ratio = k * np.sqrt(1 + patch.stiff * k**2)
    frequency = ratio * hz
    cutoff = patch.cutoff * (1 - patch.soft * (1 - loudness)) * (hz / 262) ** 0.3
    level = k**-patch.tilt / (1 + (frequency / cutoff) ** 2) * np.where(k % 2 == 0, patch.even, 1.0)
    if patch.pluck:
        level = level * (0.1 + np.abs(np.sin(np.pi * k * patch.pluck)))
    for centre, width, gain in patch.formants:
        level = level * (1 + gain / (1 + ((frequency - centre) / width) ** 2))
    keep = frequency < _TOP
    return ratio[keep], (level / np.sqrt((level**2).sum()))[keep]


def phases(frequency: np.ndarray) -> np.ndarray:
    """Phases in which partials of so many Hz start: what a frequency does after an onset is the same for all
    instruments. High ones come up to 4 ms late, so that a tone is no click."""
    late = np.minimum(frequency, 4000.0)
    return -np.pi / 2 - np.pi * late * (2 * frequency - late) * 1e-6


def _loop(size: int, bins: np.ndarray, levels: np.ndarray, phase: np.ndarray) -> np.ndarray:
    spectrum = np.zeros(size // 2 + 1, np.complex64)
    inside = bins < size // 2
    np.add.at(spectrum, bins[inside], (levels * np.exp(1j * phase))[inside].astype(np.complex64))
    return (np.fft.irfft(spectrum, size) * (size / 2)).astype(np.float32)


@lru_cache(maxsize=768)
def loops(patch: Patch, pitch: int, loudness: float) -> tuple[tuple[np.ndarray, float], ...]:
    """The tone as loops, each with its decay in 1/s: fast-decaying upper bands apart from the lower ones."""
    hz = hertz(pitch)
    ratio, level = partials(patch, pitch, loudness)
    if patch.spread:
        return ((_ensemble(patch, pitch, ratio, level), 0.0),)
    size, periods = loop_size(hz, max(12, min(32, int(hz / 8))))
    bins = np.round(ratio * periods).astype(int)
    phase = phases(bins * (hz / periods))
    if not patch.ring:
        dark = np.arange(len(bins)) < 3
        return tuple((_loop(size, bins[part], level[part], phase[part]), 0.0) for part in (dark, ~dark) if part.any())
    rate = math.log(1000) / patch.ring * (hz / 262) ** 0.4
    edges = (0, 2, 5, 12, len(bins))
    found = []
    for first, last in zip(edges, edges[1:], strict=False):
        if first < min(last, len(bins)):
            part = slice(first, last)
            middle = (first + min(last, len(bins)) - 1) / 2
            found.append((_loop(size, bins[part], level[part], phase[part]), rate * (1 + patch.damp * middle)))
    if patch.tine and 7 * hz < _TOP:
        bell = _loop(size, np.array([7 * periods]), np.array([patch.tine * loudness]), np.zeros(1))
        found.append((bell, 9.0))
    return tuple(found)


def _ensemble(patch: Patch, pitch: int, ratio: np.ndarray, level: np.ndarray) -> np.ndarray:
    size = 65536
    width = RATE / size
    amplitude = np.zeros(size // 2 + 1)
    for centre, strength in zip(ratio * hertz(pitch), level, strict=True):
        sigma = max(centre * (2 ** (patch.spread / 1200) - 1) / 2, width)
        first = max(int((centre - 3 * sigma) / width), 1)
        last = min(int((centre + 3 * sigma) / width) + 2, len(amplitude))
        bell = np.exp(-0.5 * ((np.arange(first, last) * width - centre) / sigma) ** 2)
        amplitude[first:last] += strength * bell / max(np.sqrt((bell**2).sum()), 1e-9)
    spectrum = amplitude * np.exp(2j * np.pi * np.random.default_rng(7919).random(len(amplitude)))
    return (np.fft.irfft(spectrum.astype(np.complex64), size) * (size / 2)).astype(np.float32)


NOISE = np.random.default_rng(20260).uniform(-1, 1, 1 << 18).astype(np.float32)
"""White noise that everything draws from."""


def rise(samples: int) -> np.ndarray:
    """A raised-cosine edge from 0 to 1."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(samples) + 0.5) / max(samples, 1))).astype(np.float32)


def note(patch: Patch, pitch: int, seconds: float, loudness: float) -> np.ndarray:
    """One note ``[N]``, held for so many seconds and then released.

    ``pitch`` a MIDI number, ``loudness`` one of :data:`LOUDNESS`. Its RMS while it sounds is about 0.5 at most.
    """
    pitch += 12 * patch.octave
    held = max(int(seconds * RATE), int(0.03 * RATE))
    samples = held + int(patch.release * RATE)
    time = np.arange(samples, dtype=np.float32) / np.float32(RATE)
    bands = loops(patch, pitch, loudness)
    sound = np.zeros(samples, np.float32)
    reading = _vibrato(patch, pitch, time) if patch.vibrato else None
    for number, (loop, rate) in enumerate(bands):
        if reading is None:
            wave = np.resize(loop, samples)
        else:
            whole = np.floor(reading).astype(np.int64)
            part = (reading - whole).astype(np.float32)
            whole %= len(loop)
            after = np.roll(loop, -1)
            wave = loop[whole] + part * (after - loop)[whole]
        if rate:
            wave = wave * np.exp(-np.float32(rate) * time)
        elif number and patch.bloom:
            wave = wave * (1 - np.exp(time * np.float32(-1 / patch.bloom)))
        sound += wave
    if patch.breath:
        sound += _breath(patch, pitch, samples)
    if patch.tremolo:
        sound *= 1 - np.float32(patch.tremolo) * (0.5 + 0.5 * np.sin(np.float32(2 * np.pi * 5) * time))
    into = min(int(patch.attack * RATE) + 24, held)
    sound[:into] *= rise(into)
    out = samples - held
    if out:
        sound[held:] *= rise(out)[::-1]
    return sound * np.float32(0.7 * loudness)


def _vibrato(patch: Patch, pitch: int, time: np.ndarray) -> np.ndarray:
    rate = 5.4
    swing = (2 ** (patch.vibrato / 1200) - 1) * RATE / (2 * np.pi * rate)
    depth = np.clip((time - 0.2) / 0.35, 0, 1) * np.float32(swing)
    wobble = depth * np.sin(np.float32(2 * np.pi * rate) * time)
    return np.arange(len(time), dtype=np.float64) + wobble


@lru_cache(maxsize=64)
def _breath_loop(hz: float) -> np.ndarray:
    size = 32768
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    shape = 1 / (1 + ((frequency - 2 * hz) / (1.5 * hz)) ** 2) * (frequency > 200) / (1 + (frequency / 6000) ** 4)
    wave = np.fft.irfft(np.fft.rfft(NOISE[:size]) * shape, size)
    return (wave / np.sqrt((wave**2).mean())).astype(np.float32)


def _breath(patch: Patch, pitch: int, samples: int) -> np.ndarray:
    return np.resize(_breath_loop(hertz(pitch)), samples) * np.float32(patch.breath)

"""From notes to stems to a mix: placing, distortion, room, levels. Arrays are ``[2, N]`` float32 at 48 kHz."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .hits import BEDS, DRUMS, LEVELS, PANS, PERCUSSION, STROKES, Kit
from .parts import Note, Stroke
from .tone import GRID, LOUDNESS, RATE, Patch, note, rise

LOUDNESS_OF = {
    "drums": -20.0,
    "percussion": -28.0,
    "bass": -20.5,
    "guitar": -25.0,
    "keyboard": -25.0,
    "strings": -26.0,
    "synth": -26.0,
    "brass": -25.0,
    "woodwinds": -25.0,
    "fx": -31.0,
    "vocals": -20.5,
    "backing_vocals": -26.0,
}
"""Track class → RMS in dB while it plays, before the common gain."""

PEAK = 0.95
_SEND = 4


def add(track: np.ndarray, sound: np.ndarray, start: float, gain: float, pan: float) -> None:
    """Add ``sound [N]`` at ``start`` seconds, at constant power from left (−1) to right (1).

    It begins on the nearest multiple of :data:`nano.tone.GRID`.
    """
    first = round(start * RATE / GRID) * GRID
    if first < 0:
        sound, first = sound[-first:], 0
    sound = sound[: max(track.shape[1] - first, 0)]
    angle = (pan + 1) * np.pi / 4
    track[0, first : first + len(sound)] += np.float32(gain * np.cos(angle)) * sound
    track[1, first : first + len(sound)] += np.float32(gain * np.sin(angle)) * sound


def notes(patch: Patch, events: Sequence[Note], samples: int, pan: float, width: float) -> np.ndarray:
    """A part for one instrument. ``width``: how far low and high notes lie apart."""
    track = np.zeros((2, samples), np.float32)
    rendered: dict[tuple[int, int, float], np.ndarray] = {}
    for event in events:
        loudness = min(LOUDNESS, key=lambda level: abs(level - event.velocity))
        key = (event.pitch, max(round(event.seconds * RATE / GRID), 1), loudness)
        if key not in rendered:
            rendered[key] = note(patch, event.pitch, key[1] * GRID / RATE, loudness)
        place = float(np.clip(pan + width * (event.pitch - 60) / 24, -0.8, 0.8))
        add(track, rendered[key], event.start, event.velocity / loudness, place)
    return _driven(track, patch.drive) if patch.drive else track


def _driven(track: np.ndarray, drive: float) -> np.ndarray:
    """Soft clipping, then a loudspeaker that ends at 4.5 kHz."""
    level = np.sqrt((track**2).mean(axis=1, keepdims=True)).max() + 1e-6
    clipped = np.tanh(track * (drive / (2 * level)))
    taps = np.arange(-14, 15)
    cone = (np.sinc(taps * 2 * 4500 / RATE) * np.hanning(31)[1:-1]).astype(np.float32)
    return np.stack([_centred(np.convolve(side, cone / cone.sum(), "same")) for side in clipped])


def _centred(side: np.ndarray, width: int = 2400) -> np.ndarray:
    """``side [N]`` without its mean over so many samples: what is below 10 Hz goes."""
    summed = np.cumsum(np.pad(side, (width // 2 + 1, width // 2)), dtype=np.float64)
    return side - ((summed[width:] - summed[:-width]) / width).astype(np.float32)[: len(side)]


def beaten(kit: Kit, strokes: Sequence[Stroke], samples: int, hand: bool) -> np.ndarray:
    """Drums, or percussion where ``hand``; each sound is made once and placed at every stroke."""
    track = np.zeros((2, samples), np.float32)
    sounds = PERCUSSION if hand else DRUMS
    made = {name: _tapered(sounds[name](kit)) for name in sorted({stroke.sound for stroke in strokes})}
    for stroke in strokes:
        pan = PANS.get(stroke.sound, 0.35 if hand and len(stroke.sound) % 2 else -0.25 if hand else 0.0)
        add(track, made[stroke.sound], stroke.start, LEVELS.get(stroke.sound, 0.6) * stroke.velocity, pan)
    return track if hand else np.tanh(track * 1.2) / np.float32(1.2)


def _tapered(sound: np.ndarray) -> np.ndarray:
    """``sound [N]``, the last sixth of it faded."""
    result = sound.astype(np.float32)
    out = len(result) // 6
    result[len(result) - out :] *= rise(out)[::-1]
    return result


def effect(name: str, spans: Sequence[tuple[float, float]], samples: int) -> np.ndarray:
    """An effect at each (start, seconds), different on both sides."""
    track = np.zeros((2, samples), np.float32)
    bed = name in BEDS
    for start, seconds in spans:
        sound = (BEDS if bed else STROKES)[name](seconds).astype(np.float32)
        edge = min(int((0.4 if bed else 0.005) * RATE), len(sound) // 2)
        sound[:edge] *= rise(edge)
        tail = min(int((0.4 if bed else 0.02) * RATE), len(sound) // 2)
        sound[len(sound) - tail :] *= rise(tail)[::-1]
        if bed:
            add(track, sound, start, 0.7, -0.9)
            add(track, np.roll(sound, len(sound) // 3) if name != "vinyl crackle" else sound, start, 0.7, 0.9)
        else:
            add(track, sound, start, 1.0, 0.0)
    return track


@lru_cache(maxsize=32)
def _echo(tenths: int, cut: int, size: int) -> np.ndarray:
    """Spectrum ``[2, size/2 + 1]`` of a reverberation of so many tenths of a second, at a quarter of the rate."""
    rate = RATE / _SEND
    count = min(int(tenths / 10 * rate), size // 2)
    time = np.arange(count) / rate
    wave = np.random.default_rng([tenths, cut]).standard_normal((2, count)) * 10 ** (-3 * time / (tenths / 10))
    wave[:, : int(0.012 * rate)] = 0
    spectrum = np.fft.rfft(wave, size)
    frequency = np.fft.rfftfreq(size, 1 / rate) + 1
    spectrum *= 1 / np.sqrt((1 + (frequency / cut) ** 8) * (1 + (220 / frequency) ** 4))
    return (spectrum / np.sqrt((wave**2).sum(axis=1, keepdims=True))).astype(np.complex64)


def with_room(track: np.ndarray, amount: float, seconds: float, cut: int = 3200) -> np.ndarray:
    """``track`` and its reverberation of so many seconds to −60 dB; the tail has nothing above 6 kHz."""
    samples = track.shape[1]
    short = -(-samples // _SEND)
    size = 1 << (short + int(0.5 * seconds * RATE / _SEND)).bit_length()
    send = np.zeros(short * _SEND, np.float32)
    np.add(track[0], track[1], out=send[:samples])
    spectrum = np.fft.rfft(send.reshape(short, _SEND).mean(axis=1), size)
    wet = np.fft.irfft(spectrum * _echo(round(10 * seconds), cut, size), size).astype(np.float32)[:, : short + 1]
    wet *= np.float32(amount)
    result = np.empty((2, short * _SEND), np.float32)
    for phase in range(_SEND):
        part = np.float32(phase / _SEND)
        result[:, phase::_SEND] = wet[:, :-1] * (1 - part) + wet[:, 1:] * part
    result = result[:, :samples]
    result += track
    return result


def pumped(track: np.ndarray, beats: np.ndarray, depth: float) -> np.ndarray:
    """``track`` made quieter after each of ``beats`` (seconds), as a compressor keyed by the kick would."""
    samples = track.shape[1]
    gain = np.ones(samples, np.float32)
    time = np.arange(int(0.24 * RATE), dtype=np.float32) / RATE
    dip = 1 - np.float32(depth) * np.exp(-((time / np.float32(0.12)) ** 2))
    for beat in beats:
        first = round(float(beat) * RATE)
        gain[first : first + len(dip)] = dip[: max(samples - first, 0)]
    return track * gain


def level_of(track: np.ndarray) -> float:
    """RMS of the blocks of 85 ms that are within 26 dB of the loudest."""
    blocks = track[:, : track.shape[1] // 4096 * 4096].reshape(2, -1, 4096)
    power = np.einsum("cbs,cbs->b", blocks, blocks) / (2 * 4096)
    loud = power[power > 0.0025 * power.max()] if power.size else power
    return float(np.sqrt(loud.mean())) if loud.size else 0.0


def leveled(track: np.ndarray, decibels: float, fade: float = 0.25) -> np.ndarray:
    """``track`` at that RMS while it plays, its last ``fade`` seconds faded to silence."""
    level = level_of(track)
    result = track * np.float32(10 ** (decibels / 20) / level if level > 1e-7 else 0.0)
    out = min(int(fade * RATE), track.shape[1])
    result[:, track.shape[1] - out :] *= rise(out)[::-1]
    return result


def mixed(stems: dict[str, np.ndarray], decibels: float = -16.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The mix and its stems under one common gain: RMS ``decibels``, or less where the peak would pass 0.95.

    Stems are rounded to multiples of 2⁻²², so that their float32 sum is the mix exactly, in any order.
    """
    total = sum(stems.values())
    peak, level = float(np.abs(total).max()), level_of(total)
    gain = min(10 ** (decibels / 20) / max(level, 1e-7), PEAK / max(peak, 1e-7))
    grid = np.float32(1 << 22)
    rounded = {name: np.rint(stem * np.float32(gain * (1 << 22))) / grid for name, stem in stems.items()}
    return sum(rounded.values()), rounded

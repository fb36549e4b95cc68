"""Measures of finished sound that know nothing of how it was composed: tempo and key, after the literature."""

from __future__ import annotations

import numpy as np

RATE = 48000
HOP = 240

# Albrecht and Shanahan (2013): how often each degree of a key is heard, from the tonic upwards.
MAJOR = np.array([0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081])
MINOR = np.array([0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052])
NAMES = "C C# D D# E F F# G G# A A# B".split()


def spectrogram(wave: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Magnitudes ``[frames, size/2 + 1]`` of ``wave [N]``."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop]
    return np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32)))


def onsets(wave: np.ndarray) -> np.ndarray:
    """Onset strength at 200 Hz: rise of the logarithm of the level in 24 bands."""
    spectrum = spectrogram(wave, 1024, HOP)
    edges = np.unique(np.round(np.geomspace(2, spectrum.shape[1] - 1, 25)).astype(int))
    bands = np.log(1e-3 + np.add.reduceat(spectrum, edges, axis=1))
    return np.maximum(np.diff(bands, axis=0), 0).mean(axis=1)


def tempo(wave: np.ndarray) -> float:
    """Beats a minute of ``wave [N]``: the autocorrelation of the onsets at a lag and its multiples, with a broad
    preference for tempi near 105 (Ellis, 2007)."""
    strength = onsets(wave)
    strength = strength - strength.mean()
    size = 1 << (2 * len(strength)).bit_length()
    power = np.abs(np.fft.rfft(strength, size)) ** 2
    correlation = np.fft.irfft(power)[: len(strength)] / np.arange(len(strength), 0, -1)
    bpm = np.arange(50, 200, 0.25)
    lags = 60 / bpm * RATE / HOP
    many = [n for n in (1, 2, 3, 4) if n * lags.max() < 0.8 * len(strength)]
    comb = sum(np.interp(n * lags, np.arange(len(correlation)), correlation) for n in many)
    prior = np.exp(-0.5 * (np.log2(bpm / 105) / 0.9) ** 2)
    return float(bpm[np.argmax(comb * prior)])


def same_pulse(measured: float, asked: float, tolerance: float = 0.02) -> bool:
    """Whether two tempi agree, a metrical level apart or not (Accuracy 2 of the beat-tracking literature)."""
    return any(abs(measured * ratio / asked - 1) <= tolerance for ratio in (1, 2, 3, 1 / 2, 1 / 3))


def chroma(wave: np.ndarray) -> np.ndarray:
    """Strength ``[12]`` of each pitch class in ``wave [N]``, C first, from 55 to 1000 Hz."""
    spectrum = spectrogram(wave, 16384, 8192)
    frequency = np.fft.rfftfreq(16384, 1 / RATE)
    used = (frequency > 55) & (frequency < 1000)
    middle = spectrum[:, 1:-1]
    peaks = np.where((middle >= spectrum[:, :-2]) & (middle > spectrum[:, 2:]), middle, 0)
    level = np.pad(peaks, ((0, 0), (1, 1)))[:, used].sum(axis=0)
    classes = np.round(12 * np.log2(frequency[used] / 440) + 69).astype(int) % 12
    return np.bincount(classes, level, 12)


def key(wave: np.ndarray) -> tuple[int, str]:
    """Pitch class of the tonic, and ``major`` or ``minor``, of ``wave [N]``: the profile that correlates best."""
    heard = chroma(wave)
    found = [
        (np.corrcoef(heard, np.roll(profile, tonic))[0, 1], tonic, mode)
        for tonic in range(12)
        for mode, profile in (("major", MAJOR), ("minor", MINOR))
    ]
    _, tonic, mode = max(found)
    return tonic, mode

"""Measures of finished sound that know nothing of how it was composed, after the literature."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RATE = 48000
HOP = 240
SMOOTH = 3.0
"""Standard deviation, in hops, by which onsets are blurred before their period is sought: 15 ms."""

# Albrecht and Shanahan (2013): how often each degree of a key is heard, from the tonic upwards.
MAJOR = np.array([0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081])
MINOR = np.array([0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052])


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
    window = np.exp(-0.5 * (np.arange(-12, 13) / SMOOTH) ** 2)
    strength = np.convolve(strength - strength.mean(), window / window.sum(), "same")
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
    """Strength ``[12]`` of each pitch class in ``wave [N]``, C first, from 110 to 1500 Hz."""
    spectrum = spectrogram(wave, 16384, 8192)
    frequency = np.fft.rfftfreq(16384, 1 / RATE)
    used = (frequency > 110) & (frequency < 1500)
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


def key_score(heard: tuple[int, str], asked: tuple[int, str]) -> float:
    """MIREX's weights: 1 for the key, 0.5 a fifth off, 0.3 for its relative, 0.2 for its parallel, else 0."""
    away = (heard[0] - asked[0]) % 12
    if heard[1] == asked[1]:
        return {0: 1.0, 7: 0.5, 5: 0.5}.get(away, 0.0)
    return {0: 0.2, 9 if asked[1] == "major" else 3: 0.3}.get(away, 0.0)


def si_sdr(estimate: np.ndarray, target: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019), over all channels together."""
    a, b = (sound.astype(np.float64).ravel() for sound in (estimate, target))
    a, b = a - a.mean(), b - b.mean()
    aim = (a @ b) / (b @ b + 1e-12) * b
    return float(10 * np.log10((aim @ aim + 1e-12) / ((a - aim) @ (a - aim) + 1e-12)))


MEL_BANDS = 48


def mel(wave: np.ndarray) -> np.ndarray:
    """Log-mel spectrum ``[frames, 48]`` of ``wave [N]``, 50 frames a second, 40 Hz to 16 kHz."""
    power = spectrogram(wave, 2048, 960) ** 2
    return np.log10(power @ _filters() + 1e-4)


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    """Triangles even on the mel scale of O'Shaughnessy, ``[bins, 48]``."""
    mels = np.linspace(2595 * np.log10(1 + 40 / 700), 2595 * np.log10(1 + 16000 / 700), MEL_BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequency = np.fft.rfftfreq(2048, 1 / RATE)[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rise, fall), 0).astype(np.float32)


def flux(wave: np.ndarray) -> np.ndarray:
    """How much the spectrum of ``wave [N]`` changes from one 20 ms to the next."""
    return np.abs(np.diff(mel(wave), axis=0)).mean(axis=1)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two sounds ``[N]`` over time and pitch: of their log-mel spectra, each band about its mean."""
    x, y = mel(a), mel(b)
    frames = min(len(x), len(y))
    x, y = (spectrum[:frames] - spectrum[:frames].mean(axis=0) for spectrum in (x, y))
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum() + 1e-12))


def colour(wave: np.ndarray) -> np.ndarray:
    """What ``wave [N]`` sounds like regardless of when: means and spreads of its log-mel bands and of their
    changes, and its pitch classes, ``[157]``."""
    bands = mel(wave)
    change = np.abs(np.diff(bands, axis=0))
    classes = chroma(wave) if np.abs(wave).max() > 1e-4 else np.zeros(12)
    chroma_share = np.sort(classes / (classes.sum() + 1e-9))[::-1]
    return np.concatenate((bands.mean(0), bands.std(0), change.mean(0), chroma_share, [np.log10(wave.std() + 1e-5)]))

"""Unpitched sounds: drum kits, hand percussion, effects. Each is ``[N]`` float32 at 48 kHz, peak about 1 or less."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .tone import NOISE, RATE, rise

Hit = Callable[["Kit"], np.ndarray]


@dataclass(frozen=True)
class Kit:
    """Numbers that make one drummer's set unlike another's.

    Attributes:
        name: as a caption calls it. kick: Hz of its end. kick_ring, snare_ring, hat_ring: seconds to 1/e.
        sweep: Hz by which the kick starts higher. snare: Hz of the skin. wires: level of its noise.
        hat: Hz above which the cymbals sound. click: level of the kick's attack. tune: factor on toms and hand drums.
    """

    name: str
    kick: float = 52.0
    kick_ring: float = 0.11
    sweep: float = 90.0
    click: float = 0.25
    snare: float = 190.0
    snare_ring: float = 0.07
    wires: float = 1.0
    hat: float = 6500.0
    hat_ring: float = 0.028
    tune: float = 1.0


KITS = {
    kit.name: kit
    for kit in (
        Kit("acoustic drums"),
        Kit("rock drums", kick=58, click=0.45, snare=180, snare_ring=0.1, wires=1.2, hat=5500, hat_ring=0.04),
        Kit("brushed drums", kick=60, click=0.05, kick_ring=0.07, wires=0.7, snare_ring=0.1, hat=4500, hat_ring=0.05),
        Kit("808 drums", kick=44, kick_ring=0.32, sweep=70, click=0.08, snare=210, wires=0.8, hat=8000, hat_ring=0.02),
        Kit("909 drums", kick=50, kick_ring=0.16, sweep=160, click=0.4, snare=200, snare_ring=0.09, hat=7500),
        Kit("lo-fi drums", kick=56, kick_ring=0.09, click=0.1, snare=170, wires=0.7, hat=4000, hat_ring=0.022),
        Kit("breakbeat drums", kick=62, kick_ring=0.07, snare=230, snare_ring=0.06, wires=1.3, hat=6000),
        Kit("orchestral drums", kick=48, kick_ring=0.35, sweep=25, click=0.05, snare=160, snare_ring=0.12, hat=3500),
    )
}


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * RATE), dtype=np.float32) / np.float32(RATE)


def band(samples: int, low: float, high: float, offset: int = 0, order: int = 2) -> np.ndarray:
    """Noise ``[samples]`` between two frequencies in Hz, RMS 0.3."""
    size = 1 << max(samples - 1, 1).bit_length()
    frequency = np.fft.rfftfreq(size, 1 / RATE) + 1.0
    gain = 1 / np.sqrt((1 + (low / frequency) ** (2 * order)) * (1 + (frequency / high) ** (2 * order)))
    source = np.resize(np.roll(NOISE, -offset), size)
    wave = np.fft.irfft(np.fft.rfft(source) * gain.astype(np.float32), size)[:samples]
    return (0.3 * wave / np.sqrt((wave**2).mean())).astype(np.float32)


def _burst(seconds: float, low: float, high: float, decay: float, offset: int = 0) -> np.ndarray:
    time = _time(seconds)
    return band(len(time), low, high, offset) * np.exp(-time / np.float32(decay))


def _ring(seconds: float, *modes: tuple[float, float, float], bend: float = 0.0) -> np.ndarray:
    """Decaying sines of (Hz, level, seconds to 1/e), starting ``bend`` of their pitch higher."""
    time = _time(seconds)
    glide = time + np.float32(bend * 0.02) * (1 - np.exp(-time / np.float32(0.02)))
    return sum(
        np.float32(level) * np.sin(np.float32(2 * np.pi * hz) * glide) * np.exp(-time / np.float32(decay))
        for hz, level, decay in modes
    )


def _kick(kit: Kit) -> np.ndarray:
    time = _time(5 * kit.kick_ring)
    turns = kit.kick * time + kit.sweep * 0.03 * (1 - np.exp(-time / np.float32(0.03)))
    click = np.float32(kit.click) * np.sin(np.float32(2 * np.pi * 1900) * time) * np.exp(-time / np.float32(0.003))
    return 0.95 * np.sin(np.float32(2 * np.pi) * turns) * np.exp(-time / np.float32(kit.kick_ring)) + click


def _snare(kit: Kit) -> np.ndarray:
    noise = _burst(6 * kit.snare_ring, 900, 7500, kit.snare_ring, 11)
    skin = _ring(6 * kit.snare_ring, (kit.snare, 0.55, 0.05), (kit.snare * 1.76, 0.25, 0.035), bend=0.3)
    return 0.9 * kit.wires * noise + skin


def _rim(kit: Kit) -> np.ndarray:
    return _ring(0.1, (1650, 0.4, 0.008), (540 * kit.tune, 0.4, 0.012)) + 0.4 * _burst(0.1, 1500, 8000, 0.006, 5)


def _clap(kit: Kit) -> np.ndarray:
    sound = _burst(0.3, 900, 4500, 0.07, 77)
    for delay in (0.011, 0.022):
        sound[int(delay * RATE) :] += 0.9 * _burst(0.3, 900, 4500, 0.008, 99)[: -int(delay * RATE)]
    return 0.9 * sound


def _hat(kit: Kit) -> np.ndarray:
    return 0.7 * _burst(6 * kit.hat_ring, kit.hat, 13000, kit.hat_ring, 3)


def _open_hat(kit: Kit) -> np.ndarray:
    return 0.6 * _burst(0.5, kit.hat, 13000, 0.11, 31)


def _ride(kit: Kit) -> np.ndarray:
    bell = _ring(0.9, (3140, 0.07, 0.25), (4230, 0.06, 0.2), (5470, 0.05, 0.15))
    return bell + 0.35 * _burst(0.9, 5000, 12000, 0.14, 41)


def _crash(kit: Kit) -> np.ndarray:
    return 0.8 * _burst(2.4, 3000, 12000, 0.42, 123) * np.minimum(1, _time(2.4) / 0.004 + 0.3)


def _tom(hz: float) -> Hit:
    def sound(kit: Kit) -> np.ndarray:
        return _ring(0.6, (hz * kit.tune, 0.9, 0.13), (hz * kit.tune * 1.6, 0.2, 0.06), bend=0.5) + 0.2 * _burst(
            0.6, 500, 3000, 0.02, 9
        )

    return sound


def _brush(kit: Kit) -> np.ndarray:
    sweep = band(int(0.3 * RATE), 1200, 7000, 17)
    return 0.35 * sweep * np.sin(np.pi * np.arange(len(sweep)) / len(sweep)).astype(np.float32) ** 2


def _skin(hz: float, ring: float, slap: float) -> Hit:
    def sound(kit: Kit) -> np.ndarray:
        body = _ring(5 * ring, (hz * kit.tune, 0.8, ring), (hz * kit.tune * 1.52, 0.25, ring / 2), bend=0.15)
        return body + slap * _burst(5 * ring, 800, 5000, 0.012, 19)

    return sound


def _shaker(kit: Kit) -> np.ndarray:
    noise = band(int(0.11 * RATE), 5000, 12000, 57)
    return 0.6 * noise * (rise(len(noise)) * rise(len(noise))[::-1] * 4)


def _tambourine(kit: Kit) -> np.ndarray:
    jingles = _ring(0.25, (6150, 0.1, 0.06), (7890, 0.09, 0.05), (9320, 0.07, 0.04))
    return jingles + 0.6 * _burst(0.25, 6000, 13000, 0.05, 71)


def _wood(*hz: float) -> Hit:
    return lambda kit: _ring(0.15, *((h * kit.tune, 0.7 / (n + 1), 0.016) for n, h in enumerate(hz)))


def _bell(ring: float, *hz: float) -> Hit:
    return lambda kit: _ring(5 * ring, *((h * kit.tune, 0.4 / (n + 1) ** 0.5, ring) for n, h in enumerate(hz)))


DRUMS: Mapping[str, Hit] = {
    "kick": _kick,
    "snare": _snare,
    "rim": _rim,
    "clap": _clap,
    "hat": _hat,
    "open": _open_hat,
    "ride": _ride,
    "crash": _crash,
    "high tom": _tom(165),
    "low tom": _tom(98),
    "brush": _brush,
}
PERCUSSION: Mapping[str, Hit] = {
    "high conga": _skin(310, 0.09, 0.5),
    "low conga": _skin(205, 0.14, 0.25),
    "high bongo": _skin(480, 0.05, 0.5),
    "low bongo": _skin(340, 0.07, 0.3),
    "shaker": _shaker,
    "tambourine": _tambourine,
    "claves": _wood(2480),
    "woodblock": _wood(940, 1480),
    "cowbell": _bell(0.06, 562, 845, 1690),
    "triangle": _bell(0.35, 4020, 5930, 8270),
    "frame drum": _skin(92, 0.2, 0.3),
    "timpani": _skin(73, 0.5, 0.1),
    "handclaps": _clap,
}
LEVELS = {"kick": 1.0, "snare": 0.85, "rim": 0.6, "clap": 0.8, "hat": 0.42, "open": 0.4, "ride": 0.45, "crash": 0.4}
PANS = {"hat": 0.2, "open": 0.2, "ride": -0.3, "crash": -0.2, "high tom": 0.25, "low tom": -0.25, "snare": 0.04}


def riser(seconds: float) -> np.ndarray:
    """Noise that grows and climbs, three bands taking over from each other."""
    samples = int(seconds * RATE)
    along = np.linspace(0, 1, samples, dtype=np.float32)
    steps = ((300, 900), (900, 2800), (2800, 9000))
    sound = sum(
        band(samples, low, high, 1009 * n) * np.exp(-(((along - (n + 0.7) / 3) / 0.3) ** 2))
        for n, (low, high) in enumerate(steps)
    )
    return sound * along**1.5


def downlifter(seconds: float) -> np.ndarray:
    """A sine that falls over a sigh of noise."""
    samples = int(seconds * RATE)
    along = np.linspace(0, 1, samples, dtype=np.float32)
    phase = np.cumsum(1400 * 0.06**along) * (2 * np.pi / RATE)
    return (0.25 * np.sin(phase) + riser(seconds)[::-1] * 0.8).astype(np.float32) * (1 - along)


def impact(seconds: float) -> np.ndarray:
    """A deep boom with a wide tail."""
    time = _time(seconds)
    boom = np.sin(np.float32(2 * np.pi) * (38 * time + 3.2 * (1 - np.exp(-time / 0.05)))) * np.exp(-time / 0.45)
    return 0.8 * boom + 0.5 * band(len(time), 120, 1800, 501) * np.exp(-time / np.float32(0.3))


def crackle(seconds: float) -> np.ndarray:
    """The surface of a worn record: sparse clicks over a faint hiss."""
    samples = int(seconds * RATE)
    rng = np.random.default_rng(samples)
    clicks = np.zeros(samples, np.float32)
    count = max(1, int(seconds * 14))
    clicks[rng.integers(0, samples, count)] = rng.exponential(1.0, count) * rng.choice((-1, 1), count)
    short = np.exp(-_time(0.002) / np.float32(0.0004)) * np.sin(np.float32(2 * np.pi * 2500) * _time(0.002))
    return 0.5 * np.convolve(clicks, short, "same").astype(np.float32) + 0.09 * band(samples, 700, 5000, 4001)


def weather(low: float, high: float, gust: float) -> Callable[[float], np.ndarray]:
    """Noise between two frequencies whose strength swings by ``gust``: rain, wind, sea."""

    def sound(seconds: float) -> np.ndarray:
        time = _time(seconds)
        swing = 1 - gust * (0.5 + 0.3 * np.sin(1.9 * time) + 0.2 * np.sin(0.83 * time + 1))
        return band(len(time), low, high, 7001) * swing.astype(np.float32)

    return sound


def sparkle(seconds: float) -> np.ndarray:
    """Chimes that tumble upwards."""
    sound = np.zeros(int(seconds * RATE), np.float32)
    for n in range(12):
        start = int(n * 0.045 * RATE)
        if start < len(sound):
            chime = _ring(0.7, (2100 * 2 ** (n * 2 / 12), 0.25, 0.16))[: len(sound) - start]
            sound[start : start + len(chime)] += chime
    return sound


BEDS: Mapping[str, Callable[[float], np.ndarray]] = {
    "vinyl crackle": crackle,
    "rain": weather(900, 9000, 0.25),
    "wind": weather(180, 700, 0.9),
    "ocean waves": weather(250, 2500, 0.95),
}
"""Effects that lie under a whole section."""

STROKES: Mapping[str, Callable[[float], np.ndarray]] = {
    "risers": riser,
    "downlifters": downlifter,
    "impacts": impact,
    "chimes": sparkle,
}
"""Effects that mark where a section begins: a riser leads there, the others start there."""

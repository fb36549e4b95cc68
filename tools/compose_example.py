"""Composes and synthesises the example recordings: ``python tools/compose_example.py`` writes ``assets/example*``.

Six bars at 120 bpm in D major, so that a bar is exactly two seconds (50 latent frames):

    | D | A/C# | Bm7 | G | Em9 A7 | D |

Six stems and their sum, and a guitar solo that serves as a reference recording. Everything is made here from
oscillators, plucked-string models and noise of fixed seeds; no recording or sample of anyone is used. Stems are
rounded to 16 bit before they are added, so the mix is their sum to the last bit.

Arrays are float64 in [-1, 1] at 48 kHz, ``[samples]`` for one voice and ``[2, samples]`` for a stem. Pitches are
MIDI numbers (69 = A4 = 440 Hz), times are in sixteenths of 0.125 s from the start of the piece.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RATE = 48000
BPM = 120
STEP = RATE * 60 // BPM // 4
BARS = 6
SAMPLES = BARS * 16 * STEP
SOLO_SAMPLES = 4 * 16 * STEP

CAPTION = "Mellow pop groove, electric piano, plucked guitar, warm strings, soft wordless female voice, bright and calm"
LYRICS = "[Verse]\nLa la la, oh\nLa la la, ah\nLa la la, ooh"
CHORDS = [  # first step, steps, pitches of keyboard and strings from low to high
    (0, 16, (57, 62, 66, 69)),  # D
    (16, 16, (57, 61, 64, 69)),  # A/C#
    (32, 16, (57, 59, 62, 66)),  # Bm7
    (48, 16, (55, 59, 62, 67)),  # G
    (64, 8, (55, 59, 64, 66)),  # Em9
    (72, 8, (55, 57, 61, 64)),  # A7
    (80, 16, (54, 57, 62, 66)),  # D
]
LAST = CHORDS[-1][0]
HITS = {16: ((0, 7, 0.9), (8, 4, 0.75), (12, 4, 0.6)), 8: ((0, 4, 0.9), (4, 4, 0.7))}
"""The keyboard's rhythm in a chord of so many steps: step, steps held, velocity."""
LAST_HIT = ((0, 16, 0.8),)
BASS = [  # first step, steps, pitch
    *((0, 5, 38), (6, 2, 38), (8, 4, 38), (12, 4, 45)),
    *((16, 5, 37), (22, 2, 37), (24, 4, 37), (28, 4, 40)),
    *((32, 5, 35), (38, 2, 35), (40, 4, 35), (44, 4, 42)),
    *((48, 5, 43), (54, 2, 43), (56, 4, 38), (60, 4, 42)),
    *((64, 5, 40), (70, 2, 40), (72, 4, 33), (76, 4, 37)),
    (80, 15, 38),
]
MELODY = [  # first step, steps, pitch, vowel; l- begins a syllable, a bare vowel is slurred to the note before
    *((2, 2, 66, "l-a"), (4, 2, 67, "l-a"), (6, 4, 69, "l-a"), (10, 8, 74, "o"), (18, 7, 73, "o")),
    *((34, 2, 74, "l-a"), (36, 2, 73, "l-a"), (38, 4, 71, "l-a"), (42, 4, 69, "a"), (46, 11, 71, "a")),
    *((66, 2, 67, "l-a"), (68, 2, 66, "l-a"), (70, 2, 64, "l-a")),
    *((72, 4, 67, "u"), (76, 4, 64, "u"), (80, 13, 66, "u")),
]
FORMANTS = {  # centre frequencies in Hz of an alto
    "a": (830, 1250, 2750, 3700, 4900),
    "o": (560, 900, 2700, 3600, 4900),
    "u": (400, 850, 2600, 3500, 4900),
    "l": (380, 1350, 2750, 3500, 4900),
}
BANDWIDTHS = (150, 160, 200, 250, 350)
SOLO = [  # first step, steps, pitch, velocity
    *((0, 14, 50, 0.8), (0, 3, 66, 0.9), (3, 3, 69, 0.8), (6, 3, 74, 1.0), (8, 2, 73, 0.7), (10, 2, 71, 0.7)),
    *((12, 2, 69, 0.8), (14, 2, 66, 0.6), (16, 14, 55, 0.8), (16, 3, 71, 0.9), (19, 3, 74, 0.8), (22, 2, 71, 0.9)),
    *((24, 2, 69, 0.7), (26, 2, 67, 0.7), (28, 2, 66, 0.8), (30, 2, 64, 0.6), (32, 8, 52, 0.8), (32, 3, 67, 0.9)),
    *((35, 3, 66, 0.8), (38, 2, 64, 0.7), (40, 8, 45, 0.8), (40, 2, 61, 0.8), (42, 2, 64, 0.7), (44, 2, 67, 0.8)),
    *((46, 2, 69, 0.9), (48, 16, 50, 0.8), (48, 2, 66, 0.8), (50, 2, 69, 0.7), (52, 2, 74, 0.8), (54, 10, 57, 0.6)),
    *((54.15, 10, 62, 0.6), (54.3, 10, 66, 0.7), (54.45, 10, 69, 0.7), (54.6, 10, 74, 0.9)),
]


# -- building blocks


def seconds(samples: int) -> np.ndarray:
    return np.arange(samples) / RATE


def hertz(pitch: float | np.ndarray) -> float | np.ndarray:
    return 440.0 * 2.0 ** ((np.asarray(pitch) - 69) / 12)


def fast_size(samples: int) -> int:
    """The power of two that holds so many samples; transforms of other lengths can be slow."""
    return 1 << (samples - 1).bit_length()


def filtered(signal: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``signal [..., N]`` with the gain given for each frequency in Hz, zero phase."""
    padded = fast_size(2 * signal.shape[-1])
    spectrum = np.fft.rfft(signal, padded)
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(padded, 1 / RATE)), padded)[..., : signal.shape[-1]]


def low_pass(hz: float, order: int = 2) -> Callable[[np.ndarray], np.ndarray]:
    return lambda f: 1 / np.sqrt(1 + (f / hz) ** (2 * order))


def high_pass(hz: float, order: int = 2) -> Callable[[np.ndarray], np.ndarray]:
    return lambda f: 1 / np.sqrt(1 + (hz / np.maximum(f, 1e-3)) ** (2 * order))


def edges(signal: np.ndarray, attack: float, release: float) -> np.ndarray:
    """``signal [N]`` with raised-cosine edges of the given seconds."""
    result = signal.copy()
    into, out = (min(len(signal), int(s * RATE)) for s in (attack, release))
    result[:into] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(into) / max(into, 1))
    result[len(signal) - out :] *= 0.5 + 0.5 * np.cos(np.pi * (np.arange(out) + 1) / max(out, 1))
    return result


def place(track: np.ndarray, sound: np.ndarray, step: float, pan: float = 0.0) -> None:
    """Add ``sound [N]`` to ``track [2, samples]``, at constant power from left (−1) to right (1)."""
    start = round(step * STEP)
    sound = sound[: track.shape[-1] - start]
    angle = (pan + 1) * np.pi / 4
    track[0, start : start + len(sound)] += np.cos(angle) * sound
    track[1, start : start + len(sound)] += np.sin(angle) * sound


def with_room(track: np.ndarray, amount: float, length: float = 0.9, seed: int = 7) -> np.ndarray:
    """``track [2, N]`` with a reverberation of the given seconds (to −60 dB); its two sides differ."""
    time = seconds(int(length * RATE))
    echo = np.random.RandomState(seed).uniform(-1, 1, (2, len(time))) * 10 ** (-3 * time / length)
    echo = filtered(echo, lambda f: low_pass(2600)(f) * high_pass(250)(f))
    echo[:, : int(0.012 * RATE)] = 0
    echo /= np.sqrt((echo**2).sum(axis=1, keepdims=True))
    size = fast_size(track.shape[-1] + len(time))
    wet = np.fft.irfft(np.fft.rfft(track, size) * np.fft.rfft(echo, size), size)[:, : track.shape[-1]]
    return track + amount * wet


def finished(track: np.ndarray, rms_db: float) -> np.ndarray:
    """``track [2, N]`` at the level given (RMS of both sides), its last 0.25 s faded, as 16-bit integers."""
    track = filtered(track, lambda f: high_pass(28)(f) * low_pass(11000, 6)(f))
    track = track * 10 ** (rms_db / 20) / np.sqrt((track**2).mean())
    out = RATE // 4
    track[:, -out:] *= np.cos(np.arange(1, out + 1) / out * np.pi / 2) ** 2
    return np.round(track * 32767).astype(np.int16)


# -- instruments


def pluck(
    pitch: float, length: float, velocity: float, seed: int, ring: float = 2.2, bright: float = 0.5
) -> np.ndarray:
    """A plucked string after Karplus and Strong, in tune to a fraction of a cent.

    The loop filters with [b, 1-2b, b] (delay 1) and delays the rest by a cubic interpolation; a whole period is
    computed at once. ``ring``: seconds to −60 dB; ``bright``: 0 dull to 1 bright.
    """
    samples = int(length * RATE)
    frequency = float(hertz(pitch))
    delay = RATE / frequency - 1
    whole = int(delay) - 1
    d = delay - whole
    a, b, c = d - 1, d - 2, d - 3
    cubic = np.array([-a * b * c, 3 * d * b * c, -3 * d * a * c, d * a * b])
    damping = 0.02 + 0.10 * (1 - bright)
    taps = np.convolve(cubic / 6, [damping, 1 - 2 * damping, damping]) * 10 ** (-3 / (ring * frequency))

    period = whole + len(taps)
    burst = np.random.RandomState(seed).uniform(-1, 1, period)
    spectrum = np.fft.rfft(burst - burst.mean())
    partial = np.arange(len(spectrum))
    cutoff = 700 + 3300 * bright * velocity
    spectrum *= np.abs(np.sin(np.pi * partial * 0.19)) / (1 + (partial * frequency / cutoff) ** 2)
    burst = np.fft.irfft(spectrum, period)
    string = np.zeros(samples + 2 * period)
    string[:period] = burst / np.sqrt((burst**2).mean())
    for start in range(period, samples + period, whole):
        # string[n] = sum of taps[k] · string[n - whole - k]; no term of a block of `whole` samples is inside it
        past = string[start - whole - len(taps) + 1 : start]
        string[start : start + whole] = np.convolve(past, taps, "valid")
    return edges(velocity * string[period : period + samples], 0.002, 0.06)


def electric_piano(pitch: float, length: float, velocity: float) -> np.ndarray:
    """Two pairs of frequency-modulated oscillators: the body, and the tine's short ring."""
    time = seconds(int(length * RATE))
    phase = 2 * np.pi * hertz(pitch) * time
    body = np.sin(phase + 1.3 * velocity * np.exp(-time / 0.6) * np.sin(phase)) * np.exp(-time / 1.4)
    tine = np.sin(phase + 0.5 * np.exp(-time / 0.12) * np.sin(9 * phase)) * np.exp(-time / 0.25)
    return edges(velocity * (body + 0.35 * velocity * tine), 0.004, 0.12)


def bass_guitar(pitch: float, length: float) -> np.ndarray:
    time = seconds(int(length * RATE))
    partials = np.arange(1, 15)
    levels = np.abs(np.sin(np.pi * partials * 0.23)) / partials**1.2
    sound = sum(
        level * np.sin(2 * np.pi * k * hertz(pitch) * time) * np.exp(-time * (0.7 + 0.45 * k))
        for k, level in zip(partials, levels, strict=True)
    )
    return edges(np.tanh(1.2 * sound), 0.006, 0.05)


def bowed(pitch: float, length: float, cents: float, seed: int) -> np.ndarray:
    """One player of the string section: a filtered sawtooth with a vibrato of their own."""
    time = seconds(int(length * RATE))
    rate, start, vibrato = np.random.RandomState(seed).uniform((4.8, 0, 0), (5.8, 1, 2 * np.pi))
    partials = np.arange(1, int(7000 / hertz(pitch)))
    levels = low_pass(1900, 1)(partials * hertz(pitch)) / partials
    cycle = (levels[:, None] * np.sin(2 * np.pi * partials[:, None] * np.arange(2049) / 2048)).sum(axis=0)
    bend = cents + 9 * np.minimum(time / 0.6, 1) * np.sin(2 * np.pi * rate * time + vibrato)
    turns = start + np.cumsum(hertz(pitch + bend / 100)) / RATE
    return edges(np.interp(turns % 1 * 2048, np.arange(2049), cycle), 0.30, 0.35)


# -- stems


def drums() -> np.ndarray:
    track = np.zeros((2, SAMPLES))
    noise = np.random.RandomState(1)

    def kick(step: float, velocity: float) -> None:
        time = seconds(int(0.32 * RATE))
        turns = 47 * time + 85 * 0.035 * (1 - np.exp(-time / 0.035))
        click = 0.25 * np.sin(2 * np.pi * 1700 * time) * np.exp(-time / 0.003)
        sound = 1.5 * (np.sin(2 * np.pi * turns) + click) * np.exp(-time / 0.11)
        place(track, velocity * edges(sound, 0.001, 0.08), step)

    def snare(step: float, velocity: float) -> None:
        time = seconds(int(0.22 * RATE))
        hiss = filtered(noise.uniform(-1, 1, len(time)), lambda f: high_pass(900)(f) * low_pass(6500)(f))
        drum = 0.5 * np.sin(2 * np.pi * 188 * time) + 0.25 * np.sin(2 * np.pi * 331 * time)
        sound = 1.2 * hiss * np.exp(-time / 0.055) + drum * np.exp(-time / 0.05)
        place(track, velocity * edges(sound, 0.001, 0.08), step, 0.05)

    def cymbal(step: float, velocity: float, ring: float, pan: float, low: float = 6000) -> None:
        hiss = noise.uniform(-1, 1, int(5 * ring * RATE))
        hiss = filtered(hiss, lambda f: high_pass(low, 3)(f) * low_pass(11000)(f))
        place(track, velocity * edges(hiss * np.exp(-seconds(len(hiss)) / ring), 0.001, ring), step, pan)

    for bar in range(BARS - 1):
        for step, velocity in ((0, 1.0), (8, 0.95), (14, 0.4)):
            kick(16 * bar + step, velocity)
        for step, velocity in ((4, 1.0), (12, 1.0), (15, 0.25)):
            snare(16 * bar + step, velocity)
        for step in range(0, 16, 2):
            open_hat = step == 14 and bar % 2 == 1
            cymbal(16 * bar + step, 0.20 if step % 4 else 0.28, 0.09 if open_hat else 0.025, 0.15)
    for step, velocity in ((74, 0.4), (77, 0.5), (78, 0.7), (79, 0.8)):
        snare(step, velocity)
    kick(LAST, 1.0)
    cymbal(0, 0.20, 0.25, -0.1, 4500)
    cymbal(LAST, 0.26, 0.3, -0.1, 4500)
    return finished(with_room(track, 0.05, 0.4), -23.3)


def bass() -> np.ndarray:
    track = np.zeros((2, SAMPLES))
    for step, steps, pitch in BASS:
        place(track, bass_guitar(pitch, steps * 0.125), step)
    return finished(track, -22.3)


def keyboard() -> np.ndarray:
    track = np.zeros((2, SAMPLES))
    for first, steps, pitches in CHORDS:
        hits = LAST_HIT if first == LAST else HITS[steps]
        for step, held, velocity in hits:
            for voice, pitch in enumerate(pitches):
                note = electric_piano(pitch, held * 0.125 + 0.1, velocity)
                place(track, note, first + step + 0.04 * voice, 0.25 + 0.1 * (voice - 1.5))
    return finished(with_room(track, 0.10), -26.8)


def guitar() -> np.ndarray:
    track = np.zeros((2, SAMPLES))
    for first, steps, pitches in CHORDS:
        strings = sorted((*pitches, pitches[1] + 12, pitches[2] + 12))
        last = first == LAST
        for number, step in enumerate(range(0, 6 if last else steps, 1 if last else 2)):
            string = number if last else (0, 2, 4, 3, 5, 4, 2, 3)[number]
            note = pluck(strings[string], 2.0 if last else 0.75, (0.9, 0.7)[step // 2 % 2], first + step + 100)
            place(track, note, first + step + (0.5 if last else 0), -0.4)
    return finished(with_room(track, 0.10), -26.8)


def vocals() -> np.ndarray:
    """A vowel line: harmonics of a gliding pitch, each as strong as the formants let it through."""
    time = seconds(SAMPLES)
    noise = np.random.RandomState(5)
    pitch, level, vibrato = np.full(SAMPLES, float(MELODY[0][2])), np.zeros(SAMPLES), np.zeros(SAMPLES)
    formants = np.zeros((len(BANDWIDTHS), SAMPLES))
    formants[:] = np.array(FORMANTS["a"])[:, None]
    for (step, steps, note, sound), after in zip(MELODY, [*MELODY[1:], None], strict=True):
        start, end = step * STEP, (step + steps) * STEP
        slurred = after is not None and after[0] == step + steps and not after[3].startswith("l-")
        pitch[start:] = note
        formants[:, start:] = np.array(FORMANTS[sound[-1]])[:, None]
        level[start : end if slurred else end - RATE // 40] = 1.0
        if sound.startswith("l-"):
            tongue = slice(start, start + RATE // 16)
            formants[:, tongue] = np.array(FORMANTS["l"])[:, None]
            level[tongue] = 0.45
        vibrato[start:end] = 0.28 * np.clip((time[start:end] - time[start] - 0.18) / 0.35, 0, 1)

    def glide(control: np.ndarray, length: float) -> np.ndarray:
        window = np.hanning(int(length * RATE) | 1)
        half = len(window) // 2
        padded = np.concatenate([np.full(half, control[0]), control, np.full(half, control[-1])])
        size = fast_size(len(padded) + len(window))
        smooth = np.fft.irfft(np.fft.rfft(padded, size) * np.fft.rfft(window / window.sum(), size), size)
        return smooth[2 * half : 2 * half + len(control)]

    drift = filtered(noise.uniform(-1, 1, SAMPLES), low_pass(4))
    pitch = glide(pitch, 0.09) + glide(vibrato, 0.1) * np.sin(2 * np.pi * 5.4 * time) + 0.04 * drift / drift.std()
    level = np.maximum(glide(level, 0.09), 0)
    centres = np.stack([glide(f, 0.08) for f in formants])
    frequency = hertz(pitch)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    frames = slice(None, None, 240)
    partials = np.arange(1, 31)[:, None] * frequency[frames]
    gains = low_pass(6500, 3)(partials) / np.arange(1, 31)[:, None] ** 0.45
    for centre, width in zip(centres[:, frames], BANDWIDTHS, strict=True):
        gains *= centre**2 / np.sqrt((centre**2 - partials**2) ** 2 + (width * partials) ** 2)
    gains /= np.sqrt((gains**2).sum(axis=0)) ** 0.75  # a singer evens out what the vowels do to the loudness
    track = sum(np.interp(time, time[frames], gain) * np.sin(k * phase) for k, gain in enumerate(gains, 1))
    breath = filtered(noise.uniform(-1, 1, SAMPLES), lambda f: high_pass(2500)(f) * low_pass(6000)(f))
    both = np.zeros((2, SAMPLES))
    place(both, level * (track + 0.03 * breath * track.std()), 0)
    return finished(with_room(both, 0.14, 1.1), -23.0)


def strings() -> np.ndarray:
    track = np.zeros((2, SAMPLES))
    for first, steps, pitches in CHORDS:
        swell = 0.6 if first < 32 else 1.0
        for voice, pitch in enumerate((pitches[0], pitches[2], pitches[1] + 12)):
            for player, cents in enumerate((-6.0, 0.0, 5.0)):
                note = bowed(pitch, steps * 0.125 + 0.3, cents, 1000 * player + 10 * first + voice)
                place(track, swell * note, first, 0.3 * (voice - 1) + 0.1 * (player - 1))
    return finished(with_room(track, 0.14, 1.1), -28.5)


STEMS = {stem.__name__: stem for stem in (drums, bass, keyboard, guitar, vocals, strings)}
"""Track name → its synthesis, ``[2, samples]`` int16."""


def reference() -> np.ndarray:
    """A nylon-string guitar alone, ``[2, samples]`` int16."""
    track = np.zeros((2, SOLO_SAMPLES))
    for seed, (step, steps, pitch, velocity) in enumerate(SOLO):
        place(track, pluck(pitch, steps * 0.125 + 0.15, velocity, 500 + seed, ring=3.0, bright=0.3), step)
    return finished(with_room(track, 0.12), -20.5)


# -- files


def compose() -> dict[str, np.ndarray]:
    """Name of every recording → ``[2, samples]`` int16."""
    stems = {name: make() for name, make in STEMS.items()}
    mix = sum(stem.astype(np.int32) for stem in stems.values())
    if np.abs(mix).max() > 32767:
        raise ValueError(f"The mix clips: its peak is {np.abs(mix).max() / 32768:.2f}; lower the stems.")
    return {"mix": mix.astype(np.int16), **stems, "reference": reference()}


TITLES = {"mix": "Full mix", "reference": "Reference (solo guitar)"}
"""Titles are written into saved workflows and never change; a stem's is its track name."""


def description(recordings: dict[str, np.ndarray]) -> dict:
    """What ``assets/example-mix.json`` says."""
    files = [
        {
            "title": TITLES.get(name, name.capitalize()),
            "file": f"example-{name}.flac",
            "track": name if name in STEMS else None,
            "seconds": samples.shape[1] / RATE,
        }
        for name, samples in recordings.items()
    ]
    song = {"caption": CAPTION, "lyrics": LYRICS, "language": "unknown", "bpm": BPM, "key": "D major"}
    return {**song, "time_signature": "4", "sample_rate": RATE, "files": files}


def table(about: dict) -> str:
    """``assets/songs.csv``, which makes the recordings songs to learn from."""
    rows = [("File", "Caption", "BPM", "Key", "Signature", "Lyrics")]
    for entry in about["files"]:
        alone = entry["track"] and f"solo {entry['track']} in a mellow pop groove, bright and calm"
        caption = alone or ("solo guitar, plucked, bright and calm" if "solo" in entry["title"] else about["caption"])
        lyrics = about["lyrics"] if entry["track"] in (None, "vocals") and "solo" not in entry["title"] else ""
        rows.append((entry["file"], caption, about["bpm"], about["key"], about["time_signature"], lyrics))
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue()


def main() -> None:
    import torch

    sys.path.insert(0, str(ROOT))
    from tests import pack

    pack.load()
    from acestep_graph.acestep_core import audio

    assets = ROOT / "assets"
    recordings = compose()
    about = description(recordings)
    for entry, samples in zip(about["files"], recordings.values(), strict=True):
        path = assets / entry["file"]
        audio.write(path, torch.from_numpy(samples.astype(np.float32) / 32768), RATE, tags={"title": entry["title"]})
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    (assets / "example-mix.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (assets / "songs.csv").write_text(table(about), encoding="utf-8")


if __name__ == "__main__":
    main()

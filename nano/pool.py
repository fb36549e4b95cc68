"""Sound for the autoencoder, composed while it trains.

A pool of songs of which the oldest gives way every few steps. Which songs are in it follows from the number of the
step alone; worker processes compose ahead, so that training seldom waits.
"""

from __future__ import annotations

import signal
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from .compose import compose

FIRST_SEED = 1_000_000
"""Songs of smaller seeds are never trained on: they are what is measured."""


def sounds(seed: int, seconds: float) -> np.ndarray:
    """A song's mix, one stem, and the mix without it: int16 ``[3, 2, N]``."""
    piece = compose(seed, seconds)
    name = sorted(piece.stems)[seed % len(piece.stems)]
    stem = piece.stems[name]
    return np.round(np.clip(np.stack([piece.mix, stem, piece.mix - stem]), -1, 1) * 32767).astype(np.int16)


def processes(count: int) -> ProcessPoolExecutor:
    """Worker processes, which leave Ctrl-C to the one that they work for."""
    ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), **ignore)


class Pool:
    """``slots`` songs of ``seconds``; a new one every ``every`` steps. Without workers songs are composed in line."""

    def __init__(self, seed: int, seconds: float = 8.0, slots: int = 64, every: int = 4, workers: int = 1):
        self.first, self.seconds, self.slots, self.every = FIRST_SEED * (1 + seed), seconds, slots, every
        self.songs: dict[int, np.ndarray | Future] = {}
        self.ahead = 4 * workers
        self.workers = processes(workers) if workers else None

    def at(self, step: int) -> list[np.ndarray]:
        """The songs in the pool at a step, each int16 ``[3, 2, N]``."""
        oldest = step // self.every
        for number in [number for number in self.songs if number < oldest]:
            del self.songs[number]
        for number in range(oldest, oldest + self.slots + self.ahead):
            if number not in self.songs and self.workers:
                self.songs[number] = self.workers.submit(sounds, self.first + number, self.seconds)
        return [self._song(number) for number in range(oldest, oldest + self.slots)]

    def _song(self, number: int) -> np.ndarray:
        song = self.songs.get(number)
        if isinstance(song, Future):
            song = song.result()
        if song is None:
            song = sounds(self.first + number, self.seconds)
        self.songs[number] = song
        return song

    def crops(self, step: int, rows: int, samples: int, random: np.random.Generator) -> np.ndarray:
        """A batch float32 ``[rows, 2, samples]``: mixes, stems and what is left, at loudnesses down to −12 dB."""
        songs, batch = self.at(step), np.empty((rows, 2, samples), np.float32)
        for row in batch:
            song = songs[random.integers(len(songs))]
            sound = song[random.choice(3, p=(0.5, 0.3, 0.2))]
            start = int(random.integers(sound.shape[1] - samples + 1))
            gain = 10 ** (-random.uniform(0, 12) / 20) if random.random() < 0.5 else 1.0
            row[:] = sound[:, start : start + samples] * np.float32(gain / 32767)
            if random.random() < 0.5:
                row[:] = row[::-1].copy()
        return batch

    def close(self) -> None:
        if self.workers:
            self.workers.shutdown(cancel_futures=True)

"""A listener that tells which of the twelve track classes sound in a piece, taught by the composer alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from acestep_graph.acestep_core.tasks.instructions import TRACKS

from .compose import compose
from .measures import colour

STEPS = 400


class Listener:
    """Logistic regression with one hidden layer on :func:`nano.measures.colour`."""

    def __init__(self, features: np.ndarray, present: np.ndarray, seed: int = 0):
        """``features [N, F]`` of sounds, and which tracks are in each, ``present [N, 12]``."""
        torch.manual_seed(seed)
        x, y = torch.from_numpy(features).float(), torch.from_numpy(present).float()
        self.mean, self.spread = x.mean(0), x.std(0) + 1e-3
        self.network = nn.Sequential(nn.Linear(x.shape[1], 64), nn.Tanh(), nn.Dropout(0.3), nn.Linear(64, len(TRACKS)))
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=3e-3, weight_decay=0.1)
        x = (x - self.mean) / self.spread
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(self.network(x), y).backward()
            optimizer.step()
        self.network.eval()

    @torch.no_grad()
    def hears(self, wave: np.ndarray) -> np.ndarray:
        """How sure it is of each track of ``wave [2, N]``, logits ``[12]`` in the order of ``TRACKS``."""
        x = torch.from_numpy(colour(wave.mean(axis=0))).float()
        return self.network((x - self.mean) / self.spread).numpy()


def lesson(seed: int, seconds: float = 10.0) -> tuple[list[np.ndarray], list[list[bool]]]:
    """Features of a song's stems, its mix, and the mix without one of them, and what plays in each."""
    piece = compose(seed, seconds)
    names = list(piece.stems)
    without = names[seed % len(names)]
    sounds = [(stem, {name}) for name, stem in piece.stems.items()]
    sounds += [(piece.mix, set(names)), (piece.mix - piece.stems[without], set(names) - {without})]
    return [colour(wave.mean(axis=0)) for wave, _ in sounds], [[t in held for t in TRACKS] for _, held in sounds]


def taught(seeds: Sequence[int]) -> Listener:
    """A listener that has heard the songs of ``seeds``."""
    features, present = [], []
    for seed in seeds:
        heard, held = lesson(seed)
        features += heard
        present += held
    return Listener(np.stack(features), np.array(present))

"""How far two sounds are apart, to the ear's measure: spectra at several resolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOWS = (2048, 512, 128)
FLOOR = 1e-3
"""Magnitudes below this (−60 dB of a sine at full scale) count as silence."""
PHASE_BELOW = 1500.0
"""Hz up to which the complex spectra are compared too: what the narrow middle can still follow wave by wave."""


def spectrum(sound: Tensor, window: int) -> Tensor:
    """Complex spectrum ``[B, window/2 + 1, frames]`` of sound [B, n]; a sine of amplitude 1 has magnitude near 1."""
    shape = torch.hann_window(window, device=sound.device)
    return torch.stft(sound, window, window // 4, window=shape, return_complex=True) * (2 / shape.sum())


def spectral_losses(made: Tensor, given: Tensor, rate: int = 48000) -> dict[str, Tensor]:
    """Sound [B, 2, n] against sound, compared as middle and side, so that neither side nor their sum is neglected.

    Returns: ``stft``: spectral convergence plus the mean difference of log magnitudes (as in Parallel WaveGAN),
    mean of :data:`WINDOWS`; ``phase``: distance of the complex spectra below :data:`PHASE_BELOW` against the
    magnitudes; ``l1`` of the samples.
    """
    made, given = made.float(), given.float()
    mid_side = made.new_tensor([[0.5, 0.5], [0.5, -0.5]])
    made, given = (torch.einsum("ck,bkn->bcn", mid_side, sound).flatten(0, 1) for sound in (made, given))
    stft, phase = made.new_zeros(()), made.new_zeros(())
    for window in WINDOWS:
        a, b = spectrum(made, window), spectrum(given, window)
        size_a, size_b = (torch.view_as_real(x).square().sum(-1).add(1e-12).sqrt() for x in (a, b))
        away = torch.linalg.vector_norm(size_a - size_b) / (torch.linalg.vector_norm(size_b) + FLOOR)
        stft = stft + away + F.l1_loss((size_a + FLOOR).log(), (size_b + FLOOR).log())
        low = max(2, round(PHASE_BELOW / rate * window))
        apart = torch.view_as_real(a[:, :low] - b[:, :low]).square().sum(-1).add(1e-12).sqrt()
        phase = phase + apart.mean() / (size_b[:, :low].mean() + FLOOR)
    return {"stft": stft / len(WINDOWS), "phase": phase / len(WINDOWS), "l1": F.l1_loss(made, given)}

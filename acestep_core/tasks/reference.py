"""Reference audio: whose timbre the music should have."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import codec
from ..checkpoints.handles import Autoencoder, DiffusionModel
from ..host import Host

CLIP_SECONDS = 30
WINDOWS = 3


@dataclass(frozen=True)
class Reference:
    """Latents of reference clips [N, 750, 64], on the CPU."""

    clips: Tensor


def excerpt(audio: Tensor, rate: int = 48000, seed: int | None = None) -> Tensor:
    """30 s that stand for a recording: ten seconds each from its first, middle and last third.

    Args:
        audio: [2, n] at ``rate``. Shorter recordings are repeated first.
        seed: chooses where in each third; None takes the beginning of the first two and the end of the last.
    """
    whole = CLIP_SECONDS * rate
    if audio.shape[-1] < whole:
        audio = audio.repeat(1, math.ceil(whole / audio.shape[-1]))
    length, window = audio.shape[-1], whole // WINDOWS
    third = length // WINDOWS
    last = max(0, length - 2 * third - window)
    if seed is None:
        starts = [0, third, 2 * third + last]
    else:
        draw, room = random.Random(seed), max(0, third - window)
        starts = [draw.randint(0, room), third + draw.randint(0, room), 2 * third + draw.randint(0, last)]
    return torch.cat([audio[:, s : s + window] for s in starts], dim=-1)


def encode_reference(
    vae: Autoencoder,
    clips: Sequence[Tensor],
    seed: int | None = None,
    more: Reference | None = None,
    host: Host | None = None,
) -> Reference:
    """Encode recordings [2, n] (48 kHz, ±1) as reference clips of one item, behind those of ``more``.

    Raises:
        ValueError: no recording, or one that is silent from end to end.
    """
    if not clips:
        raise ValueError("No reference audio was given.")
    for number, clip in enumerate(clips, start=1):
        if not bool((clip.abs() > 1e-6).any()):
            raise ValueError(f"Reference clip {number} is silent. Choose a recording with sound in it.")
    rate = vae.module.config.sampling_rate
    parts = torch.stack([excerpt(clip, rate, None if seed is None else seed + i) for i, clip in enumerate(clips)])
    encoded = codec.encode(vae, parts, host=host)
    return Reference(encoded if more is None else torch.cat((more.clips, encoded)))


def timbre_clips(model: DiffusionModel, reference: Reference | None) -> Tensor:
    """Clips for the timbre encoder: the reference, or silence where there is none."""
    if reference is not None:
        return reference.clips
    return silence_of(model, model.config.timbre_fix_frame)[None]


def silence_of(model: DiffusionModel, frames: int) -> Tensor:
    """The first ``frames`` of the model's silence latent [frames, 64], repeated where it is shorter."""
    if model.silence is None:
        raise ValueError(
            "This checkpoint file carries no silence latent, which is made with the autoencoder. "
            "Connect the VAE to the loader of the diffusion model."
        )
    silence = model.silence
    if frames > silence.shape[0]:
        silence = silence.repeat(math.ceil(frames / silence.shape[0]), 1)
    return silence[:frames]

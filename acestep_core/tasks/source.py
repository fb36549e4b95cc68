"""Source audio: the recording that a task listens to, as sound and as latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import codec
from ..checkpoints.handles import Autoencoder, DiffusionModel
from ..host import Host
from ..sampling.conditioning import MIN_FRAMES, SAMPLE_RATE
from .reference import silence_of

SILENCE_LEVEL = 1e-6


@dataclass(frozen=True)
class Source:
    """One recording.

    Attributes:
        audio: [2, n] at 48 kHz in ±1. latents: [1, n // 1920, 64].
        vae: encodes it again where it has to grow.
        made_here: the latents come from a sampler, not from the encoder. seed: of the draw, None for the mean.
        sampled_with: seed of the sampler it was made with, None where that is unknown.
    """

    audio: Tensor
    latents: Tensor
    vae: Autoencoder
    made_here: bool = False
    seed: int | None = None
    sampled_with: int | None = None

    @property
    def seconds(self) -> float:
        return self.audio.shape[-1] / SAMPLE_RATE

    @property
    def silent(self) -> bool:
        return not bool((self.audio.abs() > SILENCE_LEVEL).any())


def encode_source(
    vae: Autoencoder,
    audio: Tensor,
    *,
    latents: Tensor | None = None,
    seed: int | None = None,
    host: Host | None = None,
) -> Source:
    """Encode a recording [2, n] (48 kHz, ±1).

    Args:
        latents: [1, T, 64] it was decoded from; used in place of encoding, so nothing is lost.
        seed: draws from the posterior, as the original does; None takes the mean, which repeats.
    """
    if latents is not None:
        return Source(audio, latents, vae, made_here=True)
    noise = None if seed is None else codec.drawn(vae, audio[None], torch.Generator().manual_seed(seed))
    return Source(audio, codec.encode(vae, audio[None], noise=noise, host=host), vae, seed=seed)


def source_latents(model: DiffusionModel, source: Source) -> Tensor:
    """Latents [1, T, 64] of a source; those of silence where it is silent from end to end."""
    frames = source.audio.shape[-1] // source.vae.hop
    silence = silence_of(model, max(frames, 1))[None]
    if source.silent:
        return silence[:, :frames]
    latents = source.latents[:, :frames]
    return torch.cat((latents, silence[:, : frames - latents.shape[1]]), dim=1)


def padded(source: Source, before: int, after: int, model: DiffusionModel, host: Host | None = None) -> Source:
    """The source with ``before`` and ``after`` samples of silence around it."""
    if not before and not after:
        return source
    audio = F.pad(source.audio, (before, after))
    if not source.made_here or before % source.vae.hop:  # half a frame would set sound and latents apart
        return encode_source(source.vae, audio, seed=source.seed, host=host)
    lead, total = before // source.vae.hop, audio.shape[-1] // source.vae.hop
    silence = silence_of(model, total)[None]
    kept = source_latents(model, source)[:, : total - lead]
    tail = silence[:, : total - lead - kept.shape[1]]
    return Source(audio, torch.cat((silence[:, :lead], kept, tail), dim=1), source.vae, made_here=True)


def at_least(latents: Tensor, model: DiffusionModel, frames: int = MIN_FRAMES) -> Tensor:
    """Latents [1, T, 64] completed with the beginning of silence to ``frames``."""
    missing = frames - latents.shape[1]
    if missing <= 0:
        return latents
    return torch.cat((latents, silence_of(model, missing)[None]), dim=1)

"""What a task prepares for the sampler: one :class:`Item` a piece, together a :class:`Conditioning`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..song import Song
from ..text import Prompt
from ..tokenizer import Tokenizer
from .correction import Keep
from .loop import Conditions, Edit

SAMPLE_RATE = 48000
SAMPLES_PER_FRAME = 1920
FRAME_RATE = SAMPLE_RATE // SAMPLES_PER_FRAME
MIN_FRAMES = 128
"""Shortest sequence the model is run on; shorter pieces are completed with silence and cut afterwards."""


def frames_of(seconds: float) -> int:
    """Latent frames of a length: seconds to one decimal, at least 0.1, whole frames of 1920 samples."""
    return int(max(0.1, round(seconds, 1)) * SAMPLE_RATE) // SAMPLES_PER_FRAME


def context(source: Tensor, mask: Tensor | float = 1.0) -> Tensor:
    """Source latents [B, T, 64] and chunk mask (a number, or [B, T] with 1 where music is made) → [B, T, 128]."""
    chunk = torch.as_tensor(mask, dtype=source.dtype, device=source.device)
    chunk = chunk[..., None] if chunk.dim() == 2 else chunk
    return torch.cat((source, chunk.expand_as(source)), dim=-1)


@dataclass(frozen=True)
class Splice:
    """What decoded sound is put into: the source [2, n] outside samples [start, end), with a fade outside them."""

    audio: Tensor
    start: int
    end: int
    fade: int


@dataclass(frozen=True)
class Item:
    """One piece, alone and without padding.

    Attributes:
        conditions: sequence [1, L, E] and context [1, T, 128], on the CPU.
        frames: length to keep, at most T.
        prompt: what the text encoder read.
        later, strength: conditions after the switch, and the share of steps before it.
        source, noise_strength: latents [1, T, 64] to start from, and how far.
        edit: how a flow edit leads away from ``source``.
        keep: what a repaint keeps. splice: the sound it is put into after decoding.
    """

    conditions: Conditions
    frames: int
    prompt: Prompt
    later: Conditions | None = None
    strength: float = 1.0
    source: Tensor | None = None
    noise_strength: float = 0.0
    edit: Edit | None = None
    keep: Keep | None = None
    splice: Splice | None = None

    @property
    def shape(self) -> tuple:
        """Items of equal shape can run as rows of one batch."""
        keep = None if self.keep is None else (self.keep.injection, self.keep.crossfade)
        later = None if self.later is None else self.later.sequence.shape[1]
        edit = self.edit and (self.edit.conditions.sequence.shape[1], self.edit.start, self.edit.end, self.edit.draws)
        sizes = (self.conditions.sequence.shape[1], self.conditions.context.shape[1], later)
        return (*sizes, self.strength, self.noise_strength, self.source is not None, edit, keep)


@dataclass(frozen=True)
class Conditioning:
    """A batch ready for the sampler.

    Attributes:
        task: its name. song: what was asked for. seconds: resolved length.
        items: one for each piece; equal pieces are the same object.
        origin: of the diffusion model whose encoder made the sequences; the sampler's must be the same.
        tokenizer: the one that made the prompts.
        settings: task settings for the record. notes: sentences the user should read.
        text_files: weights of the text encoder, for the record.
    """

    task: str
    instruction: str
    song: Song
    seconds: float
    items: tuple[Item, ...]
    origin: object = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    text_files: tuple[str, ...] = ()

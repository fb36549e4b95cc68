"""Stage ``tokenizer``: 25 Hz latents to 5 Hz codes and back, learned from five frames at a time.

What comes back is how strong each channel of the latents is, not its sign: the sign follows the phase of the sound,
of which a few bits could keep next to nothing, and loudness, rhythm and spectrum are what a remix is to keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_graph.acestep_core.models.audio_codes import AudioDetokenizer, AudioTokenizer, FiniteScalarQuantizer
from acestep_graph.acestep_core.models.config import ModelConfig

from .run import Budget, Setup, draw, train
from .songs import Cached
from .weights import begin

STAGE = "tokenizer"
GROUPS = 512
RATE, WARMUP = 2e-3, 100
EVEN = 0.1
"""Weight of the loss for an even use of all codes."""
BEAT = 12.0
"""Weight of the error of what all channels have in common in a frame: there the rhythm is, which would be one of 64
voices otherwise."""
FLOOR = 0.05
"""Power below which a channel counts as silent; its mean is 1."""


class Coder(nn.Module):
    """The two parts of the diffusion checkpoint that codes need, under their published names."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.tokenizer = AudioTokenizer(config)
        self.detokenizer = AudioDetokenizer(config)


def quantized_through(quantizer: FiniteScalarQuantizer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As the quantizer's forward, with the gradient of what was not rounded; x [..., width]. Last, what is rounded."""
    bounded = quantizer.bound(F.linear(x.float(), quantizer.project_in.weight, quantizer.project_in.bias))
    values, index = quantizer.quantize(bounded)
    values = bounded + (values - bounded).detach()
    return F.linear(values, quantizer.project_out.weight, quantizer.project_out.bias), index, bounded


def strengths(latents: Tensor) -> Tensor:
    """Logarithm of the power of each channel around each frame, latents [T, 64] → [T, 64]."""
    power = F.avg_pool1d(latents.float().square().T, 3, 1, 1, count_include_pad=False).T
    return (power + FLOOR).log()


def unevenness(bounded: Tensor) -> Tensor:
    """How far values [n, dimensions] are from filling ±1 evenly and each on its own: squared distance of their
    covariance from that of a uniform distribution, 1/3 on the diagonal, and of their means from 0."""
    centred = bounded - bounded.mean(0)
    covariance = centred.T @ centred / len(centred)
    return (3 * covariance - torch.eye(len(covariance)).to(covariance)).square().sum() / len(covariance) + (
        bounded.mean(0).square().mean()
    )


def losses_of(coder: Coder, latents: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Losses of groups [B, 5, 64] of latents against what is wanted of them, [B, 5, 64].

    Returns: the squared errors, and as a figure how many different codes come to a group of the batch.
    """
    pooled = coder.tokenizer.pooled(latents, latents[0])
    values, index, bounded = quantized_through(coder.tokenizer.quantizer, pooled)
    made = coder.detokenizer(values)
    error, uneven = F.mse_loss(made, wanted), unevenness(bounded.flatten(0, -2))
    beat = F.mse_loss(made.mean(-1), wanted.mean(-1))
    return {
        "loss": error + BEAT * beat + EVEN * uneven,
        "error": error,
        "beat": beat,
        "uneven": uneven,
        "codes": torch.tensor(index.unique().numel() / index.numel()),
    }


def groups_of(songs: Sequence[Cached], size: int) -> tuple[Tensor, Tensor]:
    """All groups of ``size`` frames of mixes and of mixes without a stem [n, size, 64]: latents, and their strengths
    at mean 0 and variance 1 a channel."""
    heard = [sound.float() for song in songs for sound in (song.mix, *song.rests.values())]
    heard = [sound[: len(sound) // size * size] for sound in heard]
    known = torch.cat([strengths(sound) for sound in heard])
    known = (known - known.mean(0)) / known.std(0)
    return torch.cat(heard).unflatten(0, (-1, size)), known.unflatten(0, (-1, size))


def train_tokenizer(config: ModelConfig, songs: Sequence[Cached], budget: Budget, setup: Setup) -> int:
    """The stage; see :func:`nano.run.train`."""
    coder = begin(Coder(config), setup.seed)
    with torch.no_grad():
        # inputs that spread over all levels from the beginning
        coder.tokenizer.quantizer.project_in.weight.mul_(math.sqrt(0.5))
    coder = coder.to(setup.device)
    latents, wanted = groups_of(songs, config.pool_window_size)

    def step_of(step: int, share: float) -> dict[str, Tensor]:
        random = draw(setup.seed, STAGE, step)
        chosen = torch.from_numpy(random.integers(len(latents), size=GROUPS))
        return losses_of(coder, latents[chosen].to(setup.device), wanted[chosen].to(setup.device))

    return train(STAGE, coder, step_of, budget, setup, rate=RATE, warmup=WARMUP)


@torch.no_grad()
def codes_of(coder: Coder, latents: Tensor) -> Tensor:
    """Codes [n] of latents [T, 64], T a multiple of five or completed by its own beginning."""
    _, index = coder.tokenizer(latents[None].float(), latents.float())
    return index[0]

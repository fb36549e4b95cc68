"""Stage ``tokenizer``: 25 Hz latents to 5 Hz codes and back, learned from five frames at a time."""

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


class Coder(nn.Module):
    """The two parts of the diffusion checkpoint that codes need, under their published names."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.tokenizer = AudioTokenizer(config)
        self.detokenizer = AudioDetokenizer(config)


def quantized_through(quantizer: FiniteScalarQuantizer, x: Tensor) -> tuple[Tensor, Tensor]:
    """As the quantizer's forward, with the gradient of what was not rounded; x [..., width]."""
    bounded = quantizer.bound(F.linear(x.float(), quantizer.project_in.weight, quantizer.project_in.bias))
    values, index = quantizer.quantize(bounded)
    values = bounded + (values - bounded).detach()
    return F.linear(values, quantizer.project_out.weight, quantizer.project_out.bias), index


def losses_of(coder: Coder, latents: Tensor) -> dict[str, Tensor]:
    """Losses of groups [B, 5, 64]: the squared error, and as a figure the share of codes in use within the batch."""
    pooled = coder.tokenizer.pooled(latents, latents[0])
    values, index = quantized_through(coder.tokenizer.quantizer, pooled)
    error = F.mse_loss(coder.detokenizer(values), latents)
    return {"loss": error, "codes": torch.tensor(index.unique().numel() / index.numel())}


def train_tokenizer(config: ModelConfig, songs: Sequence[Cached], budget: Budget, setup: Setup) -> int:
    """The stage; see :func:`nano.run.train`."""
    coder = begin(Coder(config), setup.seed)
    with torch.no_grad():
        # inputs that spread over all levels from the beginning
        coder.tokenizer.quantizer.project_in.weight.mul_(math.sqrt(0.5))
    coder = coder.to(setup.device)
    size = config.pool_window_size
    mixes = torch.cat([song.mix[: song.frames // size * size].unflatten(0, (-1, size)) for song in songs]).float()
    parts = [stem[: song.frames // size * size].unflatten(0, (-1, size)) for song in songs for stem in song.rests.values()]
    everything = torch.cat([mixes, torch.cat(parts).float()]) if parts else mixes

    def step_of(step: int, share: float) -> dict[str, Tensor]:
        random = draw(setup.seed, STAGE, step)
        chosen = torch.from_numpy(random.integers(len(everything), size=GROUPS))
        return losses_of(coder, everything[chosen].to(setup.device))

    return train(STAGE, coder, step_of, budget, setup, rate=RATE, warmup=WARMUP)


@torch.no_grad()
def codes_of(coder: Coder, latents: Tensor) -> Tensor:
    """Codes [n] of latents [T, 64], T a multiple of five or completed by its own beginning."""
    _, index = coder.tokenizer(latents[None].float(), latents.float())
    return index[0]

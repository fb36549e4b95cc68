"""25 Hz latents to 5 Hz codes and back: attention pooler, finite scalar quantizer, detokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditioner import EncoderStack
from .config import ModelConfig


class FiniteScalarQuantizer(nn.Module):
    """One stage of residual finite scalar quantization between two projections.

    Levels L: z ← c·tanh(z/c) with c = 1 + 1/(L − 1), clamped to ±1, rounded to L even steps. Everything is
    computed in float32 with exact constants whatever the dtype of the weights (in bfloat16 the published
    code rounds c as well, which moves up to 2 % of the codes). The codes equal those of
    vector-quantize-pytorch from 1.27 on.
    """

    def __init__(self, width: int, levels: Sequence[int]):
        super().__init__()
        self.levels = tuple(levels)
        self.basis = tuple(math.prod(self.levels[:i]) for i in range(len(self.levels)))
        self.project_in = nn.Linear(width, len(self.levels))
        self.project_out = nn.Linear(len(self.levels), width)

    @property
    def codebook_size(self) -> int:
        return math.prod(self.levels)

    def _steps(self, like: Tensor) -> Tensor:
        return torch.tensor(self.levels, device=like.device, dtype=torch.float32) - 1

    def bound(self, z: Tensor) -> Tensor:
        """Soft clamp of z [..., levels] into ±(1 + 1/(L − 1))."""
        limit = 1 + 1 / self._steps(z)
        return limit * torch.tanh(z.float() / limit)

    def quantize(self, bounded: Tensor) -> tuple[Tensor, Tensor]:
        """Bounded values [..., levels] → code values in ±1 and indices [...]."""
        steps = self._steps(bounded)
        numbers = torch.floor(steps * (bounded.clamp(-1, 1) + 1) / 2 + 0.5)
        index = (numbers.long() * torch.tensor(self.basis, device=bounded.device)).sum(dim=-1)
        return 2 * numbers / steps - 1, index

    def values(self, index: Tensor) -> Tensor:
        """Code values [..., levels] of indices [...]; indices must lie in 0..codebook_size − 1."""
        levels = torch.tensor(self.levels, device=index.device)
        numbers = (index[..., None] // torch.tensor(self.basis, device=index.device)) % levels
        return 2 * numbers.float() / self._steps(index) - 1

    def _project(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(x.float(), layer.weight.float(), layer.bias.float())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [..., width] → quantized [..., width] (dtype of x) and indices [...]."""
        values, index = self.quantize(self.bound(self._project(self.project_in, x)))
        return self._project(self.project_out, values).to(x.dtype), index

    def from_indices(self, index: Tensor) -> Tensor:
        """Indices [...] → what :meth:`forward` gave with them, [..., width]."""
        return self._project(self.project_out, self.values(index)).to(self.project_out.weight.dtype)


class AttentionPooler(EncoderStack):
    """Five frames to one vector: a learned token attends to its own group and nothing else."""

    def __init__(self, config: ModelConfig):
        super().__init__(config, config.num_attention_pooler_hidden_layers)
        self.embed_tokens = nn.Linear(config.encoder_width, config.encoder_width)
        self.special_token = nn.Parameter(torch.empty(1, 1, config.encoder_width))

    def forward(self, groups: Tensor) -> Tensor:
        """[B, n, 5, E] → [B, n, E]."""
        x = self.embed_tokens(groups).flatten(0, 1)
        x = torch.cat((self.special_token.to(x).expand(x.shape[0], -1, -1), x), dim=1)
        return self.encode(x)[:, 0].view(*groups.shape[:2], -1)


class AudioTokenizer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.pool = config.pool_window_size
        self.audio_acoustic_proj = nn.Linear(config.audio_acoustic_hidden_dim, config.encoder_width)
        self.attention_pooler = AttentionPooler(config)
        self.quantizer = FiniteScalarQuantizer(config.fsq_dim, config.fsq_input_levels)

    def pooled(self, latents: Tensor, silence: Tensor) -> Tensor:
        """Latents [B, T, 64] → [B, ceil(T/5), E]; the tail is completed with the first silence frames."""
        missing = -latents.shape[1] % self.pool
        if missing:
            tail = silence[:missing].to(latents).expand(latents.shape[0], -1, -1)
            latents = torch.cat((latents, tail), dim=1)
        groups = latents.unflatten(1, (-1, self.pool))
        return self.attention_pooler(self.audio_acoustic_proj(groups))

    def forward(self, latents: Tensor, silence: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, T, 64], silence [≥4, 64] → quantized [B, n, E] and codes [B, n]."""
        return self.quantizer(self.pooled(latents, silence))


class AudioDetokenizer(EncoderStack):
    """Each quantized vector to five latent frames, independently of its neighbours."""

    def __init__(self, config: ModelConfig):
        super().__init__(config, config.num_attention_pooler_hidden_layers)
        self.embed_tokens = nn.Linear(config.encoder_width, config.encoder_width)
        self.special_tokens = nn.Parameter(torch.empty(1, config.pool_window_size, config.encoder_width))
        self.proj_out = nn.Linear(config.encoder_width, config.audio_acoustic_hidden_dim)

    def forward(self, quantized: Tensor) -> Tensor:
        """[B, n, E] → latents [B, 5·n, 64]."""
        x = self.embed_tokens(quantized).flatten(0, 1)[:, None] + self.special_tokens.to(quantized)
        return self.proj_out(self.encode(x)).view(quantized.shape[0], -1, self.proj_out.out_features)

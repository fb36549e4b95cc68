"""The condition encoder: text, lyrics and reference sound become the sequence the decoder attends to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import rotary
from .config import ModelConfig
from .layers import EncoderLayer, RMSNorm, Seen


class EncoderStack(nn.Module):
    """``layers`` and final ``norm`` of one bidirectional encoder, at the encoder side's widths."""

    def __init__(self, config: ModelConfig, depth: int):
        super().__init__()
        side = config.encoder_side()
        self.config = side
        self.layers = nn.ModuleList(
            EncoderLayer(
                side.hidden_size,
                side.intermediate_size,
                side.num_attention_heads,
                side.num_key_value_heads,
                side.head_dim,
                side.rms_norm_eps,
            )
            for _ in range(depth)
        )
        self.norm = RMSNorm(side.hidden_size, side.rms_norm_eps)

    def encode(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """x [B, T, E] → [B, T, E]. ``keys`` [B, T] hides padded positions from the others."""
        c = self.config
        table = rotary(x.shape[1], c.head_dim, c.rope_theta, x.device, x.dtype)
        seen = Seen(x, c.num_attention_heads // c.num_key_value_heads, keys)
        for index, layer in enumerate(self.layers):
            x = layer(x, table, seen(c.window(index)))
        return self.norm(x)


class LyricEncoder(EncoderStack):
    def __init__(self, config: ModelConfig):
        super().__init__(config, config.num_lyric_encoder_hidden_layers)
        self.embed_tokens = nn.Linear(config.text_hidden_dim, config.encoder_width)

    def forward(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """Lyric token embeddings [B, L, text width] → [B, L, E]."""
        return self.encode(self.embed_tokens(embeddings), None if mask is None else mask.bool())


class TimbreEncoder(EncoderStack):
    """Reference clips to one vector each: that of position 0, which the XL models fill with a learned token."""

    def __init__(self, config: ModelConfig):
        super().__init__(config, config.num_timbre_encoder_hidden_layers)
        self.embed_tokens = nn.Linear(config.timbre_hidden_dim, config.encoder_width)
        self.special_token = nn.Parameter(torch.empty(1, 1, config.encoder_width))
        self.uses_token = config.separate_encoder

    def forward(self, clips: Tensor) -> Tensor:
        """Latents of clips [N, frames, 64] → timbre vectors [N, E]."""
        x = self.embed_tokens(clips)
        if self.uses_token:
            x = torch.cat((self.special_token.to(x).expand(x.shape[0], -1, -1), x), dim=1)
        return self.encode(x)[:, 0]


def unpack_clips(vectors: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Sort clip vectors [N, E] to their batch rows: [B, most clips of a row, E] and mask (0 = unused, zeros).

    ``owners`` [N] names the row of each clip; clips of one row keep their order.
    """
    counts = torch.bincount(owners)
    order = torch.argsort(owners, stable=True)
    first = counts.cumsum(0) - counts
    slot = torch.arange(len(owners), device=owners.device) - first[owners[order]]
    out = vectors.new_zeros(len(counts), int(counts.max()), vectors.shape[-1])
    mask = torch.zeros(out.shape[:2], dtype=torch.long, device=vectors.device)
    out[owners[order], slot] = vectors[order]
    mask[owners[order], slot] = 1
    return out, mask


def pack(a: Tensor, b: Tensor, mask_a: Tensor, mask_b: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate two sequences and move their valid positions to the front, keeping the order of each."""
    x, mask = torch.cat((a, b), dim=1), torch.cat((mask_a.int(), mask_b.int()), dim=1)
    order = torch.argsort(mask, dim=1, descending=True, stable=True)
    x = x.gather(1, order[..., None].expand_as(x))
    count = mask.sum(dim=1, keepdim=True)
    return x, torch.arange(x.shape[1], device=x.device)[None] < count


class ConditionEncoder(nn.Module):
    """Text projection, lyric encoder and timbre encoder, packed as lyric | timbre | text."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.text_projector = nn.Linear(config.text_hidden_dim, config.encoder_width, bias=False)
        self.lyric_encoder = LyricEncoder(config)
        self.timbre_encoder = TimbreEncoder(config)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        lyrics: Tensor,
        lyric_mask: Tensor,
        clips: Tensor,
        owners: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """A padded batch, packed the way the original packs it.

        Args:
            text: hidden states of the text encoder [B, Lt, text width]; text_mask: [B, Lt].
            lyrics: token embeddings [B, Ll, text width]; lyric_mask: [B, Ll].
            clips: latents of all reference clips [N, frames, 64]; owners: [N] batch row of each.

        Returns: sequence [B, L, E] and mask [B, L], valid positions first.
        """
        lyric = self.lyric_encoder(lyrics, lyric_mask)
        timbre, timbre_mask = unpack_clips(self.timbre_encoder(clips), owners)
        x, mask = pack(lyric, timbre, lyric_mask, timbre_mask)
        return pack(x, self.text_projector(text), mask, text_mask)

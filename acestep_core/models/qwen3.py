"""The Qwen3 body of the text encoder and of the 5 Hz language models."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from .attention import rotary
from .layers import EncoderLayer, RMSNorm


@dataclass(frozen=True)
class Qwen3Config:
    """Sizes of a Qwen3 model; the defaults are those of Qwen3-Embedding-0.6B."""

    vocab_size: int = 151669
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Qwen3Config:
        """From ``config.json``; transformers 5 nests the rotary base in ``rope_parameters``."""
        values = {f.name: config[f.name] for f in fields(cls) if config.get(f.name) is not None}
        if "rope_theta" not in values and config.get("rope_parameters"):
            values["rope_theta"] = config["rope_parameters"]["rope_theta"]
        return cls(**values)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> Qwen3Config:
        """From the shapes of an unprefixed state dict; the rotary base leaves no trace and is taken as 1e6."""
        head_dim = shapes["layers.0.self_attn.q_norm.weight"][0]
        vocab, hidden = shapes["embed_tokens.weight"]
        return cls(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=shapes["layers.0.mlp.gate_proj.weight"][0],
            num_hidden_layers=1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("layers.")),
            num_attention_heads=shapes["layers.0.self_attn.q_proj.weight"][0] // head_dim,
            num_key_value_heads=shapes["layers.0.self_attn.k_proj.weight"][0] // head_dim,
            head_dim=head_dim,
        )


LM_SIZES = {
    "0.6B": Qwen3Config(vocab_size=217204),
    "1.7B": Qwen3Config(vocab_size=217204, hidden_size=2048, intermediate_size=6144),
    "4B": Qwen3Config(
        vocab_size=217204, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32
    ),
}


class Qwen3(nn.Module):
    """Token embedding, causal layers, final norm. A language model's head is the transposed embedding."""

    def __init__(self, config: Qwen3Config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.hidden_size,
                config.intermediate_size,
                config.num_attention_heads,
                config.num_key_value_heads,
                config.head_dim,
                config.rms_norm_eps,
            )
            for _ in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] → last hidden states [B, L, H]. No mask: padding on the right changes nothing before it."""
        c = self.config
        x = self.embed_tokens(ids)
        table = rotary(ids.shape[1], c.head_dim, c.rope_theta, x.device, x.dtype)
        for layer in self.layers:
            x = layer(x, table, causal=True)
        return self.norm(x)

    def further(self, ids: Tensor, positions: Tensor, cache: KeyValues, seen: int) -> Tensor:
        """The next tokens of every row of ``cache`` → their last hidden states [B, T, H].

        Args:
            ids: [B, T]. positions: [B, T], places of these tokens in their rows; rows may be of different length.
            seen: tokens of the cache that are looked at, at least the largest position + 1. Beyond its own
                position a token sees nothing.
        """
        x = self.embed_tokens(ids)
        beyond = torch.arange(seen, device=ids.device) > positions[..., None]
        bias = torch.zeros(beyond.shape, device=x.device, dtype=x.dtype).masked_fill_(beyond, float("-inf"))[:, None]
        place = (torch.arange(ids.shape[0], device=ids.device)[:, None], positions)
        cos, sin = cache.table
        table = (cos[positions], sin[positions])
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = layer.further(x, table, place, keys, values, bias)
        return self.norm(x)


class KeyValues:
    """Keys and values of every layer for ``rows`` sequences of at most ``capacity`` tokens, filled in place.

    Attributes:
        keys, values: [layers, rows, capacity, kv heads, D].
        table: rotary table of all positions.
    """

    def __init__(self, config: Qwen3Config, rows: int, capacity: int, device: torch.device, dtype: torch.dtype):
        shape = (config.num_hidden_layers, rows, capacity, config.num_key_value_heads, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.theta = config.rope_theta
        self.table = rotary(capacity, config.head_dim, self.theta, device, dtype)

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    @staticmethod
    def bytes_a_token(config: Qwen3Config, dtype: torch.dtype) -> int:
        """Memory of one token of one row."""
        return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * dtype.itemsize

    def grown(self, capacity: int) -> KeyValues:
        """The same with room for more."""
        layers, rows, length, heads, dim = self.keys.shape
        larger = copy.copy(self)
        for side in ("keys", "values"):
            room = getattr(self, side).new_zeros(layers, rows, capacity, heads, dim)
            room[:, :, :length] = getattr(self, side)
            setattr(larger, side, room)
        larger.table = rotary(capacity, dim, self.theta, self.keys.device, self.keys.dtype)
        return larger

    def row(self, index: int) -> KeyValues:
        """One row alone, sharing its memory."""
        alone = copy.copy(self)
        alone.keys, alone.values = self.keys[:, index : index + 1], self.values[:, index : index + 1]
        return alone

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Make the first ``length`` tokens of row ``target`` those of row ``source``."""
        for side in (self.keys, self.values):
            side[:, target, :length] = side[:, source, :length]

"""The Qwen3 body of the text encoder and of the 5 Hz language models."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Rotary, rotary
from .layers import EncoderLayer, Kept, RMSNorm


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

    def further(self, ids: Tensor, groups: Sequence[Group]) -> Tensor:
        """The next tokens ids [B, T] of sequences → their last hidden states [B, T, H].

        The rows are those of the groups, in order; each group is of one length and has a cache of its own.
        """
        x = self.embed_tokens(ids)
        tables = [group.table() for group in groups]
        table = (torch.cat([cos for cos, _ in tables]), torch.cat([sin for _, sin in tables]))
        biases = [group.bias(x) for group in groups]
        for number, layer in enumerate(self.layers):
            kept = [group.layer(number, bias) for group, bias in zip(groups, biases, strict=True)]
            x = layer.further(x, table, kept)
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

    def copied(self, rows: int, capacity: int) -> KeyValues:
        """The first row as ``rows`` rows with room for ``capacity`` tokens, at least those it has."""
        layers, _, length, heads, dim = self.keys.shape
        larger = copy.copy(self)
        for side in ("keys", "values"):
            room = self.keys.new_zeros(layers, rows, capacity, heads, dim)
            room[:, :, :length] = getattr(self, side)[:, :1]
            setattr(larger, side, room)
        larger.table = rotary(capacity, dim, self.theta, self.keys.device, self.keys.dtype)
        return larger


@dataclass(frozen=True)
class Group:
    """Sequences of one length in a step of decoding.

    Attributes:
        cache: what they have said. positions: [T], places of the next tokens.
        seen: tokens of the cache that are looked at, at least the largest position + 1.
        masked: whether a token could see beyond its own place. Not for one token and no more seen than there is.
    """

    cache: KeyValues
    positions: Tensor
    seen: int
    masked: bool = True

    def table(self) -> Rotary:
        """Rotary table [rows, T, 1, D/2]."""
        cos, sin = (side[self.positions].expand(self.cache.keys.shape[1], -1, -1, -1) for side in self.cache.table)
        return cos, sin

    def bias(self, x: Tensor) -> Tensor | None:
        """[1, 1, T, seen], lowest beyond a token's own place."""
        if not self.masked:
            return None
        beyond = torch.arange(self.seen, device=x.device) > self.positions[:, None]
        return torch.zeros(beyond.shape, device=x.device, dtype=x.dtype).masked_fill_(beyond, float("-inf"))[None, None]

    def layer(self, number: int, bias: Tensor | None) -> Kept:
        return Kept(self.cache.keys[number], self.cache.values[number], self.positions, self.seen, bias)

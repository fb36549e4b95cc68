"""Blocks shared by every stack: RMS norm, gated MLP, attention with normalised queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Rotary, Visible, attend, attend_visible, rotate, visible


@dataclass(frozen=True)
class Kept:
    """What one layer keeps of rows that are equally long.

    Attributes:
        keys, values: [rows, capacity, kv heads, D], written in place. positions: [T], places of the next tokens.
        seen: how many tokens are looked at. bias: [1, 1, T, seen], None where all of them are seen.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    seen: int
    bias: Tensor | None


FUSED = hasattr(torch.ops.aten, "_fused_rms_norm_backward")
"""Whether this PyTorch can do :func:`fused` in one kernel on a CUDA or ROCm card."""


def fused(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last dimension by PyTorch's own function: in float32, rounded to the type of ``x``."""
    return F.rms_norm(x, x.shape[-1:], eps=eps)


class RMSNorm(nn.Module):
    """weight · cast(x / rms(x)): the mean square is taken in float32, the weight multiplies after the cast."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def normalise(self, x: Tensor) -> Tensor:
        """x / rms(x) over the last dimension, without the weight."""
        if FUSED and x.is_cuda:
            return fused(x, self.eps)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square()
        return (x * torch.rsqrt(square / x.shape[-1] + self.eps)).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x).mul_(self.weight)

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """forward(x)·(1 + scale) + shift, with scale and shift [B or 1, 1, width]."""
        return torch.addcmul(shift, self.normalise(x), self.weight * (1 + scale)).to(x.dtype)


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x)), without biases."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.silu(self.gate_proj(x), inplace=True)
        return self.down_proj(gate.mul_(self.up_proj(x)))


class Attention(nn.Module):
    """Grouped-query attention whose queries and keys are RMS-normalised over the head dimension."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int, eps: float):
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)
        self.q_norm = RMSNorm(head_dim, eps)
        self.k_norm = RMSNorm(head_dim, eps)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim))

    def queries(self, x: Tensor) -> Tensor:
        """[B, T, width] → normalised queries [B, T, heads, D], before any rotation."""
        return self.q_norm(self._heads(self.q_proj(x)))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, width] → normalised keys and plain values, each [B, S, kv heads, D]."""
        return self.k_norm(self._heads(self.k_proj(x))), self._heads(self.v_proj(x))

    def forward(self, x: Tensor, table: Rotary, who: Visible | None = None, causal: bool = False) -> Tensor:
        """Self-attention over x [B, T, width]."""
        k, v = self.keys_values(x)
        q, k = rotate(self.queries(x), table), rotate(k, table)
        out = attend(q, k, v, causal=causal) if who is None else attend_visible(q, k, v, who)
        return self.o_proj(out)

    def further(self, x: Tensor, table: Rotary, groups: Sequence[Kept]) -> Tensor:
        """Self-attention of the next tokens x [B, T, width] to all before them and to each other.

        The rows of x are those of the groups, in order. Their keys and values are written where each group says.
        """
        k, v = self.keys_values(x)
        q, k = rotate(self.queries(x), table), rotate(k, table)
        out, first = [], 0
        for group in groups:
            rows = slice(first, first + group.keys.shape[0])
            first = rows.stop
            group.keys.index_copy_(1, group.positions, k[rows])
            group.values.index_copy_(1, group.positions, v[rows])
            out.append(attend(q[rows], group.keys[:, : group.seen], group.values[:, : group.seen], group.bias))
        return self.o_proj(torch.cat(out) if len(out) > 1 else out[0])

    def cross(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of x [B, T, width] to keys and values made once by :meth:`keys_values`."""
        return self.o_proj(attend(self.queries(x), keys, values))

    def weights(self, x: Tensor, keys: Tensor, heads: Sequence[int]) -> Tensor:
        """What :meth:`cross` weighs the values with, for some query heads: [B, heads, T, S] in float32.

        As in the original: softmax in float32, rounded to the precision of x.
        """
        group = self.q_proj.out_features // self.k_proj.out_features
        q = self.queries(x)[:, :, list(heads)]
        k = keys[:, :, [head // group for head in heads]]
        scores = torch.matmul(q.transpose(1, 2), k.permute(0, 2, 3, 1)) * self.head_dim**-0.5
        return scores.softmax(-1, dtype=torch.float32).to(x.dtype).float()


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer: x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, width: int, inner: int, heads: int, kv_heads: int, head_dim: int, eps: float):
        super().__init__()
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = Attention(width, heads, kv_heads, head_dim, eps)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = MLP(width, inner)

    def forward(self, x: Tensor, table: Rotary, who: Visible | None = None, causal: bool = False) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), table, who, causal)
        return x + self.mlp(self.post_attention_layernorm(x))

    def further(self, x: Tensor, table: Rotary, groups: Sequence[Kept]) -> Tensor:
        """:meth:`forward` for the next tokens of sequences; see :meth:`Attention.further`."""
        x = x + self.self_attn.further(self.input_layernorm(x), table, groups)
        return x + self.mlp(self.post_attention_layernorm(x))


class Seen:
    """The :class:`Visible` of one sequence for each window a stack uses, made when first asked for."""

    def __init__(self, x: Tensor, group: int, keys: Tensor | None = None, copies: int = 1):
        """``x`` [B, T, ...] gives sizes, dtype and device; ``copies`` multiplies the batch."""
        self.batch, self.length, self.group, self.keys = copies * x.shape[0], x.shape[1], group, keys
        self.device, self.dtype = x.device, x.dtype
        self._made: dict[int | None, Visible] = {}

    def __call__(self, reach: int | None) -> Visible:
        if reach not in self._made:
            sizes = (self.length, reach, self.group, self.device, self.dtype)
            self._made[reach] = visible(*sizes, keys=self.keys, batch=self.batch)
        return self._made[reach]

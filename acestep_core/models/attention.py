"""Attention as functions: grouped heads, rotary positions, and exact local attention without a T×T mask.

Shapes here are time-major: queries [B, T, heads, D], keys and values [B, S, kv heads, D].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Rotary = tuple[Tensor, Tensor]
FEW_SCORES = 1 << 20
"""Scores of a head, T·S, up to which training on the CPU keeps them."""


def rotary(positions: int, head_dim: int, theta: float, device: torch.device, dtype: torch.dtype) -> Rotary:
    """Cosines and sines, each [T, 1, D/2], for positions 0..T−1.

    Angles position · θ^(−2j/D) are computed in float32 and only then cast (published weights loaded by
    the original code in bfloat16 round the frequencies themselves; we keep them exact).
    """
    frequencies = theta ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.arange(positions, device=device, dtype=torch.float32)[:, None] * frequencies
    return angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]


def rotate(x: Tensor, table: Rotary) -> Tensor:
    """Rotate halves (first half against second half) of x [B, T, heads, D]."""
    cos, sin = table
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q·kᵀ/√D + bias)·v for [B, H, T, D] and [B, H, S, D].

    The fused form in bfloat16 on the CPU takes three times as long forward and back as two products do, so training
    there takes those while the scores are few.
    """
    few = q.shape[-2] * k.shape[-2] <= FEW_SCORES
    if few and q.requires_grad and q.device.type == "cpu" and _in_bfloat16(q):
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        return torch.matmul((scores if bias is None else scores + bias.to(scores)).softmax(-1), v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _in_bfloat16(x: Tensor) -> bool:
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.dtype == torch.bfloat16


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q·kᵀ/√D + bias)·v for grouped heads: query head h reads kv head h // group.

    The heads of a group are folded into the query length, so keys are never repeated.

    Args:
        q: [B, T, Hq, D]. k, v: [B, S, Hkv, D].
        bias: additive, broadcastable to [B, 1, T, S] (T may be 1).
        causal: query i sees keys up to i + S − T.

    Returns: [B, T, Hq·D].
    """
    batch, length, heads, dim = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    q = q.view(batch, length, kv_heads, group, dim).permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, group * length, dim)
    if causal:
        seen = torch.ones(length, k.shape[1], dtype=torch.bool, device=q.device).tril(k.shape[1] - length)
        bias = q.new_zeros(1, 1, length, k.shape[1]).masked_fill_(~seen, float("-inf"))
    if bias is not None and bias.shape[2] == length and group > 1 and length > 1:
        bias = bias.repeat(1, 1, group, 1)
    out = _attention(q, k.transpose(1, 2), v.transpose(1, 2), bias)
    return out.view(batch, kv_heads, group, length, dim).permute(0, 3, 1, 2, 4).reshape(batch, length, heads * dim)


@dataclass(frozen=True)
class Visible:
    """Who sees whom in one sequence, worked out once and used by every layer and step.

    Attributes:
        length: T.
        reach: how far a query looks to each side, None for everything.
        bias: additive bias in the blocked layout (local) or [B, 1, 1, T] (full); None where all is seen.
        blind: [B, T] true where a query sees no valid key at all; such a query attends evenly to all keys.
    """

    length: int
    reach: int | None
    bias: Tensor | None
    blind: Tensor | None


def visible(
    length: int,
    reach: int | None,
    group: int,
    device: torch.device,
    dtype: torch.dtype,
    keys: Tensor | None = None,
    batch: int = 1,
) -> Visible:
    """Prepare :class:`Visible` for ``batch`` sequences of ``length``.

    Args:
        reach: the window, |i − j| ≤ reach; None or at least length − 1 means no window.
        group: query heads for each kv head.
        keys: [B, T] true for valid keys; None when all are valid.
    """
    local = reach is not None and reach < length - 1
    if keys is not None and bool(keys.all()):
        keys = None
    if not local:
        if keys is None:
            return Visible(length, None, None, None)
        blind = ~keys.any(dim=1, keepdim=True).expand(-1, length)
        seen = (keys | blind)[:, None, None, :]
        bias = torch.zeros(seen.shape, device=device, dtype=dtype).masked_fill_(~seen, float("-inf"))
        return Visible(length, None, bias, blind if bool(blind.any()) else None)

    blocks = -(-length // reach)
    first = torch.arange(blocks, device=device)[:, None, None] * reach
    query = first + torch.arange(reach, device=device)[None, :, None]
    key = first + torch.arange(-reach, 2 * reach, device=device)[None, None, :]
    seen = ((query - key).abs() <= reach) & (key >= 0) & (key < length)
    blind = None
    if keys is None:
        seen = seen[None].expand(batch, -1, -1, -1)
    else:
        seen = seen[None] & windows(keys[..., None, None], reach, blocks).squeeze(-1)
        blind = ~seen.any(dim=-1).reshape(keys.shape[0], -1)[:, :length]
        blind = blind if bool(blind.any()) else None
    # A query beyond the end, or without any valid key, looks at everything: finite, and overwritten later.
    seen = seen | ~seen.any(dim=-1, keepdim=True)
    bias = torch.zeros(seen.shape, device=device, dtype=dtype).masked_fill_(~seen, float("-inf"))
    bias = bias.flatten(0, 1)[:, None].repeat(1, 1, group, 1)
    return Visible(length, reach, bias, blind)


def windows(x: Tensor, reach: int, blocks: int) -> Tensor:
    """Overlapping windows of x [B, T, H, D]: [B, blocks, H, 3·reach, D], zeros beyond the ends."""
    behind = (blocks + 1) * reach - x.shape[1]
    padded = F.pad(x, (0, 0, 0, 0, reach, behind))
    return padded.unfold(1, 3 * reach, reach).transpose(-1, -2)


def attend_visible(q: Tensor, k: Tensor, v: Tensor, who: Visible) -> Tensor:
    """Attention under ``who``: q [B, T, Hq, D], k and v [B, T, Hkv, D] → [B, T, Hq·D].

    Local attention works on blocks of ``reach`` queries against the 3·reach keys around them, which is
    exact and costs time and memory linear in T.
    """
    batch, length, heads, dim = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    if who.reach is None:
        out = attend(q, k, v, who.bias)
    else:
        reach = who.reach
        blocks = -(-length // reach)
        q = F.pad(q, (0, 0, 0, 0, 0, blocks * reach - length))
        q = q.view(batch * blocks, reach, kv_heads, group, dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
        near_k, near_v = (windows(x, reach, blocks).flatten(0, 1) for x in (k, v))
        out = _attention(q, near_k, near_v, who.bias)
        out = out.view(batch * blocks, kv_heads, group, reach, dim).permute(0, 3, 1, 2, 4)
        out = out.reshape(batch, blocks * reach, heads * dim)[:, :length]
    if who.blind is not None:
        even = v.mean(dim=1).repeat_interleave(group, dim=1).flatten(1)
        out = torch.where(who.blind[..., None], even[:, None], out)
    return out

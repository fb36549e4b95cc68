"""The packed blocks of GGUF files as weights, by PyTorch operations on whatever device the blocks lie.

>>> weight = unpack("Q4_K", codes, torch.bfloat16)

A block holds 32 or 256 weights as small whole numbers q and what turns them back, a scale d in float16 among it; of
the K types a block has 8 or 16 parts with whole scales s of their own. Layouts and formulas are ggml's
(``ggml-quants.c``, ``dequantize_row_*``); weights are those of the package ``gguf`` rounded to the wanted precision.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checkpoints.gguf_header import BLOCKS
from .fp8 import working_dtype


def unpack(kind: str, codes: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights [..., n] in ``dtype`` from codes [..., bytes], uint8, of a type of :data:`gguf_header.BLOCKS`."""
    weights, width = BLOCKS[kind]
    blocks = codes.reshape(-1, width)
    numbers = _UNPACK[kind](blocks, working_dtype(codes.device, dtype)).to(dtype)
    return numbers.reshape(*codes.shape[:-1], codes.shape[-1] // width * weights)


def _half(blocks: Tensor, start: int) -> Tensor:
    """The float16 number at byte ``start`` of each block, [n, 1] in float32."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(codes: Tensor) -> Tensor:
    """The low and then the high four bits of [n, groups, width]: [n, groups, 2, width]."""
    return torch.stack((codes & 15, codes >> 4), dim=2)


def _line(q: Tensor, scale: Tensor, offset: Tensor, dtype: torch.dtype) -> Tensor:
    """q·scale + offset in float32, rounded once to ``dtype``; in one kernel, nothing of it in float32 in memory."""
    if dtype == torch.float32:
        return q.to(dtype).mul_(scale).add_(offset)
    return torch.addcmul(offset, q, scale, out=torch.empty(q.shape, dtype=dtype, device=q.device))


def _scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """d·s and −d'·s' of the 8 parts of a Q4_K or Q5_K block, [n, 8, 1] each: six bits of s and s' in twelve bytes."""
    scale, least, high = blocks[:, 4:16].view(-1, 3, 4).unbind(1)
    s = torch.cat((scale & 63, (high & 15) | ((scale >> 2) & 48)), dim=1)
    offset = torch.cat((least & 63, (high >> 4) | ((least >> 2) & 48)), dim=1)
    return (_half(blocks, 0) * s)[..., None], (_half(blocks, 2).neg_() * offset)[..., None]


def _q4_k(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    q = _nibbles(blocks[:, 16:144].view(-1, 4, 32)).view(-1, 8, 32)
    return _line(q, *_scales(blocks), dtype)


def _q5_k(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    low = _nibbles(blocks[:, 48:176].view(-1, 4, 32)).view(-1, 8, 32)
    bits = blocks[:, 16:48]
    high = torch.stack([((bits >> part) & 1) << 4 for part in range(8)], dim=1)
    return _line(low | high, *_scales(blocks), dtype)


def _q6_k(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    low = _nibbles(blocks[:, :128].view(-1, 2, 64)).view(-1, 8, 32)
    bits = blocks[:, 128:192].view(-1, 2, 32)
    high = torch.stack([((bits >> shift) & 3) << 4 for shift in (0, 2, 4, 6)], dim=2).view(-1, 8, 32)
    scale = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    return (low | high).view(-1, 16, 16).to(dtype).sub_(32).mul_(scale[..., None])


def _q8_0(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    return blocks[:, 2:].view(torch.int8).to(dtype).mul_(_half(blocks, 0))


def _fours(blocks: Tensor) -> Tensor:
    """The 32 four-bit numbers at the end of a block, [n, 32]."""
    return _nibbles(blocks[:, None, -16:]).view(-1, 32)


def _fives(blocks: Tensor, start: int) -> Tensor:
    """The same with a fifth bit each, from the four bytes at ``start``."""
    shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device)
    fifth = (blocks[:, start : start + 4, None] >> shifts) & 1
    return _fours(blocks) | (fifth.view(-1, 32) << 4)


def _q4_0(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    return _fours(blocks).to(dtype).sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    return _line(_fours(blocks), _half(blocks, 0), _half(blocks, 2), dtype)


def _q5_0(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    return _fives(blocks, 2).to(dtype).sub_(16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    return _line(_fives(blocks, 4), _half(blocks, 0), _half(blocks, 2), dtype)


_UNPACK: dict[str, Callable[[Tensor, torch.dtype], Tensor]] = {
    **{"Q8_0": _q8_0, "Q6_K": _q6_k, "Q5_K": _q5_k, "Q4_K": _q4_k},
    **{"Q5_0": _q5_0, "Q5_1": _q5_1, "Q4_0": _q4_0, "Q4_1": _q4_1},
}

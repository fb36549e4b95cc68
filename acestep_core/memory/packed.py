"""Linear layers whose weights stay packed, as fp8 or as blocks of GGUF, and are unpacked one layer at a time.

>>> weight = pack_fp8(layer.weight)
>>> decoder.q_proj = PackedLinear(weight, layer.bias)

Of a model of such layers never more than one matrix is there in full, and that only while its layer computes. The
layer answers as ``nn.Linear`` with the unpacked weight in the precision of its input would, on any device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.gguf_header import BLOCKS
from . import fp8, gguf_blocks
from .fp8 import E4M3


@dataclass(frozen=True)
class Packed:
    """A weight as it is stored.

    Attributes:
        form: one of :data:`fp8.FORMS` or :data:`gguf_header.BLOCKS`.
        codes: uint8, [out, in] of fp8, [out, bytes of a row] of blocks.
        scale: float32, [out, 1] or [1, 1], of fp8 alone; None for 1.
    """

    form: str
    codes: Tensor
    scale: Tensor | None = None

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weight in ``dtype``."""
        return _dense(self.form, self.codes, self.scale, dtype)


def _dense(form: str, codes: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    if form in BLOCKS:
        return gguf_blocks.unpack(form, codes, dtype)
    return fp8.unpack(form, codes, scale, dtype)


def pack_fp8(weight: Tensor) -> Packed:
    """A weight [out, in] as fp8 (e4m3) with a scale a row."""
    with torch.inference_mode(False), torch.no_grad():
        return Packed(E4M3, *fp8.pack(weight.detach()))


class PackedLinear(nn.Module):
    """y = W x + b with W packed. The codes are kept as bytes, which no cast of the whole model changes."""

    def __init__(self, weight: Packed, bias: Tensor | None = None):
        super().__init__()
        self.form = weight.form
        self.out_features, width = weight.codes.shape
        block = BLOCKS.get(weight.form)
        self.in_features = width // block[1] * block[0] if block else width
        self.weight = nn.Parameter(weight.codes, requires_grad=False)
        self.register_buffer("scale", weight.scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in] in ``dtype``."""
        return _dense(self.form, self.weight, self.scale, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dense(x.dtype), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.form}, bias={self.bias is not None}"


def place_packed(module: nn.Module, name: str, weight: Packed) -> None:
    """Put a packed layer in the place of the linear one whose weight is ``name``."""
    layer = name.removesuffix(".weight")
    owner, _, leaf = layer.rpartition(".")
    setattr(module.get_submodule(owner), leaf, PackedLinear(weight, module.get_submodule(layer).bias))

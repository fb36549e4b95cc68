"""Weights in eight-bit floating point: of files that hold them, and made on load, with a scale beside them.

The scale of a row that is made here is a power of two. So a weight stands for a number that bfloat16, float32 and (in
its range) float16 hold exactly, and its error is that of the format alone: three bits after the leading one, at most
1/16 of the number. Multiplying happens in the precision of the activations: it works on every device, and saves
memory, not time.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"
FORMS = {E4M3: torch.float8_e4m3fn, E5M2: torch.float8_e5m2}
LARGEST = torch.finfo(torch.float8_e4m3fn).max
LEAST_EXPONENT = -100
"""Of a scale; rows that are zero have scale 1."""
VALUES_AT_ONCE = 1 << 18
CONVERTING = ("cuda", "xpu")
"""Kinds of device that turn fp8 into other precisions fast. Others are slow at it (CPU) or do not know it (MPS)."""


def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [out, in], uint8, and scale [out, 1], float32, of a weight [out, in], a few rows at a time.

    The scale is the least power of two with which the largest of a row is no more than 448.
    """
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    scale = torch.ones(len(weight), 1, dtype=torch.float32, device=weight.device)
    rows = max(1, VALUES_AT_ONCE // weight.shape[1])
    for some, whole, factor in zip(codes.split(rows), weight.split(rows), scale.split(rows), strict=True):
        largest = torch.linalg.vector_norm(whole.float(), torch.inf, dim=1, keepdim=True)
        part, exponent = torch.frexp(largest / LARGEST)
        exponent = (exponent - (part == 0.5).int()).clamp(min=LEAST_EXPONENT)
        factor.copy_(torch.where(largest > 0, torch.ldexp(torch.ones_like(largest), exponent), 1.0))
        some.copy_((whole.float() / factor).to(FORMS[E4M3]).view(torch.uint8))
    return codes, scale


def unpack(form: str, codes: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weights in ``dtype`` from codes, uint8, of :data:`FORMS`; scale [out, 1] or [1, 1] in float32, None for 1."""
    work = working_dtype(codes.device, dtype)
    if codes.device.type in CONVERTING:
        weight = codes.view(FORMS[form]).to(work)
    else:
        weight = looked_up(form, codes, work)
    return (weight if scale is None else weight.mul_(scale)).to(dtype)


def looked_up(form: str, codes: Tensor, dtype: torch.dtype) -> Tensor:
    """What each code stands for, on any device: there are but 256."""
    numbers = _numbers(form, dtype).to(codes.device)
    return numbers.index_select(0, codes.flatten().int()).view(codes.shape)


@functools.cache
def _numbers(form: str, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(256, dtype=torch.uint8).view(FORMS[form]).to(dtype)


def working_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Where to multiply by a float32 scale: in ``dtype``, rounded once by the kernel, where kernels are compiled for
    that; elsewhere PyTorch takes twenty times as long for a product of two precisions as for one in float32."""
    return dtype if device.type in CONVERTING else torch.float32

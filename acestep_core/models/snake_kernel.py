"""The snake activation as one kernel: it reads and writes each value once, where PyTorch's own steps do so four times.

It needs Triton and a card that Triton compiles for. Whether it works there is tried once, against the plain form.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

log = logging.getLogger("acestep")

BLOCK = 1024
CLOSE = 1e-5
"""How far the trial may differ in float32; its values are about 1."""

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]

if triton is not None:

    @triton.jit
    def _snake(x, out, rate, strength, channels, length, block: tl.constexpr):
        row = tl.program_id(0)
        channel = row % channels
        at = tl.program_id(1) * block + tl.arange(0, block)
        inside = at < length
        place = row.to(tl.int64) * length + at
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        wave = tl.sin(value * tl.load(rate + channel)) * tl.load(strength + channel)
        tl.store(out + place, (value + wave * wave).to(out.dtype.element_ty), mask=inside)


def run(x: Tensor, rate: Tensor, strength: Tensor) -> Tensor:
    """x + (strength · sin(rate · x))² of contiguous x [B, C, n], rate and strength [1, C, 1]; computed in float32."""
    out = torch.empty_like(x)
    batch, channels, length = x.shape
    if out.numel():
        grid = (batch * channels, triton.cdiv(length, BLOCK))
        rate, strength = (part.float().contiguous() for part in (rate, strength))
        _snake[grid](x, out, rate, strength, channels, length, block=BLOCK)
    return out


def kernel_for(x: Tensor) -> Kernel | None:
    """:func:`run` where it works for tensors like x, else None."""
    if triton is None or not x.is_cuda or not x.is_contiguous():
        return None
    return run if _works(x.device, x.dtype) else None


@functools.cache
def _works(device: torch.device, dtype: torch.dtype) -> bool:
    """Try the kernel once on each device and precision."""
    try:
        return agrees(device, dtype)
    except Exception as error:
        log.warning("The fused snake kernel does not work on %s (%s); PyTorch's own steps are used.", device, error)
        return False


def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel gives what the formula does."""
    x = torch.linspace(-20, 20, 3 * 1100, device=device).view(1, 3, 1100).to(dtype)
    rate, strength = (torch.linspace(low, 1.5, 3, device=device)[None, :, None] for low in (0.5, 0.8))
    wanted = x.double() + (strength.double() * torch.sin(rate.double() * x.double())).square()
    gap = float((run(x, rate, strength).double() - wanted).abs().max())
    allowed = CLOSE if dtype == torch.float32 else 30 * torch.finfo(dtype).eps
    if gap > allowed:
        log.warning("The fused snake kernel is off by %.1e on %s; PyTorch's own steps are used.", gap, device)
    return gap <= allowed

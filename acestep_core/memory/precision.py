"""In which precision the diffusion model is kept where the user leaves that open."""

from __future__ import annotations

import torch

from ..host import Host
from . import quantize
from .tiers import tier_of

INT8, FP8 = "int8", "fp8"
"""Of the diffusion model alone: the decoder's matrices in 8 bits, the rest and the activations as with ``auto``."""


def automatic(host: Host) -> tuple[str, str]:
    """What ``auto`` means for a diffusion model of a plain file: ``auto`` or ``int8``, and why ("" for no note).

    INT8 on NVIDIA cards of the tiers that the original quantizes on; never on the CPU, on Apple or AMD.
    """
    memory = host.memory_gb()
    if not memory or host.device("dit").type != "cuda" or torch.version.hip or not tier_of(memory).int8:
        return "auto", ""
    if not quantize.is_available():
        return "auto", (
            f"On a card of {memory:.1f} GB, int8 would take a third less memory; it needs torchao: pip install torchao."
        )
    return INT8, f"auto is int8 on a card of {memory:.1f} GB. Choose bf16 for full precision, or to train."

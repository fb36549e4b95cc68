"""What makes a run this run: digests of the model it trains and of the adapter it starts from."""

from __future__ import annotations

import hashlib

import torch

from ..checkpoints.handles import DiffusionModel
from ..lora.adapter import Adapter

SAMPLED = 256


def model_fingerprint(model: DiffusionModel) -> str:
    """SHA-256 over names and shapes of the decoder's weights and up to 256 values of each, rounded to bfloat16."""
    digest = hashlib.sha256()
    for name, weight in model.module.decoder.named_parameters():
        flat = weight.detach().flatten()
        some = flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED].to("cpu", torch.bfloat16).contiguous()
        digest.update(f"{name} {list(weight.shape)} ".encode())
        digest.update(some.view(torch.uint8).numpy())
    return digest.hexdigest()


def adapter_fingerprint(adapter: Adapter) -> str:
    """SHA-256 over the changes of an adapter."""
    digest = hashlib.sha256()
    for name, change in sorted(adapter.changes.items()):
        digest.update(f"{name} {change.kind} {change.scale!r} ".encode())
        for tensor in change.tensors():
            digest.update(tensor.detach().float().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()

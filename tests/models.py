"""The tiny models of the fixtures, loaded once, for tests that make music."""

from functools import cache
from pathlib import Path

import torch

from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.checkpoints.handles import Autoencoder
from acestep_graph.acestep_core.models.oobleck import OobleckVAE
from tests import tiny

CHECKPOINTS = Path(__file__).resolve().parent / "fixtures" / "checkpoints"


def diffusion(kind: str = "turbo"):
    return _diffusion(kind)


@cache
def _diffusion(kind: str):
    return loading.load_diffusion_model(CHECKPOINTS / f"acestep-v15-{kind}", dtype=torch.float32)


@cache
def text_encoder():
    return loading.load_text_encoder(CHECKPOINTS / "Qwen3-Embedding-0.6B", dtype=torch.float32)


@cache
def vae():
    return loading.load_vae(CHECKPOINTS / "vae", dtype=torch.float32)


@cache
def small_vae():
    """The published structure with few channels: hundreds of times faster than the fixture's wide encoder."""
    return Autoencoder(tiny.randomize(OobleckVAE(tiny.VAE), 3), vae().report)

"""The autoencoder over short pieces gives what it gives over the whole."""

import pytest
import torch

from acestep_graph.acestep_core.checkpoints.demo import randomize
from acestep_graph.acestep_core.models import oobleck
from acestep_graph.acestep_core.models.oobleck import OobleckConfig, OobleckVAE

SMALL = {"encoder_hidden_size": 4, "decoder_channels": 4, "decoder_input_channels": 2}


def both(vae: OobleckVAE, x: torch.Tensor, side: str, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    made = []
    for piece in (2**40, 4000):
        monkeypatch.setattr(oobleck, "PIECE", piece)
        made.append(getattr(vae, side)(x))
    return made


@pytest.mark.parametrize("ratios", ((2, 4, 4, 6, 10), (3, 2, 5)))
@pytest.mark.parametrize("side, sizes", (("decoder", (1, 7, 43)), ("encoder", (1920, 30_000, 60_011))))
def test_pieces_join_to_the_whole(side, sizes, ratios, monkeypatch):
    config = OobleckConfig(downsampling_ratios=ratios, channel_multiples=(1, 2, 4, 8, 16)[: len(ratios)], **SMALL)
    vae = randomize(OobleckVAE(config), 0).double()
    for size in sizes:
        channels = config.audio_channels if side == "encoder" else config.decoder_input_channels
        x = torch.randn(2, channels, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
        whole, joined = both(vae, x, side, monkeypatch)
        assert whole.shape == joined.shape
        assert torch.allclose(whole, joined, rtol=1e-9, atol=1e-9)


def test_gradients_pass_through_pieces(monkeypatch):
    vae = randomize(OobleckVAE(OobleckConfig(**SMALL)), 1).double().requires_grad_(True)
    latents = torch.randn(1, 2, 9, dtype=torch.float64, requires_grad=True)
    gradients = []
    for made in both(vae, latents, "decoder", monkeypatch):
        gradients.append(torch.autograd.grad(made.square().mean(), (latents, vae.decoder.conv1.weight)))
    assert all(torch.allclose(a, b, rtol=1e-8) for a, b in zip(*gradients, strict=True))

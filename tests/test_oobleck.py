"""The autoencoder over short pieces gives what it gives over the whole."""

import os
import subprocess
import sys

import pytest
import torch

from acestep_graph.acestep_core.models import oobleck
from acestep_graph.acestep_core.models.oobleck import OobleckConfig, OobleckVAE, Snake
from tests.pack import ROOT
from tests.tiny import randomize

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


@pytest.mark.parametrize("shape", ((1, 3, 1), (2, 3, 4097)))
def test_the_snake_follows_its_formula_and_leaves_its_input_alone(shape):
    snake, draw = Snake(3), torch.Generator().manual_seed(0)
    for parameter in snake.parameters():
        parameter.data = 0.3 * torch.randn(1, 3, 1, generator=draw)
    x = 2 * torch.randn(shape, generator=draw)
    before, exact = x.clone(), x.double()
    alpha, beta = snake.alpha.double().exp(), snake.beta.double().exp()
    with torch.inference_mode():
        made = snake(x)
    wanted = exact + torch.sin(alpha * exact).square() / beta
    assert (made - wanted).abs().max() <= 1e-6 * wanted.abs().max() and torch.equal(x, before)


def test_the_fused_snake_follows_its_formula():
    """In Triton's interpreter, which runs the kernel without a card."""
    pytest.importorskip("triton")
    code = (
        "import torch\n"
        "from tests import pack\n"
        "pack.load()\n"
        "from acestep_graph.acestep_core.models import snake_kernel as fused\n"
        "cpu = torch.device('cpu')\n"
        "assert fused.agrees(cpu, torch.float32) and fused.agrees(cpu, torch.bfloat16)\n"
        "x, rate = torch.randn(2, 5, 1500), torch.rand(1, 5, 1) + 0.5\n"
        "assert (fused.run(x, rate, rate) - (x + (rate * torch.sin(rate * x)) ** 2)).abs().max() < 2e-6\n"
        "assert fused.run(x[..., :0], rate, rate).shape == (2, 5, 0) and fused.kernel_for(x) is None\n"
        "print('same')\n"
    )
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["same"], done.stderr[-2000:]

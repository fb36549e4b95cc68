"""Tiled decoding: our windows and folded weights, against diffusers' tiling and weight normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import torch
from torch import Tensor

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.checkpoints.handles import Autoencoder, LoadReport
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.models import oobleck
from acestep_graph.acestep_core.models.oobleck import OobleckConfig, OobleckVAE, ResidualUnit
from acestep_graph.acestep_core.sampling.conditioning import frames_of
from tests.tiny import published_vae, randomize

from .side_by_side import Row, Setting, alternate, compare

SIZES = {
    "tiny": OobleckConfig(encoder_hidden_size=8, decoder_channels=8, decoder_input_channels=4),
    "middle": OobleckConfig(encoder_hidden_size=32, decoder_channels=32, decoder_input_channels=16),
    "real": OobleckConfig(),
}
"""All of the published shape; middle has a quarter of its width."""


def rows(setting: Setting, seconds: Sequence[float] = (20, 40)) -> list[Row]:
    """Decode random latents of each length, the same random weights on both sides."""
    config = SIZES[setting.size]
    module = calmed(randomize(OobleckVAE(config), seed=0))
    peer = diffusers_copy(module).to(setting.device, setting.dtype)
    ours = Autoencoder(module.to(setting.device, setting.dtype), LoadReport("vae", (), "", "", "", "", 0))
    return [row for length in seconds for row in _one_length(ours, peer, length, setting)]


def calmed(module: OobleckVAE) -> OobleckVAE:
    """Scale down the residual branches, so that random weights give sound of ordinary loudness, not chaos."""
    for part in module.modules():
        if isinstance(part, ResidualUnit):
            part.conv2.weight *= 0.3
    return module


def diffusers_copy(module: OobleckVAE) -> torch.nn.Module:
    """diffusers' AutoencoderOobleck with the weights of ``module``, tiling on as in its pipeline."""
    from diffusers import AutoencoderOobleck

    names = (
        *("encoder_hidden_size", "downsampling_ratios", "channel_multiples", "decoder_channels"),
        *("decoder_input_channels", "audio_channels", "sampling_rate"),
    )
    values = {name: getattr(module.config, name) for name in names}
    peer = AutoencoderOobleck(**{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})
    peer.load_state_dict(published_vae(module), strict=True)
    peer.enable_tiling()
    return peer.eval().requires_grad_(False)


@torch.inference_mode()
def _one_length(ours: Autoencoder, peer: torch.nn.Module, seconds: float, setting: Setting) -> list[Row]:
    channels = ours.module.config.decoder_input_channels
    latents = torch.randn(1, frames_of(seconds), channels, generator=torch.Generator().manual_seed(1))
    host = Host(device=str(setting.device))

    def theirs() -> Tensor:
        return peer.decode(latents.transpose(1, 2).to(setting.device, setting.dtype)).sample.float().cpu()

    def whole() -> Tensor:
        with patch.object(oobleck, "PIECE", 2**40):
            return ours.module.decode(latents.transpose(1, 2).to(setting.device, setting.dtype)).float().cpu()

    def plain_snake() -> Tensor:
        with patch.object(oobleck.Snake, "forward", naive_snake):
            return codec.decode(ours, latents, host=host)

    found = alternate(
        {
            "ours": lambda: codec.decode(ours, latents, host=host),
            "diffusers": theirs,
            "ours, the whole at once": whole,
            "ours, naive snake": plain_snake,
        },
        setting,
    )
    sound = found.pop("ours")
    return [compare(f"{seconds:g} s of sound", sound, name, other) for name, other in found.items()]


def naive_snake(self: oobleck.Snake, x: Tensor) -> Tensor:
    """The activation as its formula is written."""
    return x + (self.beta.exp() + 1e-9).reciprocal() * torch.sin(self.alpha.exp() * x).pow(2)

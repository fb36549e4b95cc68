"""Stage ``vae``: the autoencoder, the engine's own Oobleck.

At the start the 48 kHz ends are a cosine transform with overlapping windows (MDCT, Princen and Bradley 1987) whose
synthesis undoes its analysis, and residual branches are silent: the network begins as a codec in miniature and
learns only what passes the narrow middle. That leaves no seams at the rate of the transform.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from acestep_graph.acestep_core.models.oobleck import (
    OobleckConfig,
    OobleckDecoder,
    OobleckEncoder,
    OobleckVAE,
    ResidualUnit,
    Snake,
)

from .pool import Pool
from .run import Budget, Setup, autocast, draw, noise_of, train, weights_of
from .spectra import spectral_losses

STAGE = "vae"
ROWS = 8
FRAMES = 26
"""Latent frames in a crop, about a second."""
RATE, WARMUP = 6e-4, 200
KL = 0.01
FINE_FROM = 0.7
"""Share of the budget after which the residual units at 48 kHz, most of the cost on a CPU, learn too."""
SMALLEST_SPREAD = 0.05


def make_vae(config: OobleckConfig, seed: int) -> OobleckVAE:
    """A network before training, see above."""
    torch.manual_seed(seed)
    vae = OobleckVAE(config)
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, Snake):
                module.alpha.zero_()
                module.beta.fill_(3.0)
            elif isinstance(module, ResidualUnit):
                module.conv2.weight.zero_()
                module.conv2.bias.zero_()
                module.snake1.beta.zero_()
                module.snake2.beta.zero_()
        stride = config.downsampling_ratios[0]
        first, last = vae.encoder.block[0].conv1, vae.decoder.block[-1].conv_t1
        _pick_sides(vae.encoder.conv1.weight, inward=True)
        _pick_sides(vae.decoder.conv2.weight, inward=False)
        for convolution in (vae.encoder.conv1, first, last):
            convolution.bias.zero_()
        first.weight.copy_(_cosines(first.out_channels, first.in_channels, stride))
        last.weight.copy_(_cosines(last.in_channels, last.out_channels, stride))
        vae.encoder.conv2.bias.chunk(2)[1].fill_(-2.0)
    return vae


def _pick_sides(weight: Tensor, inward: bool) -> None:
    """Middle and side in the first two channels at 48 kHz."""
    weight.zero_()
    centre, half = weight.shape[2] // 2, math.sqrt(0.5)
    for channel, sign in ((0, 1), (1, -1)):
        for side, value in ((0, half), (1, half * sign)):
            weight[(channel, side, centre) if inward else (side, channel, centre)] = value


def _cosines(wide: int, narrow: int, hop: int) -> Tensor:
    """Kernels [wide, narrow, 2·hop]: three quarters of the wide channels for the middle, a quarter for the side."""
    n = torch.arange(2 * hop) + 0.5
    window = torch.sin(math.pi / (2 * hop) * n) * math.sqrt(2 / hop)
    weight = torch.zeros(wide, narrow, 2 * hop)
    split = min(hop, wide * 3 // 4)
    for channel in range(wide):
        side, k = (0, channel) if channel < split else (1, channel - split)
        if k < hop:
            weight[channel, side] = window * torch.cos(math.pi / hop * (n + hop / 2) * (k + 0.5))
    return weight


def encoded(encoder: OobleckEncoder, sound: Tensor, fine: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B, 64, T]; without ``fine`` the residual units at 48 kHz are passed by."""
    x = encoder.conv1(sound)
    for number, block in enumerate(encoder.block):
        if fine or number:
            x = block.res_unit3(block.res_unit2(block.res_unit1(x)))
        x = block.conv1(block.snake1(x))
    mean, scale = encoder.conv2(encoder.snake1(x)).float().chunk(2, dim=1)
    return mean, nn.functional.softplus(scale) + 1e-4


def decoded(decoder: OobleckDecoder, latents: Tensor, fine: bool) -> Tensor:
    """Sound [B, 2, T·hop]; see :func:`encoded`."""
    x = decoder.conv1(latents)
    for number, block in enumerate(decoder.block):
        x = block.conv_t1(block.snake1(x))
        if fine or number < len(decoder.block) - 1:
            x = block.res_unit3(block.res_unit2(block.res_unit1(x)))
    return decoder.conv2(decoder.snake1(x)).float()


def losses_of(vae: OobleckVAE, sound: Tensor, noise: Tensor, fine: bool = True) -> dict[str, Tensor]:
    """Losses of a batch [B, 2, n] with the posterior drawn by ``noise`` [B, 64, T]."""
    with autocast(sound.device):
        mean, spread = encoded(vae.encoder, sound, fine)
        made = decoded(vae.decoder, mean + spread * noise, fine)
    parts = spectral_losses(made, sound)
    kl = (mean.square() + spread.square() - 1 - 2 * spread.log()).mean() / 2
    loss = parts["stft"] + 0.3 * parts["phase"] + 2 * parts["l1"] + KL * kl
    return {"loss": loss, **parts, "kl": kl}


def train_vae(config: OobleckConfig, budget: Budget, setup: Setup, rows: int = ROWS, pool: Pool | None = None) -> int:
    """The stage; see :func:`nano.run.train`."""
    vae = make_vae(config, setup.seed).to(setup.device)
    own = pool or Pool(setup.seed, workers=setup.workers)
    always = setup.device.type != "cpu"

    def step_of(step: int, share: float) -> dict[str, Tensor]:
        random = draw(setup.seed, STAGE, step)
        sound = torch.from_numpy(own.crops(step, rows, FRAMES * config.hop, random))
        noise = torch.randn(rows, config.decoder_input_channels, FRAMES, generator=noise_of(random))
        return losses_of(vae, sound.to(setup.device), noise.to(setup.device), always or share >= FINE_FROM)

    try:
        return train(STAGE, vae, step_of, budget, setup, rate=RATE, warmup=WARMUP, decay=1e-3)
    finally:
        if pool is None:
            own.close()


@torch.no_grad()
def standardised(vae: OobleckVAE, sound: Tensor) -> OobleckVAE:
    """The same autoencoder with latents of mean 0 and variance 1 a channel over ``sound`` [B, 2, n].

    What the posterior adds counts: a channel that carries nothing stays small. The change is folded into the
    encoder's last and the decoder's first convolution.
    """
    mean, spread = vae.encode(sound)
    centre = mean.mean(dim=(0, 2))
    size = (mean.var(dim=(0, 2)) + spread.square().mean(dim=(0, 2))).sqrt().clamp(min=SMALLEST_SPREAD)
    last, first = vae.encoder.conv2, vae.decoder.conv1
    half = len(size)
    first.bias.add_((first.weight * centre[:, None]).sum(dim=(1, 2)))
    first.weight.mul_(size[:, None])
    last.weight[:half].div_(size[:, None, None])
    last.bias[:half].sub_(centre).div_(size)
    # std = softplus(s) + 1e-4 is divided where it is far below 1, as softplus(s) is nearly exp(s) there
    last.bias[half:].sub_(size.log())
    return vae


def load_trained(config: OobleckConfig, setup: Setup, pieces: int = 24) -> OobleckVAE:
    """The trained autoencoder with standardised latents, ready to use."""
    vae = OobleckVAE(config)
    vae.load_state_dict(weights_of(setup, STAGE))
    vae.eval().requires_grad_(False)
    pool = Pool(setup.seed, seconds=5.0, slots=pieces, workers=0)
    sound = torch.from_numpy(pool.crops(0, pieces, 100 * config.hop, draw(setup.seed, STAGE, 0)))
    return standardised(vae, sound)

"""Stage ``vae``: the autoencoder, the engine's own Oobleck.

At the start the network is a linear codec: its 48 kHz ends are a cosine transform with overlapping windows (MDCT,
Princen and Bradley 1987), which leaves no seams; its middle keeps the principal components of a frame of it; residual
branches are silent. What is learned is all that such a codec cannot do.
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
from .run import CHECKPOINT, Budget, Setup, autocast, draw, noise_of, train, weights_of
from .spectra import spectral_losses

STAGE = "vae"
ROWS = 8
FRAMES = 26
"""Latent frames in a crop, about a second."""
FIRST_CROPS = 240
"""Crops that the linear codec is made of."""
RATE, WARMUP = 6e-4, 200
KL = 0.01
LEAST_NOISE = 0.15
"""Standard deviation of what is at least added to latents in training: a diffusion model is never exact."""
FINE_FROM = 0.85
"""Share of the budget after which the residual units at 48 kHz, most of the cost on a CPU, learn too."""
SMALLEST_SPREAD = 0.05
MIDDLE = 0.75
"""Share of the wide channels that hears the middle; the others hear the side."""
TILT = 0.5
"""Coefficients count as frequency to this power: bass has most of the energy, and not most of the music."""


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
    split = _split(wide, hop)
    for channel in range(wide):
        side, k = (0, channel) if channel < split else (1, channel - split)
        if k < hop:
            weight[channel, side] = window * torch.cos(math.pi / hop * (n + hop / 2) * (k + 0.5))
    return weight


def _split(wide: int, hop: int) -> int:
    """How many of the wide channels hear the middle."""
    return min(hop, int(MIDDLE * wide))


@torch.no_grad()
def start_linear(vae: OobleckVAE, sound: Tensor) -> None:
    """Make the middle of a network of two blocks the principal components of its frames over ``sound`` [B, 2, n]."""
    encoder, decoder, config = vae.encoder, vae.decoder, vae.config
    down, up = encoder.block[1].conv1, decoder.block[0].conv_t1
    hop, stride = config.downsampling_ratios
    frames = encoder.block[0].conv1(encoder.conv1(sound)).unflatten(2, (-1, stride)).permute(0, 2, 1, 3).flatten(0, 1)
    wide, wider = down.in_channels, up.out_channels
    split, to = _split(wide, hop), _split(wider, hop)
    bands = torch.cat((torch.arange(split), torch.arange(wide - split))).float() + 1
    weight = (bands**TILT)[:, None].expand(wide, stride).flatten()
    weighted = frames.flatten(1) * weight
    spread, axes = torch.linalg.eigh(weighted.T @ weighted / len(weighted))
    kept = min(config.decoder_input_channels, down.out_channels, up.in_channels)
    spread, axes = spread[-kept:].clamp(min=1e-6).sqrt(), axes[:, -kept:]
    own = slice(stride // 2, stride // 2 + stride)
    places = torch.cat((torch.arange(split), to + torch.arange(wide - split)))
    for convolution in (down, encoder.conv2, decoder.conv1, up):
        convolution.weight.mul_(0.1)
        convolution.bias.zero_()
    down.weight[:kept] = 0
    down.weight[:kept, :, own] = (axes * weight[:, None] / spread).T.unflatten(1, (wide, stride))
    up.weight[:kept] = 0
    up.weight[:kept, places, own] = (axes / weight[:, None] * spread).T.unflatten(1, (wide, stride))
    one = torch.arange(kept)
    encoder.conv2.weight[one, one, 1] = 1.0
    decoder.conv1.weight[one, one, 3] = 1.0
    encoder.conv2.bias.chunk(2)[1].fill_(-2.0)


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
        made = decoded(vae.decoder, mean + spread.clamp(min=LEAST_NOISE) * noise, fine)
    parts = spectral_losses(made, sound)
    kl = (mean.square() + spread.square() - 1 - 2 * spread.log()).mean() / 2
    loss = parts["stft"] + 0.3 * parts["phase"] + 2 * parts["l1"] + KL * kl
    return {"loss": loss, **parts, "kl": kl}


def train_vae(
    config: OobleckConfig, budget: Budget, setup: Setup, rows: int | None = None, pool: Pool | None = None
) -> int:
    """The stage; see :func:`nano.run.train`."""
    vae = make_vae(config, setup.seed)
    rows = rows or setup.rows(ROWS)
    own = pool or Pool(setup.seed, every=max(1, 4 * ROWS // rows), workers=setup.workers)
    if not (setup.place(STAGE) / CHECKPOINT).is_file():
        sound = own.crops(0, FIRST_CROPS, FRAMES * config.hop, draw(setup.seed, f"{STAGE} start", 0))
        start_linear(vae, torch.from_numpy(sound))
    vae = vae.to(setup.device)
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


def load_trained(config: OobleckConfig, setup: Setup, pool: Pool | None = None, pieces: int = 24) -> OobleckVAE:
    """The trained autoencoder with latents standardised over so many crops of 4 s, ready to use."""
    vae = OobleckVAE(config)
    vae.load_state_dict(weights_of(setup, STAGE))
    vae.eval().requires_grad_(False)
    pool = pool or Pool(setup.seed, seconds=5.0, slots=pieces, workers=0)
    sound = torch.from_numpy(pool.crops(0, pieces, 100 * config.hop, draw(setup.seed, STAGE, 0)))
    return standardised(vae, sound)

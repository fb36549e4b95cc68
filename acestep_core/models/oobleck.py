"""The Oobleck autoencoder between 48 kHz stereo sound and 25 Hz latents.

Weight normalisation of the published files is folded when they are loaded, so every convolution here has
one plain ``weight``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .snake_kernel import kernel_for

DILATIONS = (1, 3, 9)
FIRST_KERNEL = 7
REACH = 3 * sum(DILATIONS) + 3
"""Samples that three residual units and one more convolution of :data:`FIRST_KERNEL` see to each side."""

WIDE_STRIDE = 64
"""No published model has a stride above 10."""

PIECE = 2**20
"""Elements of a block's widest tensor that a CPU works on at a time: what it holds in its cache."""


@dataclass(frozen=True)
class OobleckConfig:
    encoder_hidden_size: int = 128
    downsampling_ratios: tuple[int, ...] = (2, 4, 4, 6, 10)
    channel_multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    decoder_channels: int = 128
    decoder_input_channels: int = 64
    audio_channels: int = 2
    sampling_rate: int = 48000
    encoder_base_channels: int | None = None
    """Width of the encoder's first convolution; None (as published) means ``encoder_hidden_size``."""

    @property
    def hop(self) -> int:
        """Samples in one latent frame."""
        return math.prod(self.downsampling_ratios)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> OobleckConfig:
        values = {f.name: config[f.name] for f in fields(cls) if config.get(f.name) is not None}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> OobleckConfig:
        """From the shapes of a state dict with folded weights and this module's names."""
        blocks = 1 + max(int(k.split(".")[2]) for k in shapes if k.startswith("encoder.block."))
        first, audio_channels, _ = shapes["encoder.conv1.weight"]
        convs = [shapes[f"encoder.block.{b}.conv1.weight"] for b in range(blocks)]
        moments = shapes["encoder.conv2.weight"][0]
        return cls(
            encoder_hidden_size=moments,
            downsampling_ratios=tuple(kernel // 2 for _, _, kernel in convs),
            channel_multiples=tuple(out // first for out, _, _ in convs),
            decoder_channels=shapes["decoder.conv2.weight"][1],
            decoder_input_channels=shapes["decoder.conv1.weight"][1],
            audio_channels=audio_channels,
            encoder_base_channels=None if first == moments else first,
        )


class Snake(nn.Module):
    """x + sin²(e^α·x)/(e^β + 1e-9), α and β for each channel, stored as logarithms in [1, C, 1]."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, channels, 1))
        self.beta = nn.Parameter(torch.empty(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        rate, strength = self.alpha.exp(), (self.beta.exp() + 1e-9).rsqrt()
        if torch.is_grad_enabled() and (x.requires_grad or self.alpha.requires_grad):
            return x + (torch.sin(rate * x) * strength).square()
        fused = kernel_for(x)
        if fused is not None:
            return fused(x, rate, strength)
        wave = (x * rate).sin_().mul_(strength)
        return torch.addcmul(x, wave, wave, out=wave)  # no second buffer: fresh memory costs more than the arithmetic


def in_pieces(run: Callable[[Tensor], Tensor], x: Tensor, channels: int, up: int = 1, down: int = 1) -> Tensor:
    """run(x) on a CPU, computed on short overlapping pieces of x [B, C, n]; elsewhere simply run(x).

    A chain of convolutions over minutes of sound spends its time waiting for memory; over pieces that fit
    the cache it is about twice as fast, and the result is the same.

    Args:
        run: sees at most :data:`REACH` samples to each side at its higher rate, apart from one convolution
            that changes the rate.
        channels: width at the higher rate.
        up, down: how many times more, or fewer, samples come out than go in.
    """
    length, rate = x.shape[-1], up * down
    halo = (-(-REACH // rate) + 2) * down
    size = max(PIECE // (x.shape[0] * channels * up), halo) // down * down
    if x.device.type != "cpu" or size >= length:
        return run(x)
    out, done = None, 0
    for start in range(0, length, size):
        before = min(start, halo)
        piece = run(x[..., start - before : start + size + halo])
        piece = piece[..., before // down * up : (before + size) // down * up]
        if out is None:
            out = piece.new_empty(*piece.shape[:2], -(-length // down) * up)
        out[..., done : done + piece.shape[-1]] = piece
        done += piece.shape[-1]
    return out[..., :done]


class ResidualUnit(nn.Module):
    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.snake1 = Snake(channels)
        self.conv1 = nn.Conv1d(channels, channels, FIRST_KERNEL, dilation=dilation, padding=3 * dilation)
        self.snake2 = Snake(channels)
        self.conv2 = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.snake2(self.conv1(self.snake1(x)))).add_(x)


class EncoderBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.channels, self.stride = channels, stride
        self.res_unit1, self.res_unit2, self.res_unit3 = (ResidualUnit(channels, d) for d in DILATIONS)
        self.snake1 = Snake(channels)
        self.conv1 = nn.Conv1d(channels, out, 2 * stride, stride=stride, padding=math.ceil(stride / 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(self.snake1(self.res_unit3(self.res_unit2(self.res_unit1(x)))))


class Upsampling(nn.ConvTranspose1d):
    """A transposed convolution whose kernel is twice its even stride.

    From :data:`WIDE_STRIDE` on it is a matrix product and a sum of what overlaps, with the same result: for such long
    kernels in float32 oneDNN needs a minute before the first sample.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        stride, edge = self.stride[0], self.padding[0]
        if stride < WIDE_STRIDE:
            return super().forward(x, output_size)
        early, late = torch.matmul(self.weight.flatten(1).T, x).unflatten(1, (-1, 2, stride)).unbind(2)
        joined = F.pad(early, (0, 1)) + F.pad(late, (1, 0))
        return joined.transpose(2, 3).flatten(2)[..., edge:-edge] + self.bias[:, None]


class DecoderBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.channels, self.stride = out, stride
        self.snake1 = Snake(channels)
        self.conv_t1 = Upsampling(channels, out, 2 * stride, stride=stride, padding=math.ceil(stride / 2))
        self.res_unit1, self.res_unit2, self.res_unit3 = (ResidualUnit(out, d) for d in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.res_unit3(self.res_unit2(self.res_unit1(self.conv_t1(self.snake1(x)))))


class OobleckEncoder(nn.Module):
    def __init__(self, config: OobleckConfig):
        super().__init__()
        base = config.encoder_base_channels or config.encoder_hidden_size
        widths = [base] + [base * m for m in config.channel_multiples]
        self.conv1 = nn.Conv1d(config.audio_channels, base, FIRST_KERNEL, padding=3)
        pairs = zip(widths, widths[1:], config.downsampling_ratios, strict=False)
        self.block = nn.ModuleList(EncoderBlock(a, b, stride) for a, b, stride in pairs)
        self.snake1 = Snake(widths[-1])
        self.conv2 = nn.Conv1d(widths[-1], config.encoder_hidden_size, 3, padding=1)

    def _first(self, x: Tensor) -> Tensor:
        return self.block[0](self.conv1(x))

    def forward(self, x: Tensor) -> Tensor:
        for run, block in zip((self._first, *self.block[1:]), self.block, strict=True):
            x = in_pieces(run, x, block.channels, down=block.stride)
        return self.conv2(self.snake1(x))


class OobleckDecoder(nn.Module):
    def __init__(self, config: OobleckConfig):
        super().__init__()
        base, multiples = config.decoder_channels, (1, *config.channel_multiples)
        widths = [base * m for m in reversed(multiples)]
        self.conv1 = nn.Conv1d(config.decoder_input_channels, widths[0], FIRST_KERNEL, padding=3)
        pairs = zip(widths, widths[1:], reversed(config.downsampling_ratios), strict=False)
        self.block = nn.ModuleList(DecoderBlock(a, b, stride) for a, b, stride in pairs)
        self.snake1 = Snake(widths[-1])
        self.conv2 = nn.Conv1d(widths[-1], config.audio_channels, FIRST_KERNEL, padding=3, bias=False)

    def _last(self, x: Tensor) -> Tensor:
        return self.conv2(self.snake1(self.block[-1](x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for run, block in zip((*self.block[:-1], self._last), self.block, strict=True):
            x = in_pieces(run, x, block.channels, up=block.stride)
        return x


class OobleckVAE(nn.Module):
    """Sound [B, 2, n] ↔ latents [B, 64, n // hop]."""

    def __init__(self, config: OobleckConfig):
        super().__init__()
        self.config = config
        self.encoder = OobleckEncoder(config)
        self.decoder = OobleckDecoder(config)

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Audio [B, 2, n] in ±1 → mean and standard deviation of the posterior, each [B, 64, n // hop]."""
        mean, scale = self.encoder(audio).chunk(2, dim=1)
        return mean, F.softplus(scale) + 1e-4

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, 64, T] → audio [B, 2, T·hop], not limited to ±1."""
        return self.decoder(latents)

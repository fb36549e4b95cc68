"""The loss curve as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .loss_log import Point

WIDTH, HEIGHT = 960, 480
LEFT, RIGHT, TOP, BOTTOM = 72, 20, 44, 40
SHARPENED = 2
"""Drawn this much larger, then made smaller, so that lines are smooth."""
DARK, GRID, TEXT, RAW, MEAN = (18, 20, 31), (44, 48, 64), (170, 176, 192), (86, 110, 140), (255, 184, 64)
TICKS = 5
INSIDE = 0.98
"""Share of the losses that decide the height of the picture; a few far above run out of it."""


def picture(points: Sequence[Point], title: str = "") -> Tensor:
    """[HEIGHT, WIDTH, 3] in 0…1: every loss in blue, the running mean in yellow, steps from left to right."""
    scale = SHARPENED
    image = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), DARK)
    draw = ImageDraw.Draw(image)
    font = _font(14 * scale)
    draw.text((LEFT * scale, 12 * scale), title or "loss", fill=TEXT, font=font)
    known = [point for point in points if math.isfinite(point.loss) and math.isfinite(point.ema)]
    if not known:
        draw.text((LEFT * scale, HEIGHT * scale // 2), "no steps yet", fill=TEXT, font=font)
        return _tensor(image)
    low, high = _height(known)
    first, last = known[0].step, max(known[-1].step, known[0].step + 1)
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(step: float, value: float) -> tuple[float, float]:
        inside = min(max((value - low) / (high - low), 0.0), 1.0)
        return (LEFT + across * (step - first) / (last - first)) * scale, (TOP + down * (1 - inside)) * scale

    for value in ticks(low, high):
        left, y = place(first, value)
        draw.line((left, y, (WIDTH - RIGHT) * scale, y), fill=GRID, width=scale)
        draw.text((left - 8 * scale, y), f"{value:.4g}", fill=TEXT, font=font, anchor="rm")
    for value in ticks(first, last):
        if value == int(value):
            x, _ = place(value, low)
            draw.text((x, (HEIGHT - BOTTOM + 8) * scale), f"{int(value)}", fill=TEXT, font=font, anchor="mt")
    for column, colour, thick in (("loss", RAW, 1), ("ema", MEAN, 2)):
        line = [place(point.step, getattr(point, column)) for point in thinned(known)]
        if len(line) == 1:
            x, y = line[0]
            draw.ellipse((x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale), fill=colour)
        else:
            draw.line(line, fill=colour, width=thick * scale, joint="curve")
    return _tensor(image)


def thinned(points: Sequence[Point], most: int = 2000) -> list[Point]:
    """At most ``most`` of the points, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    chosen = np.linspace(0, len(points) - 1, most).round().astype(int)
    return [points[index] for index in chosen]


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most + 1`` of them.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    count = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(math.ceil(low / step - 1e-9), count + 1)]


def _height(points: Sequence[Point]) -> tuple[float, float]:
    losses = sorted(point.loss for point in points)
    means = [point.ema for point in points]
    low = min(losses[int((1 - INSIDE) / 2 * (len(losses) - 1))], *means)
    high = max(losses[math.ceil((1 + INSIDE) / 2 * (len(losses) - 1))], *means)
    room = 0.05 * (high - low) or max(abs(high) * 0.1, 1e-6)
    return low - room, high + room


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()


def _tensor(image: Image.Image) -> Tensor:
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)

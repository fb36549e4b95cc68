"""The alignment as a picture: tokens from top to bottom, time from left to right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .timing import Timing

HEIGHT, WIDTH = 480, 960
DARK = torch.tensor([0.07, 0.08, 0.12])
WARM = torch.tensor([1.0, 0.72, 0.25])
LINE = torch.tensor([0.45, 0.85, 1.0])


def picture(timing: Timing | None, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """[height, width, 3] in 0…1: brightness is how strongly a token is heard, the blue line is the path."""
    canvas = DARK.expand(height, width, 3).clone()
    if timing is None:
        return canvas
    tokens, frames = timing.attention.shape
    heat = functional.interpolate(timing.attention[None, None].float(), (height, width), mode="area")[0, 0]
    heat = (heat / heat.max().clamp_min(1e-6)).sqrt()
    canvas = torch.lerp(canvas, WARM.expand_as(canvas), heat[..., None])
    steps = torch.linspace(0, len(timing.path.tokens) - 1, 8 * (height + width)).round().long()
    rows = (torch.from_numpy(timing.path.tokens)[steps].double() + 0.5) * height / tokens
    columns = (torch.from_numpy(timing.path.frames)[steps].double() + 0.5) * width / frames
    for shift in (-1, 0, 1):
        y = (rows.long() + shift).clamp(0, height - 1)
        canvas[y, columns.long().clamp(0, width - 1)] = LINE
    return canvas

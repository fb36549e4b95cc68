"""Lyric timing: the few heads that follow the words, against keeping every head; the path, against cell by cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from acestep_graph.acestep_core.lyrics import alignment
from acestep_graph.acestep_core.models.dit import DiT
from acestep_graph.acestep_core.sampling.conditioning import context, frames_of
from tests.tiny import randomize

from .dit import SIZES
from .side_by_side import GB, Row, Setting, alternate, compare

HEADS = {2: (6,), 3: (10, 11), 4: (3,), 5: (8, 9), 6: (8,)}
"""Of the published 2B models."""
SMALL_HEADS = {0: (1,), 1: (0, 2), 2: (3,)}
OTHER_TOKENS = 500
"""Of caption and timbre, behind the lyrics."""
TOKENS_A_SECOND = 5


@torch.inference_mode()
def rows(setting: Setting, seconds: Sequence[float] = (60, 240)) -> list[Row]:
    """Attention and path of a piece of each length, with as many tokens as a dense lyric has."""
    config = SIZES[setting.size]
    dit = randomize(DiT(config), seed=0).to(setting.device, setting.dtype)
    heads = HEADS if config.num_hidden_layers == 24 else SMALL_HEADS
    return [row for length in seconds for row in _one_length(dit, heads, length, setting)]


def _one_length(dit: DiT, heads: dict[int, tuple[int, ...]], seconds: float, setting: Setting) -> list[Row]:
    config, place = dit.config, {"device": setting.device, "dtype": setting.dtype}
    frames, channels = frames_of(seconds), config.audio_acoustic_hidden_dim
    tokens = int(seconds * TOKENS_A_SECOND)
    draw = torch.Generator().manual_seed(1)
    sequence = torch.randn(1, tokens + OTHER_TOKENS, config.encoder_width, generator=draw).to(**place)
    surroundings = context(torch.randn(1, frames, channels, generator=draw).to(**place))
    x = torch.randn(1, frames, channels, generator=draw).to(setting.device)
    level, words = torch.tensor([0.125], device=setting.device), slice(0, tokens)
    kept: dict[str, int] = {}

    def heard(wanted: dict[int, Sequence[int]], columns: slice, name: str, last: int | None) -> Tensor:
        ready = dit.begin(surroundings, sequence, last=last)
        maps = dit.listening(x, dit.levels(level, ready), ready, wanted, columns)
        kept[name] = sum(part.numel() * part.element_size() for part in maps)
        chosen = [maps[n] for n, layer in enumerate(wanted) if layer in heads]
        if name == "every head":
            chosen = [part[:, list(heads[layer])] for part, layer in zip(chosen, heads, strict=True)]
        return torch.cat([part[0, ..., words] for part in chosen]).transpose(1, 2)

    everything = {layer: range(config.num_attention_heads) for layer in range(config.num_hidden_layers)}
    found = alternate(
        {
            "ours": lambda: heard(heads, words, "ours", max(heads)),
            "every head": lambda: heard(everything, slice(None), "every head", None),
        },
        setting,
    )
    what = f"{seconds:g} s, {tokens} tokens"
    row = compare(f"{what}: attention", found["ours"], "every head kept", found["every head"])
    row |= {"our maps (GB)": kept["ours"] / GB, "their maps (GB)": kept["every head"] / GB}

    cost = -alignment.consensus(found["ours"].result).double().numpy()
    paths = alternate({"ours": lambda: _steps(alignment.warp(cost)), "cells": lambda: cell_by_cell(cost)}, setting)
    path = compare(f"{what}: path", paths["ours"], "cell by cell", paths["cells"])
    path |= {"our maps (GB)": cost.size / GB, "their maps (GB)": cost.size * 5 / GB}
    return [row, path]


def _steps(path: alignment.Path) -> Tensor:
    return torch.from_numpy(np.stack([path.tokens, path.frames]))


def cell_by_cell(cost: np.ndarray) -> Tensor:
    """The same path as the definition has it: one cell after another, with every sum and step kept."""
    rows, columns = cost.shape
    table = np.full((rows + 1, columns + 1), np.inf, np.float32)
    came = np.full((rows + 1, columns + 1), 2, np.int8)
    table[0, 0] = 0
    for i in range(1, rows + 1):
        above, here, costs = table[i - 1].tolist(), [float("inf")] * (columns + 1), cost[i - 1].tolist()
        for j in range(1, columns + 1):
            across, token, frame = above[j - 1], above[j], here[j - 1]
            if across < token and across < frame:
                best, came[i, j] = across, 0
            elif token < across and token < frame:
                best, came[i, j] = token, 1
            else:
                best = frame
            here[j] = float(np.float32(costs[j - 1] + best))
        table[i] = here
    came[0, :], came[:, 0] = 2, 1
    i, j, path = rows, columns, []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return torch.tensor(path[::-1]).T

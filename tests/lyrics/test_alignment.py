"""The path through the attention, and what is measured along it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.lyrics import alignment, sung

SIZES = st.tuples(st.integers(1, 14), st.integers(1, 18))


def cheapest(cost):
    """The table cell by cell, as the definition has it."""
    rows, columns = cost.shape
    table = np.full((rows + 1, columns + 1), np.inf, np.float32)
    table[0, 0] = 0
    came = np.zeros((rows + 1, columns + 1), int)
    for j in range(1, columns + 1):
        for i in range(1, rows + 1):
            across, token, frame = table[i - 1, j - 1], table[i - 1, j], table[i, j - 1]
            if across < token and across < frame:
                best, came[i, j] = across, 0
            elif token < across and token < frame:
                best, came[i, j] = token, 1
            else:
                best, came[i, j] = frame, 2
            table[i, j] = cost[i - 1, j - 1] + best
    came[0, :], came[:, 0] = 2, 1
    i, j, path = rows, columns, []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return path[::-1]


@settings(deadline=None, max_examples=80)
@given(SIZES, st.integers(0, 2**31), st.booleans())
def test_the_path_is_that_of_the_definition_ties_included(size, seed, coarse):
    cost = np.random.default_rng(seed).normal(size=size)
    cost = np.round(cost) if coarse else cost
    path = alignment.warp(cost)
    assert list(zip(path.tokens.tolist(), path.frames.tolist(), strict=True)) == cheapest(cost)


@settings(deadline=None, max_examples=50)
@given(SIZES, st.integers(1, 4), st.integers(0, 2**31))
def test_a_path_passes_every_token_in_order_and_covers_the_music(size, heads, seed):
    attention = torch.rand(heads, *size, generator=torch.Generator().manual_seed(seed))
    path = alignment.align(attention)
    assert (path.tokens[0], path.frames[0]) == (0, 0)
    assert (path.tokens[-1] + 1, path.frames[-1] + 1) == size
    assert (np.diff(path.tokens) >= 0).all() and (np.diff(path.frames) >= 0).all()
    first, last = path.spans(size[0])
    assert (first <= last).all() and (first[1:] >= last[:-1]).all()


@pytest.mark.parametrize("value", (0.0, 0.25))
def test_flat_attention_is_no_error(value):
    flat = torch.full((3, 5, 9), value)
    assert torch.isfinite(alignment.consensus(flat)).all()
    assert not alignment.energy(flat).any()
    measures = sung.measure(flat, np.ones(5, bool))
    assert (measures.coverage, measures.score) == (0.0, 0.0)


def diagonal(tokens, frames, width=1.5):
    """Attention of a piece that sings its tokens one after the other."""
    row, column = torch.arange(tokens)[:, None] / tokens, torch.arange(frames)[None] / frames
    return torch.exp(-(((row - column) * tokens / width) ** 2))[None].repeat(2, 1, 1)


def test_a_piece_that_sings_its_words_in_order_scores_high():
    clear, sings = diagonal(20, 200), np.ones(20, bool)
    assert sung.measure(clear, sings).score > 0.6
    assert sung.measure(clear.flip(1), sings).score < 0.1
    noise = torch.rand(2, 20, 200, generator=torch.Generator().manual_seed(1))
    assert sung.measure(noise, sings).score < sung.measure(clear, sings).score


def test_the_path_finds_the_words_where_they_are():
    path = alignment.align(diagonal(20, 200))
    first, last = path.spans(20)
    middle = (first + last) / 2
    assert np.abs(middle - np.arange(20) * 10).max() < 8


def test_long_lyrics_do_not_need_a_second_copy_of_everything(monkeypatch):
    """The whole stack is never sorted at once: the median is taken head by head."""
    sizes = []
    median = np.median
    monkeypatch.setattr(np, "median", lambda x, **given: sizes.append(x.size) or median(x, **given))
    alignment.consensus(torch.rand(7, 30, 40))
    assert max(sizes) == 30 * 40 and len(sizes) == 14

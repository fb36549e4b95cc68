"""Filters and draws, beside plain forms of them that sort everything."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.lm.settings import PlannerSettings
from acestep_graph.acestep_core.lm.token_sampling import bisect_floor, choose, top_p_floor

FREE = PlannerSettings(temperature=1.0, top_p=1.0)


def floor_by_sorting(row, share):
    values = row.double().sort(descending=True).values
    before = values.cumsum(0) - values
    kept = max(1, int((before <= share).sum()))
    return float(values[kept - 1])


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 3000),
    spread=st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0]),
    share=st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.9, 0.99, 0.999]),
    masked=st.booleans(),
)
def test_top_p_without_a_sort_is_top_p(seed, size, spread, share, masked):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, size, generator=draw) * spread
    if masked and size > 1:
        scores[:, ::2] = float("-inf")
    rows = scores.softmax(-1)
    expected = [floor_by_sorting(row, share) for row in rows]
    for find in (top_p_floor, bisect_floor):
        for row, floor, wanted in zip(rows, find(rows, share)[:, 0].tolist(), expected, strict=True):
            mass_above_the_lower = float(row[row > min(floor, wanted)].double().sum())
            on_the_line = abs(mass_above_the_lower - share) < 1e-5  # where the rounding of sums decides
            assert floor == wanted or on_the_line


def test_draws_follow_the_probabilities():
    scores = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    draws = (torch.arange(800) + 0.5) / 800
    counts = torch.bincount(choose(scores.expand(800, -1), draws, FREE), minlength=4)
    assert counts.tolist() == [400, 200, 100, 100]


@pytest.mark.parametrize(
    "settings_, allowed",
    (
        (PlannerSettings(temperature=0.0), {0}),
        (PlannerSettings(temperature=1.0, top_p=1.0, top_k=2), {0, 1}),
        (PlannerSettings(temperature=1.0, top_p=0.6), {0, 1}),
        (PlannerSettings(temperature=1.0, top_p=0.0), {0}),
        (PlannerSettings(temperature=1.0, top_p=1.0, min_p=0.5), {0, 1}),
        (FREE, {0, 1, 2, 3}),
    ),
)
def test_filters_leave_what_they_should(settings_, allowed):
    scores = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    draws = torch.linspace(0, 1, 101)
    assert set(choose(scores.expand(101, -1), draws, settings_).tolist()) == allowed


def test_a_draw_of_almost_one_takes_no_forbidden_token():
    scores = torch.tensor([[0.0, 1.0, float("-inf"), float("-inf")]])
    nearly = torch.nextafter(torch.tensor([1.0]), torch.tensor([0.0]))
    assert choose(scores, nearly, FREE).tolist() == [1]
    assert choose(scores, torch.tensor([1.0]), FREE).tolist() == [1]


def test_rows_do_not_touch_each_other():
    draw = torch.Generator().manual_seed(3)
    scores, draws = torch.randn(6, 500, generator=draw) * 3, torch.rand(6, generator=draw)
    chosen = PlannerSettings(top_k=40, min_p=0.01)
    together = choose(scores, draws, chosen)
    alone = torch.cat([choose(scores[i : i + 1], draws[i : i + 1], chosen) for i in range(6)])
    assert torch.equal(together, alone)

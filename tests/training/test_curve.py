"""The picture of a run: there for any points, with the line where the losses are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.training import curve
from acestep_graph.acestep_core.training.loss_log import Point

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


def points(losses):
    return [Point(step, 1, loss, loss, 1e-4, 1.0) for step, loss in enumerate(losses, start=1)]


@settings(max_examples=20, deadline=None)
@given(st.lists(NUMBERS, max_size=8))
def test_it_is_a_picture_whatever_the_losses_are(losses):
    image = curve.picture(points(losses), "run")
    assert image.shape == (curve.HEIGHT, curve.WIDTH, 3)
    assert float(image.min()) >= 0 and float(image.max()) <= 1


def mean_line(image):
    """Row of the yellow line in each column where there is one."""
    array = image.numpy()
    yellow = (array[..., 0] > 0.7) & (array[..., 2] < 0.5)
    return {column: float(np.mean(np.flatnonzero(yellow[:, column]))) for column in np.flatnonzero(yellow.any(axis=0))}


def test_the_mean_falls_from_left_to_right_where_the_loss_does():
    rows = mean_line(curve.picture(points([2 - step / 100 for step in range(100)])))
    columns = sorted(rows)
    assert columns[0] < curve.LEFT + 5 and columns[-1] > curve.WIDTH - curve.RIGHT - 5
    heights = [rows[column] for column in columns]
    assert all(later >= before - 1 for before, later in zip(heights, heights[1:], strict=False))
    assert heights[-1] - heights[0] > 300


def test_a_few_wild_losses_do_not_flatten_the_rest():
    losses = [1 + 0.5 * math.cos(step / 50) for step in range(400)]
    losses[200] = 1e6
    tame = [Point(p.step, 1, p.loss, min(p.loss, 2.0), 1e-4, 1.0) for p in points(losses)]
    heights = mean_line(curve.picture(tame)).values()
    assert max(heights) - min(heights) > 200


@given(st.integers(0, 5000), st.integers(1, 300))
def test_thinning_keeps_the_ends_and_the_order(count, most):
    kept = curve.thinned(points([1.0] * count), most)
    assert len(kept) == min(count, most)
    steps = [point.step for point in kept]
    assert steps == sorted(set(steps))
    if count and most > 1:
        assert (steps[0], steps[-1]) == (1, count)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (1, 2), (0.13, 0.131), (1, 100000), (-3.0, 7.5)])
def test_ticks_are_round_and_few(low, high):
    found = curve.ticks(low, high)
    assert 2 <= len(found) <= curve.TICKS + 1
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    gaps = {round(b - a, 9) for a, b in zip(found, found[1:], strict=False)}
    assert len(gaps) == 1

"""Slopes are found through noise, and none is found where there is none."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.measure.slope import MOST_POINTS, binned, theil_sen

numbers = st.floats(-1e3, 1e3)


@given(st.integers(3, 700), numbers, numbers)
def test_a_straight_line_has_its_slope(n: int, slope: float, start: float) -> None:
    found = theil_sen([start + slope * i for i in range(n)])
    assert (found.low, found.value, found.high) == pytest.approx((slope,) * 3, abs=1e-6)


def test_outliers_do_not_bend_it() -> None:
    values = [1.0 + 0.01 * i for i in range(100)]
    for i in range(5, 100, 10):
        values[i] *= 50
    assert theil_sen(values).value == pytest.approx(0.01, rel=0.2)


@given(st.lists(numbers, min_size=3, max_size=60), numbers, st.floats(0.1, 10))
def test_shift_and_scale_do_what_they_should(values: list[float], shift: float, scale: float) -> None:
    a, b = theil_sen(values), theil_sen([scale * v + shift for v in values])
    assert (b.low, b.value, b.high) == pytest.approx((scale * a.low, scale * a.value, scale * a.high), abs=1e-6)
    assert a.low <= a.value <= a.high


@pytest.mark.parametrize("n", [0, 1, 2])
def test_two_points_make_no_slope(n: int) -> None:
    assert not theil_sen([1.0] * n).known


def test_the_interval_covers_no_slope_as_often_as_it_says() -> None:
    draw = random.Random(1)
    runs = 300
    missed = sum(theil_sen([draw.expovariate(1) for _ in range(40)]).excludes(0.0) for _ in range(runs))
    assert missed / runs <= 0.08


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_neighbours_that_are_alike_are_no_slope(kept: float) -> None:
    draw, runs, missed = random.Random(3), 100, 0
    for _ in range(runs):
        level, values = 0.0, []
        for _ in range(200):
            level = kept * level + draw.gauss(0, 1)
            values.append(level + draw.gauss(0, 1))
        missed += theil_sen(values).excludes(0.0)
    assert missed / runs <= 0.15


def test_a_true_slope_is_found_in_heavy_tailed_noise() -> None:
    draw = random.Random(2)
    values = [0.01 * (1 + i / 2000) + 0.002 * draw.paretovariate(1.5) for i in range(2000)]
    slope = theil_sen(values)
    assert slope.low > 0
    assert slope.value * len(values) == pytest.approx(0.01, rel=0.2)


@given(st.integers(0, 2000))
def test_bins_cover_all_values_once(n: int) -> None:
    x, y = binned(list(range(n)))
    assert len(x) == len(y) == min(n, MOST_POINTS)
    assert all(math.isclose(a, b, abs_tol=0.5) for a, b in zip(x, y, strict=True))

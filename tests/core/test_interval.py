"""Intervals say what they promise."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.core.interval import Interval, student_t

seconds = st.floats(1e-6, 1e3)


@pytest.mark.parametrize(
    ("dof", "level", "quantile"),
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (5, 0.95, 2.571), (10, 0.99, 3.169), (19, 0.95, 2.093), (200, 0.95, 1.972)],
)
def test_student_t_agrees_with_the_printed_table(dof: int, level: float, quantile: float) -> None:
    assert student_t(dof, level) == pytest.approx(quantile, abs=2e-3)


@given(st.lists(seconds, min_size=1, max_size=80))
def test_mean_and_median_lie_within_their_intervals(samples: list[float]) -> None:
    for x in (Interval.of_mean(samples), Interval.of_median(samples)):
        assert x.low <= x.value <= x.high
        assert x.n == len(samples)


def test_a_constant_is_known_exactly() -> None:
    x = Interval.of_mean([0.25] * 50)
    assert (x.low, x.value, x.high) == pytest.approx((0.25, 0.25, 0.25))


def test_the_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    draw = random.Random(7)
    hits = sum(not Interval.of_mean([draw.gauss(1, 0.2) for _ in range(100)]).excludes(1.0) for _ in range(400))
    assert 0.92 <= hits / 400 <= 0.98


def test_the_interval_of_a_median_covers_as_often_as_it_says() -> None:
    draw = random.Random(7)
    runs = [[draw.lognormvariate(0, 1) for _ in range(60)] for _ in range(400)]
    assert 0.92 <= sum(not Interval.of_median(run).excludes(1.0) for run in runs) / 400 <= 0.98


def test_steps_that_follow_the_mood_of_the_machine_do_not_pass_for_independent_ones() -> None:
    """Neighbours are alike for ten steps on end: of single steps the interval would be a third as wide as due."""
    draw = random.Random(7)
    hits = 0
    for _ in range(300):
        moods = [draw.gauss(1, 0.2) for _ in range(40)]
        hits += not Interval.of_mean([mood + draw.gauss(0, 0.02) for mood in moods for _ in range(10)]).excludes(1.0)
    assert 0.91 <= hits / 300 <= 0.98


def test_no_samples_is_unknown_not_zero() -> None:
    for x in (Interval.of_mean([]), Interval.of_median([])):
        assert not x.known and math.isnan(x.value)


def test_an_interval_must_hold_its_value() -> None:
    with pytest.raises(ValueError, match="low <= value <= high"):
        Interval(1.0, 2.0, 3.0)


@given(seconds, st.floats(0.1, 10))
def test_scaling_keeps_the_relative_width(value: float, factor: float) -> None:
    x = Interval(value, value * 0.9, value * 1.1).scaled(factor, "ms")
    assert x.unit == "ms"
    assert (x.low / x.value, x.high / x.value) == pytest.approx((0.9, 1.1))

"""No more digits than the interval allows, and unknown is not zero."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.core.interval import Interval
from hasten.report.figures import (
    aligned,
    duration,
    figure,
    level_of,
    percent,
    size,
    span_times,
    speedup,
    time_unit,
    times,
)


def around(value: float, half: float, unit: str = "s", level: float = 0.95) -> Interval:
    return Interval(value, value - half, value + half, unit, level, 30)


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (99.2345, 0.7, ("99.2", "±0.7")),
        (99.2345, 0.13, ("99.23", "±0.13")),
        (452.6, 82.0, ("450", "±80")),
        (452.6, 123.0, ("450", "±120")),
        (0.0312, 0.0004, ("0.0312", "±0.0004")),
        (10.0, 0.96, ("10.0", "±1.0")),
        (-0.01, 0.4, ("0.0", "±0.4")),
    ],
)
def test_value_and_half_width_are_rounded_together(value: float, half: float, shown: tuple[str, str]) -> None:
    x = figure(around(value, half))
    assert (x.value, x.plus_minus) == shown


def test_an_interval_that_is_too_narrow_for_its_digits_is_not_said_to_be_none() -> None:
    assert figure(around(0.5, 0.0004), most=2).plus_minus == "±0.01"
    assert figure(around(0.5, 0.0), most=2).plus_minus == ""


def test_unknown_is_a_dash() -> None:
    nothing = Interval(math.nan, math.nan, math.nan)
    for x in (None, nothing):
        assert figure(x).value == figure(x).span == times(x) == span_times(x) == "–"
    assert percent(math.nan, 1) == duration(math.inf) == size(math.nan) == "–"


def test_an_interval_without_ends_shows_none() -> None:
    for x in (Interval(0.123, -math.inf, math.inf), Interval(1.234, 1e-3, 1e3, "ratio", 0.99, 3)):
        assert figure(x).span == "–"
        assert figure(x).value in ("0.12", "1.2")


@pytest.mark.parametrize(
    ("low", "value", "high", "shown"),
    [
        (2.27, 2.31, 2.35, "2.27–2.35"),
        (0.992, 1.001, 1.012, "0.99–1.01"),
        (1.004, 1.02, 1.04, "1.004–1.040"),
        (0.96, 0.98, 0.996, "0.960–0.996"),
        (1.57, 2.02, 2.6, "1.6–2.6"),
        (1.0, 1.0, 1.0, "1.00"),
    ],
)
def test_a_speedup_does_not_touch_one_by_rounding(low: float, value: float, high: float, shown: str) -> None:
    assert speedup(Interval(value, low, high, "ratio", 0.99, 40)).span == shown


@given(st.floats(1e-7, 1e4), st.floats(1e-4, 0.9))
def test_rounding_moves_the_value_by_less_than_its_interval(value: float, relative: float) -> None:
    half = value * relative
    assert abs(float(figure(around(value, half), most=30).value) - value) <= 0.51 * half


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0031, "3.1 ms"), (0.41, "0.41 s"), (2.44, "2.4 s"), (12.3, "12 s"), (59.4, "59 s"), (59.7, "1 min"),
        (108, "1 min 48 s"), (3600, "1 h"), (7500, "2 h 5 min"), (273600, "3 d 4 h"), (0, "0.00 s"),
    ],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_sizes_units_shares_and_levels() -> None:
    assert (size(412e3), size(1.34e9), size(7)) == ("412 kB", "1.3 GB", "7 B")
    assert [time_unit(s).name for s in (12, 0.1, 1e-4)] == ["s", "ms", "µs"]
    assert [percent(s, 1) for s in (0.618, 0.0001, 0)] == ["61.8 %", "<0.1 %", "0.0 %"]
    assert level_of([around(1, 0.1, level=0.99), None]) == "99 %"
    assert level_of([around(1, 0.1), around(1, 0.1, level=0.99)]) == "interval"
    assert level_of([around(1, 0.1, level=0.96875), around(1, 0.1, level=0.97)]) == "97 %"


def test_decimal_points_stand_in_one_column() -> None:
    cells = ["99.2", "12.31", "450", "–", "2.31×", ""]
    shown = [c.rjust(8) for c in aligned(cells)]
    assert {s.index(".") for s in shown if "." in s} == {4}
    assert shown[2].rstrip()[-1] == "0" and len(shown[2].rstrip()) == 4
    assert aligned(["–"]) == ["–"]

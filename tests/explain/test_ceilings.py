"""Ceilings: times and speed-ups say the same, whatever a busy machine does to some steps."""

from __future__ import annotations

import pytest

from hasten.core.interval import Interval
from hasten.explain.ceilings import TOO_FEW, paired


def test_times_and_speedup_agree_where_some_steps_are_slow() -> None:
    without = [0.016 + i * 1e-5 for i in range(20)]
    with_ = [0.0005] * 18 + [0.006, 0.009]  # means would say 16.1 / 1.2
    found = paired(without, with_, [0.014] * 20)
    assert found.as_is is not None and found.data_free is not None and found.data_free_ratio is not None
    assert found.as_is.value / found.data_free.value == pytest.approx(found.data_free_ratio.value)
    assert found.data_free_ratio.value == pytest.approx(32, rel=0.05)
    assert found.data_free.low < found.data_free.value < found.data_free.high
    assert "medians" in found.method


def test_too_few_steps_tell_nothing_but_why() -> None:
    found = paired([0.1, 0.1], [0.1], [], TOO_FEW)
    assert (found.as_is, found.data_free, found.model_free) == (None, None, None)
    assert "fewer than 3 such steps were taken in 8 s" in found.why_not
    assert isinstance(paired([0.1] * 3, [0.1] * 3, [0.1] * 3).model_free, Interval)

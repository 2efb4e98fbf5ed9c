"""Parts of a step are known no better than the step."""

from __future__ import annotations

from hasten.core.interval import Interval
from hasten.seams.collect import _part


def test_a_lines_share_of_a_time_is_no_better_known_than_the_time() -> None:
    """A report had ``forward 500 ±200 ms`` and, below it, its one line with ``530 ±2 ms``."""
    whole = Interval(0.5, 0.3, 0.7, "s", 0.95, 60)
    line = _part(whole, 0.98, 0.004, 1000)
    assert line.value == 0.49 and 0.29 < line.low < 0.301 and 0.68 < line.high < 0.69
    exact = _part(Interval(0.5, 0.5, 0.5, "s", 0.95, 60), 0.5, 0.1, 100)
    assert (exact.low, exact.value, exact.high) == (0.2, 0.25, 0.3)
    assert _part(Interval(0.5, 0.1, 0.9, "s", 0.95, 2), 0.02, 0.02, 4).low == 0.0

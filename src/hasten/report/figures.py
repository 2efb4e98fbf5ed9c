"""Numbers as people read them: no more digits than the interval allows, and unknown is ``–``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hasten.core.interval import Interval

UNKNOWN = "–"
BOUNDLESS = 900.0  # a ratio's interval that reaches from 1/900 to 900 knows nothing
TWO_DIGITS_BELOW = 2.0  # an error that starts with 1 shows two digits, any other shows one


class Figure(NamedTuple):
    """An interval in digits: value, half width, and both ends, all to the same decimal place."""

    value: str
    half: str
    low: str
    high: str

    @property
    def plus_minus(self) -> str:
        return f"±{self.half}" if self.half not in ("", UNKNOWN) else self.half

    @property
    def span(self) -> str:
        if UNKNOWN in (self.low, self.high):
            return UNKNOWN
        return self.low if self.low == self.high else f"{self.low}–{self.high}"


NOTHING = Figure(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)


class Unit(NamedTuple):
    """A unit of time: its name, and how many of it a second holds."""

    name: str
    per_second: float


def time_unit(seconds: float) -> Unit:
    """The unit in which a step of so many seconds reads well."""
    if seconds >= 10:
        return Unit("s", 1.0)
    if seconds < 5e-4:
        return Unit("µs", 1e6)
    return Unit("ms", 1e3)


def decimals(error: float, two_below: float = TWO_DIGITS_BELOW) -> int:
    """The decimal place at which ``error`` (> 0) shows its first digit, or two where that is below ``two_below``.

    Negative places are tens and hundreds.
    """
    exponent = math.floor(math.log10(error))
    return 1 - exponent if round(error / 10**exponent, 1) < two_below else -exponent


def significant(x: float, digits: int) -> int:
    """The decimal place that leaves ``x`` so many significant digits."""
    return digits - 1 - (math.floor(math.log10(abs(x))) if x else 0)


def fixed(x: float, place: int) -> str:
    """``x`` to a decimal place; ``–`` where it is not a finite number."""
    if not math.isfinite(x):
        return UNKNOWN
    text = f"{round(x, place):.{max(place, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def figure(x: Interval | None, factor: float = 1.0, most: int = 6, least: int = -99) -> Figure:
    """Value and interval rounded together, by the interval's first digit or two.

    Args:
        x: what is known; None or NaN gives ``–``.
        factor: from the interval's unit to the unit shown.
        most: never more digits behind the point than this.
        least: never fewer of the value, whatever its interval: a sum and its parts must not be rounded apart.
    """
    if x is None or not x.known:
        return NOTHING
    if not bounded(x):
        value = x.value * factor
        return Figure(fixed(value, min(significant(value, 2), most)), UNKNOWN, UNKNOWN, UNKNOWN)
    half = (x.high - x.low) / 2 * factor
    place = decimals(half) if half > 0 else significant(x.value * factor, 3)
    rounded = _rounded(x, factor, min(place, most))
    return rounded._replace(value=fixed(x.value * factor, least)) if place < least else rounded


def speedup(x: Interval | None, most: int = 3) -> Figure:
    """A ratio, to two decimals where that will do, but never so that an end seems to touch 1 when it does not."""
    if x is None or not x.known or not bounded(x):
        return figure(x, most=2)
    half = (x.high - x.low) / 2
    place = decimals(half) if half > 0 else 2
    place = min(place if place <= 2 else decimals(half, 1.0), most)
    while place < most and (x.low > 1 >= round(x.low, place) or x.high < 1 <= round(x.high, place)):
        place += 1
    return _rounded(x, 1.0, max(place, 0))


def _rounded(x: Interval, factor: float, place: int) -> Figure:
    half = (x.high - x.low) / 2 * factor
    shown = fixed(max(half, 10.0**-place), place) if half > 0 else ""
    return Figure(fixed(x.value * factor, place), shown, fixed(x.low * factor, place), fixed(x.high * factor, place))


def bounded(x: Interval) -> bool:
    """Whether the interval says anything at all."""
    if not (math.isfinite(x.low) and math.isfinite(x.high)):
        return False
    return not (x.unit == "ratio" and x.low < 1 / BOUNDLESS and x.high > BOUNDLESS)


def times(x: Interval | None) -> str:
    """A speed-up: ``2.31×``."""
    value = speedup(x).value
    return value if value == UNKNOWN else f"{value}×"


def span_times(x: Interval | None) -> str:
    """A predicted range of speed-ups: ``1.6–2.6×``."""
    span = speedup(x, 2).span
    return span if span == UNKNOWN else f"{span}×"


def percent(share: float, place: int) -> str:
    """A share: ``61.8 %``; one too small for its place is ``<0.1 %``, not 0."""
    least = 10.0**-place
    if not math.isfinite(share):
        return UNKNOWN
    if 0 < share * 100 < least / 2:
        return f"<{fixed(least, place)} %"
    return f"{fixed(share * 100, place)} %"


def level_of(intervals: Iterable[Interval | None]) -> str:
    """What to write above a column of intervals: ``99 %``, or ``interval`` where levels differ."""
    levels = {x.level for x in intervals if x is not None and x.known and x.level < 1}
    shown = {f"{level * 100:.{0 if level <= 0.99 else 1}f} %" for level in levels}
    return shown.pop() if len(shown) == 1 else "interval"


def duration(seconds: float) -> str:
    """``3.1 ms``, ``0.41 s``, ``12 s``, ``1 min 48 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if 0 < seconds < 0.0995:
        return f"{fixed(seconds * 1e3, significant(seconds * 1e3, 2))} ms"
    if seconds < 59.5:
        return f"{fixed(seconds, 2 if seconds < 1 else 1 if seconds < 10 else 0)} s"
    for small, big, size, each in (("s", "min", 60, 1), ("min", "h", 60, 60), ("h", "d", 24, 3600)):
        count = round(seconds / each)
        if count < size * size or big == "d":
            rest = f" {count % size} {small}" if count % size else ""
            return f"{count // size} {big}{rest}"
    raise AssertionError("unreachable")


def size(count: float) -> str:
    """Bytes in decimal units: ``412 kB``, ``1.3 GB``."""
    if not math.isfinite(count):
        return UNKNOWN
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= each:
            return f"{fixed(count / each, 1 if abs(count) < 10 * each else 0)} {unit}"
    return f"{fixed(count, 0)} B"


def aligned(cells: Sequence[str]) -> list[str]:
    """Cells padded on the right so that, set flush right, their decimal points stand in one column."""
    tails = [_tail(cell) for cell in cells]
    widest = max(tails, default=0)
    return [c + " " * (widest - t) if any(map(str.isdigit, c)) else c for c, t in zip(cells, tails, strict=True)]


def _tail(cell: str) -> int:
    """Characters from the last decimal point on, or behind the last digit where there is no point."""
    digits = [i for i, c in enumerate(cell) if c.isdigit()]
    if not digits:
        return 0
    start = digits[-1]
    while start > 0 and cell[start - 1].isdigit():
        start -= 1
    point = start - 1 if start > 0 and cell[start - 1] == "." else digits[-1] + 1
    return len(cell) - point

"""When a key's rows were: their order, steps between them that are longer than usual, rows of one time."""

from __future__ import annotations

import contextlib
import datetime
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.core.errors import UsageError
from hasten.fleet.arrays import Array

USUAL = 0.9  # of a key's steps in time are no longer than what counts as usual: weekends between working days are
LONGER = 1.5  # times as long as usual is a gap; months differ by less
_WEEK = re.compile(r"\d{4}-?W\d{2}(-?\d)?")  # an ISO week, or a day of it, which NumPy does not read
YEARS = 1900, 2100  # in which whole numbers are taken for days, months or weeks
DATES, NUMBERS = "dates", "numbers"  # what a column of times is read as, or one of ``_CALENDAR``

Times = npt.NDArray[np.float64]


def in_order(times: Array, name: str, read: str = "") -> tuple[npt.NDArray[np.int64], Times | None, str]:
    """The order of a column of times, the column as numbers, and what it was read as.

    Args:
        read: what this column was read as before: some of its rows may read as something else by themselves.

    Returns:
        (rows,), int64; and (rows,), float64, of dates microseconds since 1970 in UTC; None where they are neither dates
        nor numbers; and ``DATES``, ``NUMBERS``, one of ``_CALENDAR``, or "".

    Raises:
        UsageError: they are of several kinds, text that is no ISO date, or not what they were ``read`` as.
    """
    try:
        if times.dtype.kind in "OU" and any(isinstance(time, str) for time in times):
            whole = all(isinstance(time, str) and time.isdecimal() for time in times)  # "20240131" is no year
            times = times.astype(np.int64) if whole else _dated(times)  # "9/1/2024" would come behind "10/1/2024"
        as_ = ""
        if times.dtype.kind in "iuf" and len(times):
            times, as_ = _calendar(times, read)
        order: npt.NDArray[np.int64] = np.argsort(times, kind="stable")
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"column {name!r} cannot be sorted: {error}", "times of several kinds, or text that is no ISO date",
            "dates or numbers only; text as 2024-01-31 12:00",
        ) from None  # fmt: skip
    found = _numbers(times)
    if found is not None and len(found) and not as_:
        as_ = DATES if times.dtype.kind in "Mm" or hasattr(times[0], "year") else NUMBERS
    if read and as_ and as_ != read and (NUMBERS in (as_, read) or DATES not in (as_, read)):
        raise UsageError(
            f"column {name!r} was read as {read} when the fleet was trained, and these rows hold {as_}",
            "times are written in another way than before: 202401 reads as a month until there is a 202413",
            "the column as it was, or dates such as 2024-01-31 from the start",
        )
    return order, found, as_


def _dated(texts: Array) -> Array:
    if all(isinstance(text, str) and _WEEK.fullmatch(text) for text in texts):
        return np.array([datetime.date.fromisoformat(text) for text in texts], "datetime64[D]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a zone, which is taken into account
        found: Array = texts.astype("datetime64[us]")
    return found


def _calendar(times: Array, read: str) -> tuple[Array, str]:
    """Whole numbers that all read as days (20240131), all as months (202401), or all as weeks (202452), as dates;
    others as they are. With what they were read as.

    From the last day of a month to the next one is a day, and not 70.
    """
    whole = np.trunc(times) if times.dtype.kind == "f" else times
    if read != NUMBERS and (whole == times).all() and np.abs(whole).max() < 2**53:
        for name, dated in _CALENDAR.items():
            found = dated(whole.astype(np.int64)) if read in ("", DATES, name) else None
            if found is not None:
                return found, name
    return times, NUMBERS


def _days(times: npt.NDArray[np.int64]) -> Array | None:
    year, rest = np.divmod(times, 10_000)
    return _date(year, *np.divmod(rest, 100))


def _months(times: npt.NDArray[np.int64]) -> Array | None:
    year, month = np.divmod(times, 100)
    return _date(year, month, np.ones_like(month))


def _date(year: Array, month: Array, day: Array) -> Array | None:
    if not (_in_years(year) and (month >= 1).all() and (month <= 12).all() and (day >= 1).all() and (day <= 31).all()):
        return None
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    dated: Array = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    return dated if (dated.astype("datetime64[M]") == months).all() else None  # there is no 20240230


def _weeks(times: npt.NDArray[np.int64]) -> Array | None:
    """The Mondays of ISO weeks: week 1 is the one with January 4."""
    year, week = np.divmod(times, 100)
    if not (_in_years(year) and (week >= 1).all() and (week <= 53).all()):
        return None
    fourth = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64) + 3
    monday = fourth - (fourth + 3) % 7  # 1970 began on a Thursday
    dated: Array = (monday + 7 * (week - 1)).astype("datetime64[D]")
    years = (dated + 3).astype("datetime64[Y]").astype(np.int64) + 1970  # a week is of the year of its Thursday
    return dated if (years == year).all() else None  # there is no 202453, which would be 202501


def _in_years(year: Array) -> bool:
    return bool((year >= YEARS[0]).all() and (year <= YEARS[1]).all())


_CALENDAR: dict[str, Callable[[npt.NDArray[np.int64]], Array | None]] = {
    "days": _days, "months": _months, "weeks": _weeks,
}  # fmt: skip


def dates(column: Array) -> Times | None:
    """A column of dates as numbers; None where it is none, or lacks some. Text is one where all of it is ISO dates."""
    first = column[0] if len(column) else None
    if isinstance(first, str):
        if "-" not in first[1:]:
            return None  # "2024" would be a year
        with contextlib.suppress(TypeError, ValueError):
            column = _dated(column)
    if column.dtype.kind != "M" and not hasattr(first, "year"):
        return None
    return None if column.dtype.kind == "M" and np.isnat(column).any() else _numbers(column)


def _numbers(times: Array) -> Times | None:
    try:
        if times.dtype.kind == "O" and len(times) and hasattr(times[0], "year"):
            times = np.array([np.datetime64(_plain(time), "us") for time in times])
        if times.dtype.kind in "Mm":
            times = times.astype(f"{times.dtype.kind}8[us]").astype(np.int64)
        return times.astype(np.float64)
    except (TypeError, ValueError):
        return None


def _plain(time: Any) -> Any:
    """A date, or a moment in UTC that says no zone."""
    if hasattr(time, "to_timestamp"):  # a period of pandas': when it begins
        time = time.to_timestamp()
    zone = getattr(time, "tzinfo", None)
    return time if zone is None else time.astimezone(datetime.UTC).replace(tzinfo=None)


def usual_step(times: Times) -> float:
    """What nine tenths of a key's steps from one time to the next are no longer than; NaN where there is no step, or
    where they have no period, so that none could be told to be missing.

    They have one where nine tenths of them are of one length, or of two as from one working day to the next and over a
    weekend; lengths are alike that differ by less than a gap is longer.
    """
    steps = np.diff(times)
    steps = np.sort(steps[steps > 0])
    if not len(steps):
        return math.nan
    ends = np.searchsorted(steps, LONGER * steps, side="right")
    alike = ends - np.arange(len(steps))  # to each step, of those no shorter
    second = np.append(np.maximum.accumulate(alike[::-1])[::-1], 0)  # the most that are alike, from each step on
    if (alike + second[ends]).max() < USUAL * len(steps):
        return math.nan
    return float(np.quantile(steps, USUAL, method="lower"))


def longer(times: Times, usual: float) -> npt.NDArray[np.bool_]:
    """Which steps in time are longer than usual; none where ``usual`` is NaN. (rows - 1,)."""
    found: npt.NDArray[np.bool_] = np.diff(times) > LONGER * usual
    return found


def repeated(times: Times) -> int:
    """How many rows are of the same time as the one before. times: in order."""
    return int((np.diff(times) == 0).sum())


def disorder(times: Times, pieces: Mapping[str, npt.NDArray[np.int64]]) -> set[str]:
    """Keys whose rows are not in the order of time.

    Args:
        times: of all keys' rows.
        pieces: each key's row numbers, in the order in which they are taken.
    """
    return {key for key, rows in pieces.items() if (np.diff(times[rows]) < 0).any()}


def breaks(times: Times, usual: float) -> npt.NDArray[np.int64]:
    """The rows before which a step in time lies that is longer than usual. times: of one key, in order."""
    return np.flatnonzero(longer(times, usual)) + 1

"""When a key's rows were: their order, steps between them that are longer than usual, rows of one time."""

from __future__ import annotations

import contextlib
import datetime
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.core.errors import UsageError
from hasten.fleet.tasks import Array

USUAL = 0.9  # of a key's steps in time are no longer than what counts as usual: weekends between working days are
LONGER = 1.5  # times as long as usual is a gap; months differ by less
YEARS = 1900, 2100  # in which whole numbers are taken for days or months

Times = npt.NDArray[np.float64]


def in_order(times: Array, name: str) -> tuple[npt.NDArray[np.int64], Times | None]:
    """The order of a column of times, and the column as numbers.

    Returns:
        (rows,), int64; and (rows,), float64, of dates microseconds since 1970 in UTC; None where they are neither dates
        nor numbers.

    Raises:
        UsageError: they are of several kinds, or text that is no ISO date.
    """
    try:
        if times.dtype.kind in "OU" and any(isinstance(time, str) for time in times):
            whole = all(isinstance(time, str) and time.isdecimal() for time in times)  # "20240131" is no year
            times = times.astype(np.int64) if whole else _dated(times)  # "9/1/2024" would come behind "10/1/2024"
        if times.dtype.kind in "iu":
            times = _calendar(times)
        order: npt.NDArray[np.int64] = np.argsort(times, kind="stable")
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"column {name!r} cannot be sorted: {error}", "times of several kinds, or text that is no ISO date",
            "dates or numbers only; text as 2024-01-31 12:00",
        ) from None  # fmt: skip
    return order, _numbers(times)


def _dated(texts: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a zone, which is taken into account
        found: Array = texts.astype("datetime64[us]")
    return found


def _calendar(times: Array) -> Array:
    """Whole numbers that all read as days (20240131), or all as months (202401), as dates; others as they are.

    From the last day of a month to the next one is a day, and not 70.
    """
    for places in (10_000, 100):
        year, rest = np.divmod(times.astype(np.int64), places)
        month, day = np.divmod(rest, 100) if places > 100 else (rest, np.ones_like(rest))
        found = (year >= YEARS[0]) & (year <= YEARS[1]) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
        if len(times) and found.all():
            months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
            dated: Array = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
            return dated
    return times


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
    """What nine tenths of a key's steps from one time to the next are no longer than; NaN where there is no step."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    return float(np.quantile(steps, USUAL, method="lower")) if len(steps) else math.nan


def longer(times: Times, usual: float) -> npt.NDArray[np.bool_]:
    """Which steps in time are longer than usual. (rows - 1,)."""
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


def breaks(times: Times) -> npt.NDArray[np.int64]:
    """The rows before which a step in time lies that is longer than usual. times: of one key, in order."""
    return np.flatnonzero(longer(times, usual_step(times))) + 1

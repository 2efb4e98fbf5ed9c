"""When a key's rows were: their order, steps between them that are longer than usual, rows that come too late."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.core.errors import UsageError
from hasten.fleet.tasks import Array

USUAL = 0.9  # of a key's steps in time are no longer than what counts as usual: weekends between working days are
LONGER = 1.5  # times as long as usual is a gap; months differ by less

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
            times = times.astype("datetime64[us]")  # "9/1/2024" would come behind "10/1/2024"
        order: npt.NDArray[np.int64] = np.argsort(times, kind="stable")
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"column {name!r} cannot be sorted: {error}", "times of several kinds, or text that is no ISO date",
            "dates or numbers only; text as 2024-01-31 12:00",
        ) from None  # fmt: skip
    return order, _numbers(times)


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
    zone = getattr(time, "tzinfo", None)
    return time if zone is None else time.astimezone(datetime.UTC).replace(tzinfo=None)


def over_gaps(times: Times, rows: int) -> int:
    """How many stretches of ``rows`` rows go over a step in time that is longer than usual.

    Args:
        times: of one key, in order.
    """
    steps = np.diff(times)
    if len(times) < rows or not len(steps):
        return 0
    longer = steps > LONGER * np.quantile(steps, USUAL, method="lower")
    before = np.concatenate([[0], np.cumsum(longer)])  # long steps before each row
    return int((before[rows - 1 :] > before[: len(before) - rows + 1]).sum())

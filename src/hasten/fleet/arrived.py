"""New rows for a fleet: checked for all keys before anything changes, and taken back where learning is cut off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hasten.core.errors import UsageError
from hasten.fleet.arrays import Array, as_floats, as_target
from hasten.fleet.frames import as_series
from hasten.fleet.tasks import check_targets
from hasten.fleet.times import Times

if TYPE_CHECKING:
    from hasten.fleet.growing import Growing, Line
    from hasten.fleet.recipe import Recipe

UNKNOWN = "not in the fleet: a new key, or one that failed"


@dataclass(frozen=True)
class Arrived:
    """New rows that can be learned.

    Attributes:
        parts: by key, standardised where the series were.
        times: (rows,), in order, by key, where a column says them.
        known: how many rows in front of them each key had already, which are left out.
        failed: causes of keys whose rows cannot be learned.
    """

    parts: dict[str, list[Array]] = field(default_factory=dict)
    times: dict[str, Times] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def of(growing: Growing, data: Any) -> Arrived:
    """New rows by key.

    Raises:
        UsageError: the data are of no form that ``fit`` takes, or none of their keys is in the fleet.
    """
    given, times = growing.session.read(data)
    made = Arrived(failed={key: UNKNOWN for key in given if key not in growing.lines})
    if given and len(made.failed) == len(given):
        raise UsageError(
            f"{next(iter(given))!r} is not in the fleet, and no other key of these rows is",
            "new keys, or keys that failed, or the wrong column of keys",
            "fit a fleet for new keys",
        )
    for key, line in growing.lines.items():
        if key in given:
            try:
                parts = _checked(line, given[key], growing.recipe)
                known = _known(line, parts, times.get(key))
            except UsageError as why:
                made.failed[key] = why.what
                continue
            if known:
                made.known[key] = known
            if not known or known < len(parts[0]):
                made.parts[key] = [part[known:] for part in parts]
                if key in times:
                    made.times[key] = times[key][known:]
    return made


def _known(line: Line, parts: list[Array], times: Times | None) -> int:
    """How many of a key's new rows are the last ones that it has, which a block that overlaps brings once more.

    Args:
        parts: the new rows. times: (rows,), in order. Rows of a table may be of one time.

    Raises:
        UsageError: some come before, or are of series of, the last time that it has, and are not those.
    """
    if times is None:
        return 0
    before, most = (int(np.searchsorted(times, line.until, side)) for side in ("left", "right"))
    late = most if line.job.task.series else before
    if not late:
        return 0
    told = f"{late} of its {len(times)} new rows come before, or are, rows that it has learned already"
    if before == most:  # the last known row is not among them: which ones they would have to be cannot be told
        raise UsageError(told)
    for count in range(most, late - 1 if line.job.task.series else before, -1):
        if all(_ends_with(part.rows, new[:count]) for part, new in zip(line.parts, parts, strict=True)):
            return count
    raise UsageError(f"{told}, and are not the same{_first_other(line, parts, most)}")


def _ends_with(rows: Array, last: Array) -> bool:
    return len(last) <= len(rows) and bool((rows[len(rows) - len(last) :] == last).all())


def _first_other(line: Line, parts: list[Array], count: int) -> str:
    """The first value of a series that is another one than it was."""
    task, known = line.job.task, line.parts[0].rows[-count:]
    if not task.series or len(known) < count:
        return ""
    at = int((known != parts[0][:count]).argmax())
    then, now = (float(values[at]) * task.scale + task.shift for values in (known, parts[0]))
    return f": row {at} is {now:.7g} and was {then:.7g}"


def _checked(line: Line, given: Any, recipe: Recipe) -> list[Array]:
    """One key's new rows, in the form of its history.

    Raises:
        UsageError: they have another form, or hold what cannot be learned.
    """
    task = line.job.task
    if task.series:
        values = (as_series(given) - task.shift) / task.scale
        parts = [values.astype(np.float32)]
    else:
        parts = _pair(line, given, recipe)
    if not all(np.isfinite(a).all() for a in parts):
        raise UsageError("its new rows hold NaN or infinity")
    if not task.series:
        check_targets(parts[1], recipe)
    return parts


def _pair(line: Line, given: Any, recipe: Recipe) -> list[Array]:
    if isinstance(given, str) or not hasattr(given, "__len__") or len(given) != 2:
        raise UsageError(f"its new rows are a {type(given).__name__}, and no pair of X and y")
    try:
        X, y = as_floats(given[0]), as_target(given[1], recipe)
    except (TypeError, ValueError) as error:
        raise UsageError(f"its new rows hold what is no number: {error}") from None
    if X.ndim < 1 or y.ndim < 1 or len(X) != len(y):
        raise UsageError(f"its new rows are X {X.shape} and y {y.shape}: as many rows of each are needed")
    if y.size == len(y) and y.shape[1:] != line.parts[1].space.shape[1:] and line.job.task.y.size == line.job.task.rows:
        y = y.reshape(len(y), *line.parts[1].space.shape[1:])  # one column is one number a row
    for name, array, part in zip(("X", "y"), (X, y), line.parts, strict=True):
        if array.shape[1:] != part.space.shape[1:]:
            raise UsageError(f"a row of its new {name} is {array.shape[1:]}, of those before {part.space.shape[1:]}")
    return [np.asarray(a, p.space.dtype) for a, p in zip((X, y), line.parts, strict=True)]


@contextlib.contextmanager
def undone_by_errors(lines: Iterable[Line]) -> Iterator[None]:
    """Whatever is raised inside, an interrupt too, leaves these histories and their errors as they were before."""
    before = [
        (line, [part.count for part in line.parts], list(line.errors), line.until, list(line.breaks)) for line in lines
    ]
    try:
        yield
    except BaseException:
        for line, counts, errors, until, breaks in before:
            line.errors, line.until, line.breaks = errors, until, breaks
            for part, count in zip(line.parts, counts, strict=True):
                part.count = count
        raise

"""New rows for a fleet: checked for all keys before anything changes, and taken back where learning is cut off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hasten.core.errors import UsageError
from hasten.fleet.frames import as_series
from hasten.fleet.losses import Loss
from hasten.fleet.tasks import Array, as_floats, as_target, classes_of
from hasten.fleet.times import Times

if TYPE_CHECKING:
    from hasten.fleet.growing import Growing, Line
    from hasten.fleet.recipe import Recipe


def of(growing: Growing, data: Any) -> tuple[dict[str, list[Array]], dict[str, Times], dict[str, str]]:
    """New rows by key, standardised where the series were; their times in order, where a column says them; and
    causes of keys whose rows cannot be learned.

    Raises:
        UsageError: the data are of no form that ``fit`` takes, or none of their keys is in the fleet.
    """
    found, times = growing.session.read(data)
    failed = {key: "not in the fleet: a new key, or one that failed" for key in found if key not in growing.lines}
    if found and len(failed) == len(found):
        raise UsageError(
            f"{next(iter(found))!r} is not in the fleet, and no other key of these rows is",
            "new keys, or keys that failed, or the wrong column of keys",
            "fit a fleet for new keys",
        )
    parts: dict[str, list[Array]] = {}
    for key, line in growing.lines.items():
        if key in found:
            try:
                _follow(line, times.get(key))
                parts[key] = _checked(line, found[key], growing.recipe)
            except UsageError as why:
                failed[key] = why.what
    return parts, {key: times[key] for key in parts if key in times}, failed


def _follow(line: Line, times: Times | None) -> None:
    """Check that new rows come behind those that a key has. times: (rows,), in order.

    Raises:
        UsageError: some do not. Rows of a table may be of one time.
    """
    if times is None or not len(times):
        return
    late = int((times <= line.until).sum() if line.job.task.series else (times < line.until).sum())
    if late:
        raise UsageError(f"{late} of its {len(times)} new rows come before, or are, rows that it has learned already")


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
    if not task.series and isinstance(recipe.loss, Loss) and recipe.loss.kind == "cross_entropy":
        classes_of(parts[1])
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
    before = [(line, [part.count for part in line.parts], list(line.errors), line.until) for line in lines]
    try:
        yield
    except BaseException:
        for line, counts, errors, until in before:
            line.errors, line.until = errors, until
            for part, count in zip(line.parts, counts, strict=True):
                part.count = count
        raise

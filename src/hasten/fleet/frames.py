"""Tasks from what people have: mappings, data frames, long series."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.core.errors import UsageError, in_a_line, nearest
from hasten.fleet.arrays import (
    NUMBERS,
    Array,
    as_array,
    as_floats,
    as_target,
    rounds,
    standardised,
    unbroken,
    windows_of,
)
from hasten.fleet.extras import need
from hasten.fleet.recipe import Recipe
from hasten.fleet.tasks import Task, Windows, by_name, checked, from_mapping, held_out, name_of, once, read_alike
from hasten.fleet.times import Times, breaks, dates, disorder, in_order, repeated, usual_step

GAPS = SKIP, JOIN = "skip", "join"  # what windows over a gap in time are: left out, or learned like others


def tasks_of(
    data: Any,
    recipe: Recipe,
    *,
    by: Any = "",
    features: Any = (),
    target: Any = "",
    window: int = 0,
    horizon: int = 0,
    season: int = 0,
    time_column: Any = "",
    gaps: str = SKIP,
) -> tuple[dict[str, Task], str]:
    """A task for each key of ``data``, and what its times were read as (see ``times.in_order``). See ``fit`` for the
    arguments.

    Raises:
        UsageError: the arguments do not fit together, or a column is missing.
    """
    _check(window, horizon, season, features, gaps)
    read = ""
    if isinstance(data, Mapping):
        _no_columns(by=by, features=features, target=target, time_column=time_column)
        if not window:
            return from_mapping(data, recipe), read
        series: Mapping[Any, Any] = data
        times: Mapping[str, Times] = {}
        unsorted: Mapping[str, str] = {}
    else:
        frame = Columns(data, by, time_column)
        if not frame.pieces:
            raise UsageError(
                "the data frame has no rows", "a filter that matches nothing, or a file that holds a header only",
                "at least one key with rows",
            )  # fmt: skip
        read = frame.read
        if not window:
            return frame.tables(features, target, recipe), read
        series, times = frame.series(target), frame.times
        unsorted = {} if time_column else frame.disorder()
    found: dict[str, Task] = {}
    for key, values in series.items():
        name = once(key, found)
        try:
            as_series(values)
        except UsageError as why:
            raise UsageError(f"the series of {name!r}: {why.what}", why.cause, why.change) from None
        found[name] = windows(
            as_array(values), window, horizon, season, recipe, times.get(name), unsorted.get(name, ""), gaps
        )
    return found, read


def _check(window: int, horizon: int, season: int, features: Any, gaps: str) -> None:
    if bool(window) != bool(horizon) or window < 0 or horizon < 0:
        raise UsageError(
            f"window={window} and horizon={horizon}", "series need both, counted in rows", "window=96, horizon=24"
        )
    if window and len(features):
        raise UsageError(
            f"features={list(features)!r} and window={window}",
            "the windows of a series hold its own past values and no other columns",
            "leave features out, or make rows yourself: tasks={key: (X, y)} with X: (rows, window, columns)",
        )
    if season > window > 0:
        raise UsageError(
            f"season={season} and window={window}", "a window shorter than a season holds no value of the last one",
            f"window={season}, or season=1 to repeat the last value",
        )  # fmt: skip
    if gaps not in GAPS:
        raise UsageError(f"gaps={gaps!r}", "a typing error", 'gaps="skip" or gaps="join"')


def _no_columns(**named: Any) -> None:
    for name, columns in named.items():
        if columns:
            raise UsageError(
                f"{name}={columns!r} names columns, and tasks is a mapping", "its rows are given by key, in order",
                "a data frame, or a mapping without by, features, target and time_column",
            )  # fmt: skip


def as_series(values: Any) -> Array:
    """One column of numbers. (rows,), float64.

    Raises:
        UsageError: there are several columns, or what is no number.
    """
    try:
        found = np.asarray(as_array(values), np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"it holds what is no number: {error}", "text", "numbers") from None
    if max(found.shape[1:], default=1) > 1:
        raise UsageError(
            f"it has the shape {found.shape}, and a series is one column",
            "several columns, or several series, under one key",
            "a key for each column, or rows of your own: tasks={key: (X, y)}",
        )
    return found.reshape(-1)


def raw(
    data: Any,
    recipe: Recipe,
    *,
    by: str = "",
    features: Sequence[str] = (),
    target: str | Sequence[str] = "",
    time_column: str = "",
    window: int = 0,
    read: str = "",
) -> tuple[dict[str, Any], dict[str, Times]]:
    """Key to (X, y), or to its piece of a series where there is a ``window``; nothing is checked or standardised.

    Args:
        read: what the ``time_column`` was read as before, see ``times.in_order``.

    Returns:
        them, and the times of their rows by key where a ``time_column`` says them.

    Raises:
        UsageError: two keys read the same, or a column is missing or not as it was.
    """
    if isinstance(data, Mapping):
        return by_name(data), {}
    frame = Columns(data, by, time_column, read)
    if window:
        return dict(frame.series(target)), frame.times
    return {key: (task.X, task.y) for key, task in frame.tables(features, target, recipe).items()}, frame.times


def windows(
    series: Array, window: int, horizon: int, season: int, recipe: Recipe, times: Times | None = None,
    unsorted: str = "", gaps: str = SKIP,
) -> Task:  # fmt: skip
    """The windows of a series with the values that follow them, as views of one standardised copy, made when needed.

    Args:
        series: (rows,), any numbers; held, not copied.
        times: (rows,), when they were, where that is known.
        unsorted: a column of dates whose order the rows are not in.
        gaps: of ``GAPS``: whether windows over a gap in time are learned, too.

    Returns:
        X: (rows - window - horizon + 1, window), y: (…, horizon); those over gaps are there, and are not learned.
    """
    values = np.asarray(series, np.float64).reshape(-1)
    count = len(values) - window - horizon + 1
    if why := _broken(values, window + horizon):
        return _refused(window, horizon, why)
    usual = usual_step(times) if times is not None else math.nan
    lack = breaks(times, usual) if times is not None else np.empty(0, np.int64)
    whole = unbroken(lack, count, window + horizon)
    learned = whole if gaps == SKIP else np.arange(count)
    if not len(learned):
        most = np.diff(lack, prepend=0, append=len(values)).max()
        why = f"a window and its horizon take {window + horizon} rows, and no more than {most} follow without a gap"
        return _refused(window, horizon, f'{why}; gaps="join" (--gaps join) learns windows over gaps, too')
    gap = min(horizon - 1, len(learned) - 2) if len(learned) > 2 else 0
    known = values
    if recipe.stop is not None:  # what is held out must not shape the scale
        held = held_out(len(learned), gap, recipe.stop)
        known = values[: window + learned[-max(1, held)]]
    shift = math.fsum(known) / len(known)  # exact sums: NumPy's depend on where the numbers lie in memory
    scale = math.sqrt(math.fsum((known - shift) ** 2) / len(known))
    if known.min() == known.max() or scale == 0:
        which = "every value" if values.min() == values.max() else "every value before those held out"
        return _refused(window, horizon, f"constant: {which} is {known[0]:g}")
    X, y = windows_of(standardised(values, shift, scale), window, horizon)
    task = Task(X, y, gap, season, shift, scale, series=True, over_gaps=count - len(whole), disorder=unsorted)
    if times is not None:
        irregular = gaps == SKIP and math.isnan(usual) and bool(times[0] < times[-1])
        task = replace(
            task, breaks=tuple(lack.tolist()) if gaps == SKIP else (), repeated=repeated(times),
            until=float(times[-1]), usual=usual, irregular=irregular,
        )  # fmt: skip
    return Windows(series.reshape(-1), checked(task, recipe))


def _broken(values: Array, least: int) -> str:
    """Why a series has no window that could be learned; "" if it may have."""
    if len(values) < least:
        return f"too short: {len(values)} rows, one window and its horizon take {least}"
    bad = ~np.isfinite(values)
    if bad.any():
        return f"the series holds NaN or infinity in {bad.sum()} of {len(values)} rows, first in row {bad.argmax()}"
    return ""


def _refused(window: int, horizon: int, why: str) -> Task:
    return Task(np.empty((0, window), np.float32), np.empty((0, horizon), np.float32), why_not=why)


def _apart(keys: npt.NDArray[Any]) -> None:
    """Check that no two keys read the same, as 1 and "1" do in a column of objects.

    Raises:
        UsageError: two do.
    """
    if keys.dtype.kind == "O":
        texts = {key for key in keys if isinstance(key, str)}
        both = texts.intersection(str(key) for key in keys if not isinstance(key, str)) if texts else texts
        if both:
            read_alike(min(both))


def _texts(keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if keys.dtype.kind == "M":  # the same for whatever unit a library keeps moments in
        each, which = np.unique(keys, return_inverse=True)
        return np.array([name_of(key) for key in each])[which]
    return np.array([str(key) for key in keys]) if keys.dtype.kind == "O" else keys.astype(str)  # tuples are keys, too


class Columns:
    """A data frame of any kind that narwhals knows, its rows grouped by key.

    Args:
        by: the column of keys.
        time_column: rows of one key are put into its order; "" keeps the frame's.
        read: what that column was read as before, see ``times.in_order``.
    """

    def __init__(self, frame: Any, by: str, time_column: str = "", read: str = "") -> None:
        narwhals = need("narwhals", "a data frame of tasks")
        try:
            self.frame = narwhals.from_native(frame, eager_only=True)
        except TypeError:
            raise UsageError(
                f"tasks is a {type(frame).__name__}",
                "neither a mapping nor a data frame" if not hasattr(frame, "collect") else "a plan of a query, no rows",
                "tasks.collect()"
                if hasattr(frame, "collect")
                else "tasks = {key: (X, y), …}, or a pandas, polars or pyarrow table with by= and target=",
            ) from None
        except narwhals.exceptions.NarwhalsError as error:
            raise UsageError(
                f"the data frame cannot be read: {in_a_line(error)}", "two columns of one name",
                "a name for each column",
            ) from None  # fmt: skip
        if not by:
            raise UsageError("a data frame needs the column of its keys", "by= is missing", 'by="store"')
        if not isinstance(by, str):
            raise UsageError(
                f"by={by!r}, and keys are one column", "several columns that make a key together",
                'a column of both, as frame["key"] = frame["store"] + "/" + frame["item"]',
            )  # fmt: skip
        keys = self._whole(by, "key")
        _apart(keys)
        order = np.arange(len(keys))
        times: Times | None = None
        self.read = ""
        if time_column:
            order, times, self.read = in_order(self._whole(time_column, "time"), time_column, read)
        texts = _texts(keys)
        names, groups = np.unique(texts[order], return_inverse=True)
        self.order = order[np.argsort(groups, kind="stable")]
        ends = np.cumsum(np.bincount(groups, minlength=len(names)))
        starts = ends - np.diff(ends, prepend=0)
        self.pieces = {str(n): slice(a, b) for n, a, b in zip(names, starts, ends, strict=True)}
        self.times = {key: times[self.order[piece]] for key, piece in self.pieces.items()} if times is not None else {}

    def tables(self, features: Sequence[str], target: str | Sequence[str], recipe: Recipe) -> dict[str, Task]:
        """Tasks of rows: views of one sorted copy of the columns. Several targets make y (rows, targets)."""
        if not features or not target:
            raise UsageError(
                "rows need features and a target", "features= or target= is missing",
                'features=["price", "day"], target="sales", or window= and horizon= for series',
            )  # fmt: skip
        wanted = [target] if isinstance(target, str) else target
        if both := [name for name in wanted if name in features]:
            raise UsageError(
                f"target={both[0]!r} is one of the features", "a network would learn to copy it",
                "features without it",
            )  # fmt: skip
        X, lost = np.empty((len(self.order), len(features)), np.float32), ""
        for j, name in enumerate(features):
            found = self._numbers(name, as_floats)
            X[:, j] = found[self.order]
            if rounds(self._column(name)[:, None], found[:, None]).any():
                lost = lost or repr(name)
        take = functools.partial(as_target, recipe=recipe)
        if isinstance(target, str):
            y = self._numbers(target, take)[self.order]
        else:
            y = np.stack([self._numbers(name, take) for name in wanted], axis=1)[self.order]
        for name, found in zip(wanted, y.reshape(len(y), -1).T if len(y) else (), strict=False):
            if rounds(self._column(name)[self.order][:, None], found[:, None]).any():
                lost = lost or repr(name)
        until = {key: float(times[-1]) for key, times in self.times.items()}
        return {
            key: checked(Task(X[piece], y[piece], rounded=lost, until=until.get(key, -math.inf)), recipe)
            for key, piece in self.pieces.items()
        }

    def series(self, target: Any) -> dict[str, Array]:
        """The target of each key in the order of time."""
        if not target or not isinstance(target, str):
            raise UsageError("a series needs the column of its values", "target= is missing", 'target="sales"')
        values = self._numbers(target, as_array)[self.order]
        return {key: values[piece] for key, piece in self.pieces.items()}

    def disorder(self) -> dict[str, str]:
        """Keys whose rows are not in the order of a column of dates, with its name; none where one is in order."""
        pieces = {key: self.order[piece] for key, piece in self.pieces.items()}
        found: dict[str, str] = {}
        for name in self.frame.columns:
            times = dates(self._column(name)) if isinstance(name, str) else None
            if times is None:
                continue
            keys = disorder(times, pieces)
            if not keys:
                return {}
            found = found or dict.fromkeys(keys, name)
        return found

    def _column(self, name: str) -> npt.NDArray[Any]:
        if not isinstance(name, str) or name not in self.frame.columns:
            index = name in getattr(getattr(self.frame.to_native(), "index", None), "names", ())  # of pandas
            raise UsageError(
                f"there is no column {name!r}",
                "it is the frame's index" if index else f"the frame has {', '.join(map(str, self.frame.columns[:8]))}",
                "frame.reset_index()" if index else nearest(name, self.frame.columns) or "one of these",
            )
        found: npt.NDArray[Any] = self.frame[name].to_numpy()
        return found

    def _whole(self, name: str, what: str) -> npt.NDArray[Any]:
        """A column that no row may lack."""
        found = self._column(name)
        lacking = np.array(self.frame[name].is_null().to_numpy(), bool)
        if found.dtype.kind == "f":
            lacking = lacking | np.isnan(found)
        elif found.dtype.kind in "OU":
            there = ~lacking  # pandas' NA is no truth value
            lacking[there] = found[there] == ""
        if lacking.any():
            raise UsageError(
                f"{lacking.sum()} of {len(lacking)} rows have no {what} in column {name!r}, "
                f"first row {int(lacking.argmax())}",
                "missing values",
                "leave these rows out, or fill them in",
            )
        return found

    def _numbers(self, name: str, take: Callable[[Any], Array]) -> Array:
        column = self._column(name)
        try:
            if column.dtype.kind in "MmSU":
                raise TypeError(f"it holds {column.dtype}")
            found = take(column)
            return found if found.dtype.kind != "O" else np.asarray(found, np.float64)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"column {name!r} holds what is no number: {error}",
                "text, dates or categories",
                NUMBERS,
            ) from None

"""Columns of tables: their names, and what they hold as arrays: numbers, times, texts, and texts of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from hasten.core.errors import nearest
from hasten.solve.arrays import absent, seconds_of, tell_rounded, wrong_shape
from hasten.solve.kernel import Array
from hasten.solve.problems import BadData, NoColumn, need

NUMBERS = Real | Decimal | np.bool_
TIMES = date | time | timedelta  # a datetime is a date, too
NESTED: Any = (list, tuple, dict, set, np.ndarray)


@dataclass(frozen=True)
class Kinds:
    """Names of the columns that held numbers in earlier rows, and of those that held texts."""

    numeric: Sequence[str] = ()
    categorical: Sequence[str] = ()


def split_columns(nw: Any, frame: Any, names: Sequence[str], known: Kinds | None = None) -> tuple[list[str], list[str]]:
    """Columns of numbers, and columns of texts; one that holds no value at all is what it was in earlier rows."""
    known = known or Kinds()
    numeric, texts = [], []
    for name in names:
        kind = frame.schema[name]
        number = kind.is_numeric() or kind == nw.Boolean or kind.is_temporal()
        inside = _kinds_inside(frame[name].to_numpy()) if kind == nw.Object else set()
        number = number or _are(inside, NUMBERS) or _are(inside, TIMES)
        nested = any(issubclass(each, NESTED) for each in inside)
        text = (
            not number
            and not nested
            and (kind in (nw.String, nw.Categorical, nw.Object, nw.Enum) or isinstance(kind, nw.Enum))
        )
        if not number and name in known.numeric:
            number = _empty(frame[name])
        elif not text and name in known.categorical and _empty(frame[name]):
            number, text = False, True
        if number:
            numeric.append(name)
        elif text:
            texts.append(name)
        else:
            raise _no_column_of(name, frame, nw)
    return numeric, texts


def _no_column_of(name: str, frame: Any, nw: Any) -> BadData:
    """The error for a column that is neither number nor text."""
    kind = frame.schema[name]
    if kind == nw.Binary:
        return not_utf8(f"column {name!r} holds texts", "data.csv", "; or leave the column out")
    if kind == nw.Unknown and frame[name].null_count() == len(frame):
        return BadData(f"column {name!r} holds no value at all", "it was never filled", "leave it out")
    if kind == nw.Unknown:  # to narwhals
        native = frame[name].to_native()
        kind = getattr(native, "dtype", getattr(native, "type", kind))
    return BadData(
        f"column {name!r} is of the kind {kind}, which is neither number nor text",
        "nested data, periods, or a kind of its library's own", "leave it out, or make numbers of it",
    )  # fmt: skip


def not_utf8(what: str, file: str, otherwise: str = "") -> BadData:
    """The error for texts of another encoding."""
    return BadData(
        f"{what} that are not UTF-8", "a file in Latin-1 or another encoding, or binary data",
        f"iconv -f latin1 -t utf-8 {file} > utf8.csv{otherwise}",
    )  # fmt: skip


def dense(frame: Any, names: Sequence[str]) -> Array:
    """(rows, columns) float64 of a narwhals frame; NaN where a value is missing, seconds for times."""
    out = np.empty((len(frame), len(names)), order="F")
    for j, name in enumerate(names):
        values = frame[name]
        kind = values.dtype
        if "Int128" in str(kind):  # which NumPy has not
            values = values.cast(need("narwhals", "reading a table").Float64)
        array = values.to_numpy()
        if kind.is_temporal() and array.dtype != object:
            out[:, j] = seconds_of(array)
        elif array.dtype == object:
            out[:, j] = [np.nan if absent(v) else _seconds(v) if isinstance(v, TIMES) else float(v) for v in array]
        else:
            out[:, j] = array
        if kind.is_integer() or (array.dtype == object and any(isinstance(v, int | Decimal) for v in array)):
            tell_rounded(out[:, j], f"column {name!r}")
    return np.ascontiguousarray(out)


def _seconds(moment: Any) -> float:
    """Since midnight, of a time of day; since 1970, of a date or a moment (of the clock on the wall where it names no
    zone); of a span."""
    if isinstance(moment, time):
        return 3600 * moment.hour + 60 * moment.minute + moment.second + moment.microsecond / 1e6
    if isinstance(moment, datetime):
        moment -= datetime(1970, 1, 1, tzinfo=UTC if moment.tzinfo else None)
    elif isinstance(moment, date):
        moment -= date(1970, 1, 1)
    return float(moment.total_seconds())


def _empty(column: Any) -> bool:
    """Whether a narwhals column holds no value."""
    return bool(column.null_count() == len(column)) or all(absent(v) for v in column.to_numpy().tolist())


def _kinds_inside(values: Any) -> set[type]:
    """Types of the objects in a column, but for missing ones."""
    return {type(v) for v in values if isinstance(v, NESTED) or not absent(v)}


def _are(kinds: set[type], wanted: Any) -> bool:
    """Whether objects are of these kinds: what databases give, and columns that held None."""
    return bool(kinds) and all(issubclass(kind, wanted) for kind in kinds)


def texts_of(column: Any) -> Array:
    """(rows,) objects of a narwhals column; None or NaN where one is missing."""
    if column.implementation.is_pyarrow():  # which gives the last category of a dictionary for a missing one
        column = column.cast(need("narwhals", "reading a table").String)
    found: Array = column.to_numpy().astype(object)
    return found


def class_texts(values: Array) -> list[str | None]:
    """Classes as texts, whole numbers without a point; None where one is missing."""
    return [None if absent(v) else _label(v) for v in values.astype(object).tolist()]


def _label(value: Any) -> str:
    if isinstance(value, float) and abs(value) >= 2**53:
        raise BadData(f"a class is the number {value:.0f}", "identifiers, which float64 cannot tell apart", "texts")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def with_texts_as_names(frame: Any) -> Any:
    """The table with texts for the names of its columns, as narwhals wants them.

    Raises:
        BadData: it is no table, or a name occurs twice.
    """
    found = getattr(frame, "column_names", None)
    found = getattr(frame, "columns", None) if found is None else found
    if found is None:
        raise wrong_shape("X", tuple(getattr(frame, "shape", (len(frame),))))
    names = [str(name) for name in found]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise BadData(
            f"{names.count(twice[0])} columns are called {twice[0]!r}", "a join, or a header written twice",
            "another name for one of them",
        )  # fmt: skip
    if all(isinstance(name, str) for name in found):
        return frame
    frame = frame.copy(deep=False)
    frame.columns = names
    return frame


def check_names(columns: Sequence[str], target: Sequence[str], features: Sequence[str]) -> None:
    """Raises: BadData: a column is not there, or is to be predicted from itself."""
    missing = [c for c in [*target, *features] if c not in columns]
    if missing:
        raise no_column(missing[0], columns)
    check_apart(target, features)


def check_apart(target: Sequence[str], features: Sequence[str]) -> None:
    """Raises: BadData: a column is named twice, or is to be predicted from itself."""
    twice = next((c for c in features if list(features).count(c) > 1), None)
    if twice is not None:
        raise BadData(f"{twice!r} is named twice among the features", "a typing error", "each column once")
    both = [c for c in target if c in features]
    if both:
        raise BadData(
            f"{both[0]!r} is to be predicted, and is among the features", "a list of all columns", "leave it out there"
        )


def no_column(name: str, columns: Sequence[str]) -> NoColumn:
    """The error for a column that is not there."""
    error = NoColumn(
        f"there is no column {name!r}; there are {', '.join(columns[:12])}{', …' if len(columns) > 12 else ''}",
        "a typing error",
        nearest(name, columns) or "one of these names",
    )
    error.name = name
    return error

"""Columns of tables as arrays: numbers, times, texts, and texts of classes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from hasten.solve.arrays import absent
from hasten.solve.kernel import Array
from hasten.solve.problems import BadData, need


def split_columns(nw: Any, frame: Any, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Columns of numbers, and columns of texts."""
    numeric, texts = [], []
    for name in names:
        kind = frame.schema[name]
        number = kind.is_numeric() or kind == nw.Boolean or kind.is_temporal()
        if number or (kind == nw.Object and _all_numbers(frame[name].to_numpy())):
            numeric.append(name)
        elif kind in (nw.String, nw.Categorical, nw.Object, nw.Enum) or isinstance(kind, nw.Enum):
            texts.append(name)
        else:
            raise _no_column_of(name, frame, nw)
    return numeric, texts


def _no_column_of(name: str, frame: Any, nw: Any) -> BadData:
    """The error for a column that is neither number nor text."""
    kind = frame.schema[name]
    if kind == nw.Binary:
        return BadData(
            f"column {name!r} holds texts that are not UTF-8", "a file in Latin-1 or another encoding, or binary data",
            "iconv -f latin1 -t utf-8 data.csv > utf8.csv; or leave the column out",
        )  # fmt: skip
    if kind == nw.Unknown and frame[name].null_count() == len(frame):
        return BadData(f"column {name!r} holds no value at all", "it was never filled", "leave it out")
    return BadData(
        f"column {name!r} is of the kind {kind}, which is neither number nor text", "nested data, or periods",
        "leave it out, or make numbers of it",
    )  # fmt: skip


def dense(frame: Any, names: Sequence[str]) -> Array:
    """(rows, columns) float64 of a narwhals frame; NaN where a value is missing, seconds for times."""
    out = np.empty((len(frame), len(names)), order="F")
    for j, name in enumerate(names):
        values = frame[name]
        kind = values.dtype
        array = values.to_numpy()
        if kind.is_temporal() and array.dtype != object:
            stamps = array.astype("datetime64[us]")
            out[:, j] = np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / 1e6)
        elif array.dtype == object:
            out[:, j] = [np.nan if absent(v) else _seconds(v) if isinstance(v, time) else float(v) for v in array]
        else:
            out[:, j] = array
    return np.ascontiguousarray(out)


def _seconds(moment: time) -> float:
    """Of a time of day, since midnight."""
    return 3600 * moment.hour + 60 * moment.minute + moment.second + moment.microsecond / 1e6


def _all_numbers(values: Any) -> bool:
    """Whether objects are numbers or missing: what databases give, and columns that held None."""
    kinds = {type(v) for v in values if not absent(v)}
    return bool(kinds) and all(issubclass(kind, Real | Decimal | np.bool_) for kind in kinds)


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

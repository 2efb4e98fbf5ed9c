"""Numbers as they are given, as NumPy's; windows of a series as views."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.fleet.losses import Loss
from hasten.fleet.recipe import Recipe

Array = npt.NDArray[Any]
NUMBERS = "numbers: classes to learn from 0 on, a category among the features as columns of 0 and 1"  # in place of text
ROUGH = 1e-3  # of what a feature's values differ by: what rounding them to float32 may take


def standardised(values: Array, shift: float, scale: float) -> Array:
    """Of the shape of ``values``, float32."""
    return ((np.asarray(values, np.float64) - shift) / scale).astype(np.float32)


def windows_of(series: Array, window: int, horizon: int) -> tuple[Array, Array]:
    """All windows of a series and what follows each, as views. series: (rows,), float32."""
    count = len(series) - window - horizon + 1
    found = []
    for start, width in ((0, window), (window, horizon)):  # NumPy's own way leaves a kilobyte of helpers a view
        view: Array = np.ndarray((count, width), np.float32, series, 4 * start, (4, 4))
        view.flags.writeable = False
        found.append(view)
    return found[0], found[1]


def unbroken(breaks: npt.NDArray[np.int64], count: int, width: int) -> npt.NDArray[np.int64]:
    """Which of ``count`` stretches of ``width`` rows go over no break. (stretches,), int64.

    Args:
        breaks: rows before which one lies.
    """
    change = np.zeros(count + 1, np.int64)  # stretches over breaks, from one to the next
    np.add.at(change, np.clip(breaks - width + 1, 0, count), 1)
    np.add.at(change, np.clip(breaks, 0, count), -1)
    return np.flatnonzero(np.cumsum(change[:-1]) == 0)


def shared(array: Array) -> Array:
    """The memory behind overlapping windows, as one row; the array itself where rows do not overlap."""
    if array.ndim == 2 and array.strides[0] == array.strides[1] == array.itemsize:
        count = array.shape[0] + array.shape[1] - 1
        return np.lib.stride_tricks.as_strided(array, (count,), (array.itemsize,))
    return array


def finite(array: Array) -> bool:
    """Whether all values are finite; strided windows are looked at through the series they share."""
    base = shared(array)
    return bool(np.isfinite(base.min()) and np.isfinite(base.max())) if base.size else True


def as_array(values: Any) -> Array:
    """Numbers as NumPy has them, those that are masked NaN; without a copy where they are NumPy's.

    Raises:
        TypeError: they are dates, or complex.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.element_size() < 4 else values).numpy()
    if np.ma.isMaskedArray(values) and np.ma.is_masked(values):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    found = np.asarray(values)
    if found.dtype.kind == "O" and "pandas" in sys.modules:  # its NA is no float, as None is
        found = np.where(sys.modules["pandas"].isna(found), np.nan, found)
    if found.dtype.kind in "cMm":
        raise TypeError(f"it holds {found.dtype}")
    return found


def as_floats(values: Any, dtype: Any = np.float32) -> Array:
    """float32, without a copy where it already is."""
    return as_array(values).astype(dtype, copy=False)


def rounds(given: Any, found: Array) -> Array:
    """(columns,) whether rounding to float32 takes more than ``ROUGH`` of what a column's values differ by.

    Args:
        given, found: (rows, columns), before and after; others have no columns.
    """
    given = given if isinstance(given, np.ndarray) else np.empty(0, np.float32)
    if given.ndim != 2 or given.dtype.kind not in "iuf" or given.dtype.itemsize <= 4 or not len(given):
        return np.zeros(0, bool)
    with np.errstate(invalid="ignore", over="ignore"):
        spread = np.ptp(given, axis=0).astype(np.float64)
        apart = np.abs(given - found.astype(np.float64)).max(axis=0)
    return np.asarray((apart > ROUGH * spread) & (spread > 0))


def as_target(values: Any, recipe: Recipe) -> Array:
    """float32; whole numbers as int64 where a callable loss may want classes."""
    array = as_array(values)
    if array.dtype.kind in "iub" and not isinstance(recipe.loss, Loss):
        return array.astype(np.int64)
    return array.astype(np.float32, copy=False)

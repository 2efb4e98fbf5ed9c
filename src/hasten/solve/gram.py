"""The compiled kernel: rows are fetched, shifted and multiplied with themselves in one go, see ``gram.cpp``.

It is compiled at its first use (``hasten.native.compiled``). Where there is no compiler, where the processor has
neither AVX2 nor AVX-512, and for more than ``MOST_COLUMNS`` columns, BLAS multiplies instead (``solve.products``):
slower at a few hundred columns, as exact, but with other roundings. So a pass that was killed has its bits again on a
machine of the same kind. How many threads there are, how wide the vectors are and where the rows lie changes no bit.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.native.compiled import Library, NoCompiler, target
from hasten.solve.problems import need

Array = NDArray[Any]
Floats = NDArray[np.float64]

MOST_COLUMNS = 2048  # beyond, sums no longer fit a core's cache, and BLAS is as fast
SOURCES = ("gram.cpp", "rows.inc", "residual.inc", "slide.inc", "recursive.inc")
LIBRARY = Library("gram", Path(__file__).parent, SOURCES, ("-ffp-contract=fast", "-pthread"))


class Rows(ctypes.Structure):
    """Rows as ``gram.cpp`` reads them."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("x_step", ctypes.c_int64),
        ("y", ctypes.c_void_p), ("y_step", ctypes.c_int64), ("y_across", ctypes.c_int64),
        ("root", ctypes.c_void_p), ("shift", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rows", "p", "q")),
        *((name, ctypes.c_int32) for name in ("x_single", "y_single")),
    )  # fmt: skip


class Slide(ctypes.Structure):
    """A window as ``slide.inc`` reads it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("inverse", "coef", "rows", "come", "work", "found")),
        *((name, ctypes.c_int64) for name in ("p", "q")),
    )


class Models(ctypes.Structure):
    """Recursive models, and a row for each, as ``recursive.inc`` reads them."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("inverse", "coef", "x", "y", "predicted")),
        *((name, ctypes.c_int64) for name in ("models", "p")),
        ("forgetting", ctypes.c_double),
    )


@functools.cache
def kernel(isa: str = "") -> Any:
    """The compiled library, or None where BLAS is to be used."""
    if (isa or target()) == "baseline":
        return None
    try:
        found = LIBRARY.load(isa)
    except NoCompiler:
        return None
    rows, pointer = ctypes.POINTER(Rows), ctypes.c_void_p
    found.hasten_gram.argtypes = [rows, ctypes.c_int32, ctypes.c_int64, pointer]
    found.hasten_residual.argtypes = [rows, pointer, ctypes.c_int64, *[pointer] * 3]
    found.hasten_slide.argtypes = [ctypes.POINTER(Slide), ctypes.c_int64, ctypes.c_double]
    found.hasten_recursive.argtypes = [ctypes.POINTER(Models), ctypes.c_int64]
    return found


def suits(columns: int) -> bool:
    """Whether products of so many columns are the kernel's."""
    return columns <= MOST_COLUMNS and kernel() is not None


def square(
    x: Array, y: Array | None, root: Floats | None, shift: Floats, single: bool = False, threads: int = 0, isa: str = ""
) -> Floats:
    """``Z.T @ Z`` of ``Z = root * [x - shift | y - shift | 1]`` on and above the diagonal, zeros below.

    Args:
        x: (rows, features), y: (rows, targets) or None; float32 or float64.
        root: (rows,) roots of the weights, or None.
        shift: (features + targets,).
        single: whether products are float32; they are added up in float64.
        threads: as many as NumPy's BLAS takes for 0.
        isa: of the kernel; the best of this processor unless given.

    Raises:
        MemoryError: there is not enough.
    """
    rows, _kept = _rows(x, y, root, shift)
    wide = rows.p + rows.q + 1
    out = np.zeros((wide, wide))
    if kernel(isa).hasten_gram(ctypes.byref(rows), single, threads or blas_threads(), out.ctypes.data):
        raise MemoryError(f"products of {wide} columns")
    return out


def residual(
    x: Array, y: Array, weight: Floats | None, mean: Floats, coef: Floats, threads: int = 0, isa: str = ""
) -> tuple[Floats, Floats, Floats]:
    """What a solution leaves over, in one pass: with ``C = x - mean`` and ``E = weight * (y - mean - C @ coef)``,
    (features, targets) ``C.T @ E``, (features,) ``C.T @ weight`` and (targets,) sums of ``E``; float64.

    Args:
        x, y, threads, isa: as ``square`` takes them.
        weight: (rows,) or None for ones.
        mean: (features + targets,).
        coef: (features, targets).

    Raises:
        MemoryError: there is not enough.
    """
    rows, _kept = _rows(x, y, weight, mean)
    turned = np.ascontiguousarray(coef.T, dtype=np.float64)
    products, ones, errors = np.empty((rows.q, rows.p)), np.empty(rows.p), np.empty(rows.q)
    places = [out.ctypes.data for out in (products, ones, errors)]
    if kernel(isa).hasten_residual(ctypes.byref(rows), turned.ctypes.data, threads or blas_threads(), *places):
        raise MemoryError(f"what is left over of {rows.p} columns")
    return products.T, ones, errors


def _rows(x: Array, y: Array | None, factor: Floats | None, shift: Floats) -> tuple[Rows, tuple[Any, ...]]:
    """What the library reads, and the arrays that it points to."""
    x = _as_read(x)
    y = np.empty((len(x), 0)) if y is None else y if y.flags.aligned else y.copy()
    shift = np.ascontiguousarray(shift, dtype=np.float64)
    factor = None if factor is None else np.ascontiguousarray(factor, dtype=np.float64)
    rows = Rows(
        x.ctypes.data, x.strides[0], y.ctypes.data, *y.strides, None if factor is None else factor.ctypes.data,
        shift.ctypes.data, len(x), x.shape[1], y.shape[1], x.itemsize == 4, y.itemsize == 4,
    )  # fmt: skip
    return rows, (x, y, factor, shift)


def _as_read(x: Array) -> Array:
    """With neighbours in a row beside each other in memory."""
    beside = x.strides[1] == x.itemsize or x.shape[1] < 2
    return x if beside and x.flags.aligned else np.ascontiguousarray(x) if x.flags.aligned else x.copy(order="C")


def blas_threads() -> int:
    """As many threads as NumPy's BLAS would take: the environment and ``threadpool_limits`` hold for both."""
    return max((pool.num_threads for pool in _pools()), default=1)


@functools.cache
def _pools() -> Any:
    threadpoolctl = need("threadpoolctl", "counting threads")
    return threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers

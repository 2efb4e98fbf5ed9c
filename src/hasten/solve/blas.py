"""BLAS ``syrk`` for rows as they lie in memory, without Python's lock.

SciPy's ``dsyrk`` keeps the lock while it multiplies: a thread that reads ahead then waits for every product, and for
5 ms more until the interpreter lets go of a lock that is not returned. So its address is taken from where Cython
programs take it, ``scipy.linalg.cython_blas``, and called by ctypes, which returns the lock. Where that is not to be
had, NumPy's product is the same with more passes over the result.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
_ARGUMENTS = (ctypes.c_char_p, ctypes.c_char_p, *[ctypes.c_void_p] * 8)


def add_square(total: Array, rows: Array, scale: float = 1.0) -> None:
    """``total = scale * total + rows.T @ rows`` in place, at least on and above the diagonal.

    Args:
        total: (columns, columns), Fortran-ordered, of the dtype of ``rows``.
        rows: (rows, columns), float32 or float64; read where they lie if the columns of a row are neighbours.
    """
    syrk, size = _syrk(rows.dtype.char), rows.itemsize
    (count, columns), (stride, step) = rows.shape, rows.strides
    if (
        syrk is None
        or not (rows.size and rows.flags.aligned)
        or step != size
        or stride < columns * size
        or stride % size
    ):
        if scale == 0.0:
            total[:] = 0.0  # it may hold what is no number
        total *= scale
        total += rows.T @ rows
        return
    n, k, one, by, beta = _numbers(size, columns, count, stride // size, scale)
    # C-ordered rows are Fortran's transposed columns
    syrk(b"U", b"N", n, k, one, rows.ctypes.data, by, beta, total.ctypes.data, n)


@functools.lru_cache(64)
def _numbers(size: int, columns: int, rows: int, stride: int, scale: float) -> tuple[Any, ...]:
    """What BLAS takes by reference; making it anew took a twentieth of the product."""
    kind = ctypes.c_float if size == 4 else ctypes.c_double
    values = (ctypes.c_int(columns), ctypes.c_int(rows), kind(1.0), ctypes.c_int(stride), kind(scale))
    return tuple(ctypes.byref(value) for value in values)


@functools.cache
def _syrk(kind: str) -> Callable[..., None] | None:
    """``dsyrk`` or ``ssyrk``, to be called without the lock; None where SciPy has none whose integers are C's."""
    try:
        from scipy.linalg import cython_blas

        capsule = cython_blas.__pyx_capi__[f"{kind}syrk"]
    except (ImportError, AttributeError, KeyError):
        return None
    python = ctypes.pythonapi
    name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", python))(capsule)
    if not name.startswith(b"void (char *, char *, int *, int *, "):
        return None
    take = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", python))
    return ctypes.CFUNCTYPE(None, *_ARGUMENTS)(take(capsule, name))

"""What users give as X, y and weights, as arrays of numbers; in words what cannot be taken for them."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import numpy as np

from hasten.solve.kernel import Array
from hasten.solve.problems import BadData

EXACT = 2**53  # float64 holds every whole number up to it
ENCODED = {  # what else texts can be given as
    "X": "a pandas or polars table, whose text columns are encoded here; or ",
    "y": "solve.StreamingLogistic for classes; or ",
    "sample_weight": "",
}


class RoundedIntegers(UserWarning):
    """Whole numbers too large for float64: neighbours become one number."""


def tell_rounded(values: Array, what: str) -> None:
    """Warn where whole numbers were rounded.

    Args:
        values: (rows,) as float64; NaN where one is missing. what: whose they are.
    """
    if np.fmax.reduce(np.abs(values), initial=0.0) > EXACT:
        warnings.warn(
            f"{what} holds whole numbers beyond 2**53, which float64 rounds. Identifiers are no numbers: leave them "
            "out, or make texts of them, which are categories.",
            RoundedIntegers, stacklevel=2,
        )  # fmt: skip


def is_table(x: Any) -> bool:
    """Whether ``x`` is a table in memory; Arrow's readers, datasets and scanners are none."""
    if any(hasattr(x, name) for name in ("read_next_batch", "scanner", "scan_batches")):
        return False
    return type(x).__module__.split(".")[0] in ("pandas", "polars", "pyarrow", "narwhals", "modin", "cudf")


def is_frame(x: Any) -> bool:
    """Whether ``x`` is a table of columns, and no series."""
    return is_table(x) and getattr(x, "ndim", 2) == 2 and hasattr(x, "columns")


def is_tensor(x: Any) -> bool:
    return hasattr(x, "detach")


def is_sparse(x: Any) -> bool:
    """Whether ``x`` is one of SciPy's sparse matrices or arrays."""
    return type(x).__module__.startswith("scipy.sparse")


def absent(value: Any) -> bool:
    """Whether an element of an array of objects stands for a missing value."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def is_masked(x: Any) -> bool:
    """Whether ``x`` is a masked array; ``numpy.ma`` is not imported to ask: that takes longer than a pass over a small
    file."""
    ma = sys.modules.get("numpy.ma")
    return ma is not None and isinstance(x, ma.MaskedArray)


def filled(x: Any) -> Any:
    """A masked array with NaN, a missing value, in its masked places; anything else as it is."""
    if not is_masked(x):
        return x
    masked: Any = x.astype(x.dtype if x.dtype.kind == "f" else np.float64)
    return masked.filled(np.nan)


def from_torch(x: Any) -> Array:
    """A tensor in the host's memory; bfloat16 and float16 as float32, which NumPy knows.

    Raises:
        BadData: it is a sparse one.
    """
    if str(x.layout) != "torch.strided":
        raise BadData(f"a tensor has the layout {x.layout}", "a sparse tensor", "tensor.to_dense()")
    found: Array = x.float().numpy() if x.dtype.itemsize < 4 and x.dtype.is_floating_point else x.numpy()
    return found


def in_host(x: Any) -> Any:
    """A tensor as an array in the host's memory; anything else, None too, as it is."""
    return from_torch(x.detach().cpu()) if is_tensor(x) else x


def seconds_of(times: Array) -> Array:
    """Times, or spans of them, in seconds, whatever their unit; NaN where one is missing."""
    stamps = times.astype(f"{times.dtype.kind}8[us]")
    return np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / 1e6)


def target_names(y: Any, given: Any = None) -> list[str]:
    """Names of the columns of y (rows, targets), of which several have those of the table that was ``given`` as y."""
    q = 0 if y is None else y.shape[1]
    return given_names(given) or nameless(q)


def nameless(q: int) -> list[str]:
    """Names of q targets that have none."""
    return ["y"] if q == 1 else [f"y{j}" for j in range(q)]


def given_names(y: Any) -> list[str] | None:
    """What the columns of a table are called; None of anything else, of one column, and of names that are no texts."""
    found = getattr(y, "column_names", getattr(y, "columns", None)) if is_table(y) else None  # Arrow's are arrays
    names = [] if found is None else list(found)
    return names if len(names) > 1 and all(isinstance(name, str) for name in names) else None


def matrix(x: Any, what: str) -> Any:
    """As (rows, columns) of float32 or float64, without a copy where that is possible."""
    if is_tensor(x):
        x = x.detach()
        if x.device.type != "cpu":
            if x.ndim != 2:
                raise wrong_shape(what, tuple(x.shape))
            return x
        x = from_torch(x)
    if is_sparse(x):
        raise BadData(
            f"{what} is a sparse matrix; sparse data was passed, but dense data is required",
            "a text or one-hot encoder made it",
            f"{what}.toarray(), or let a table's text columns be encoded here",
        )
    try:
        array = np.asarray(filled(x))
    except ValueError as error:
        raise BadData(f"{what} is no table of numbers: {error}", "rows of different lengths", "equal rows") from None
    if array.ndim != 2:
        raise wrong_shape(what, array.shape)
    return _floats(array, what)


def _floats(array: Array, what: str) -> Array:
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype.kind == "c":
        raise BadData(f"Complex data not supported: {what} is {array.dtype}", "a Fourier transform", f"abs({what})")
    if array.dtype.kind in "mM":
        return seconds_of(array)
    try:
        kind = np.float32 if array.dtype == np.float16 else np.float64
        found: Array = numbers(array) if array.dtype == object else array.astype(kind)
        whole = array.dtype == object and any(type(v) is int for v in array.flat)
        if whole or (array.dtype.kind in "iu" and array.itemsize == 8):
            for j in range(found.shape[1] if found.ndim == 2 else 0):
                tell_rounded(found[:, j], f"column {j} of {what}")
        return found
    except (TypeError, ValueError, OverflowError) as error:
        raise BadData(
            f"{what} is {array.dtype} and cannot be taken for numbers: {error}", "texts or mixed kinds in an array",
            f"{ENCODED[what]}{what}.astype(float)",
        ) from None  # fmt: skip


def numbers(objects: Array) -> Array:
    """Objects as float64; NaN where one stands for a missing value."""
    found = [np.nan if absent(v) else float(v) for v in objects.ravel().tolist()]
    return np.array(found, dtype=np.float64).reshape(objects.shape)


def targets_of(y: Any) -> Any:
    """(rows, targets); of the path of a ``.npy``, too."""
    if y is None:
        return None
    if isinstance(y, str | os.PathLike):
        y = _stored(y)
    if is_table(y) and type(y).__module__.split(".")[0] != "pyarrow":  # whose columns are arrays, with NaN for null
        y = y.to_numpy()
    if is_tensor(y) and y.device.type != "cpu":
        return y.detach().reshape(len(y), -1)
    array = from_torch(y.detach()) if is_tensor(y) else np.asarray(filled(y))
    if array.ndim not in (1, 2):
        raise wrong_shape("y", array.shape)
    return _floats(array[:, None] if array.ndim == 1 else array, "y")


def _stored(path: str | os.PathLike[str]) -> Array:
    """The array in a ``.npy`` file, which stays there.

    Raises:
        BadData: it cannot be read.
    """
    try:
        found: Array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise BadData(f"y cannot be read from {os.fspath(path)}: {error}", "a typing error", "a .npy file") from None
    return found


def weights_of(weight: Any) -> Any:
    if weight is None:
        return None
    if is_tensor(weight) and weight.device.type != "cpu":
        return weight.detach()
    array = from_torch(weight.detach()) if is_tensor(weight) else np.asarray(filled(weight))
    array = _floats(array, "sample_weight").astype(np.float64, copy=False)
    if array.ndim != 1:
        raise BadData(f"sample_weight has the shape {array.shape}", "a column instead of a vector", "(rows,)")
    return array


def wrong_shape(what: str, shape: tuple[int, ...]) -> BadData:
    wanted = "(rows, features)" if what == "X" else "(rows,) or (rows, targets)"
    cure = f"{what}.reshape(-1, 1) for one feature, {what}.reshape(1, -1) for one row" if len(shape) == 1 else "a table"
    return BadData(f"{what} has the shape {shape}, not {wanted}; Reshape your data", "a row or column too few", cure)

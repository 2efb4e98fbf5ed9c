"""Where rows come from. Everything becomes a ``Source``: blocks of rows, again and again where that is possible."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hasten.solve.kernel import Array
from hasten.solve.problems import BadData, need
from hasten.solve.products import Ready

TABLE_ROWS = 8192  # rows of a table that are made dense at a time


@dataclass(frozen=True)
class Block:
    """Some rows.

    Attributes:
        x: (rows, features) float32 or float64.
        y: (rows, targets), or None without targets.
        weight: (rows,) or None.
        names, targets: names of the columns.
        categories: one (rows,) array of texts a categorical column; ``category_names`` names them.
        start: number of the first row in its source.
        ready: the rows as the kernel wants them, where they were shifted ahead.
    """

    x: Any
    y: Any
    weight: Any
    names: list[str]
    targets: list[str]
    categories: tuple[Array, ...] = ()
    category_names: list[str] = field(default_factory=list)
    start: int = 0
    ready: Ready | None = None

    def taken(self, rows: Any) -> Block:
        """Some of its rows."""
        return replace(
            self,
            x=self.x[rows],
            y=None if self.y is None else self.y[rows],
            weight=None if self.weight is None else self.weight[rows],
            categories=tuple(c[rows] for c in self.categories),
            start=self.start + (rows.start if isinstance(rows, slice) else 0),
            ready=replace(self.ready, rows=self.ready.rows[rows]) if self.ready and isinstance(rows, slice) else None,
        )

    def check_weight(self) -> None:
        """Raises: BadData: a weight is negative, NaN or infinite."""
        if self.weight is not None and not (np.isfinite(self.weight).all() and (self.weight >= 0).all()):
            raise BadData(
                "sample_weight holds a negative or non-finite number", "a division by zero", "weights of 0 or more"
            )

    def raise_where(self, names: Sequence[str], targets: Sequence[str]) -> None:
        """Raises: BadData: naming row and column of the first NaN or infinity, if there is one."""
        for values, columns, what in ((self.y, targets, "y"), (self.x, names, "X")):
            if values is None:
                continue
            values = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
            bad = np.argwhere(~np.isfinite(values))
            if not len(bad):
                continue
            row, column = bad[0]
            kind = "NaN" if np.isnan(values[row, column]) else "infinity"
            cure = 'missing="mean" (or an imputer), or drop the row' if what == "X" else "drop rows without a target"
            raise BadData(
                f"Input {what} contains {kind}: row {self.start + row}, column {columns[column]!r}",
                "missing values, or a division by zero or log of 0 when the column was made",
                cure if kind == "NaN" else f"replace infinities, as by numpy.nan_to_num(X[:, {column}])",
            )


class Source(ABC):
    """Rows in blocks.

    Attributes:
        rows: how many there are; None where unknown.
        again: whether ``blocks`` can be called more than once.
        file: whether blocks come from a file, so that they may be asked for by another thread.
        fingerprint: changes when the rows do; empty where unknown.
    """

    rows: int | None = None
    again: bool = True
    file: bool = False
    fingerprint: str = ""

    @abstractmethod
    def blocks(self, first: int = 0) -> Iterator[Block]:
        """Blocks from row ``first`` on."""


class ArraySource(Source):
    """Rows of arrays, memory maps or tensors in memory."""

    def __init__(
        self, x: Any, y: Any, weight: Any, names: Sequence[str] | None = None, targets: Sequence[str] | None = None
    ) -> None:
        self.x, self.y, self.weight = _matrix(x, "X"), _targets(y), _weights(weight)
        self.rows = len(self.x)
        for what, other in (("y", self.y), ("sample_weight", self.weight)):
            if other is not None and len(other) != self.rows:
                raise BadData(
                    f"X has {self.rows} rows, {what} has {len(other)}", "rows of different tables", "one each a row"
                )
        q = 0 if self.y is None else self.y.shape[1]
        self.names = list(names) if names is not None else [f"x{j}" for j in range(self.x.shape[1])]
        self.targets = list(targets) if targets is not None else ["y"] if q == 1 else [f"y{j}" for j in range(q)]

    def blocks(self, first: int = 0) -> Iterator[Block]:
        whole = Block(self.x, self.y, self.weight, self.names, self.targets)
        if self.rows:
            yield whole.taken(slice(first, self.rows)) if first else whole


class TableSource(Source):
    """Rows of a pandas, polars or Arrow table, through narwhals; texts are categories.

    Args:
        frame: the table.
        target: column names to predict.
        y: targets beside the table; instead of ``target``.
        features: column names to predict from; None for all others.
        classes: texts of the one target's classes, which become a column of 0 and 1 each.
    """

    def __init__(
        self, frame: Any, y: Any = None, weight: Any = None, target: Sequence[str] = (), features: Any = None,
        classes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        nw = need("narwhals", "reading a table")
        self.frame = nw.from_native(frame, eager_only=True)
        columns = [str(c) for c in self.frame.columns]
        missing = [c for c in [*target, *(features or [])] if c not in columns]
        if missing:
            raise no_column(missing[0], columns)
        chosen = list(features) if features else [c for c in columns if c not in target]
        self.numeric, self.texts = split_columns(nw, self.frame, chosen)
        self.target = list(target)
        self.rows = len(self.frame)
        beside = ArraySource(np.zeros((self.rows, 0)), y, weight)
        self.y, self.weight = beside.y, beside.weight
        self.classes = list(classes)
        self.targets = [f"{self.target[0]}={c}" for c in classes] or self.target or beside.targets
        if self.target and not classes:
            texts = split_columns(nw, self.frame, self.target)[1]
            if texts:
                raise BadData(f"the target {texts[0]!r} holds texts", "classes", "--task classification, or numbers")

    def blocks(self, first: int = 0) -> Iterator[Block]:
        assert self.rows is not None
        for start in range(first, self.rows, TABLE_ROWS):
            part = self.frame[start : start + TABLE_ROWS]
            here = slice(start, start + len(part))
            y = self._target(part) if self.target else None if self.y is None else self.y[here]
            yield Block(
                dense(part, self.numeric),
                y,
                None if self.weight is None else self.weight[here],
                self.numeric,
                self.targets,
                tuple(part[c].to_numpy().astype(object) for c in self.texts),
                self.texts,
                start,
            )

    def _target(self, part: Any) -> Array:
        if not self.classes:
            return dense(part, self.target)
        texts = part[self.target[0]].to_numpy().astype(object)
        place = {c: i for i, c in enumerate(self.classes)}
        codes = [-1 if v is None or v != v else place.get(_label(v), -1) for v in texts]
        return np.where(np.array(codes)[:, None] < 0, np.nan, np.eye(len(place))[codes])


class BatchSource(Source):
    """Batches of an iterable: ``(X, y)``, ``(X, y, weight)`` or ``X`` alone; a ``DataLoader``, a generator."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        self.again = iter(batches) is not batches
        self._begun = False

    def blocks(self, first: int = 0) -> Iterator[Block]:
        if self._begun and not self.again:
            raise BadData(
                "this iterator was read once and cannot be read again",
                "a generator was given where more than one pass is needed",
                "give an object whose __iter__ starts anew (a DataLoader, a list of batches), or save it to a file",
            )
        self._begun = True
        start = 0
        for batch in self.batches:
            x, y, weight = (*batch, None, None)[:3] if isinstance(batch, tuple | list) else (batch, None, None)
            for block in open_source(x, y, weight).blocks():
                if start >= first:
                    yield replace(block, start=start)
                start += len(block.x)


def open_source(
    X: Any, y: Any = None, weight: Any = None, *, target: str | Sequence[str] | None = None, features: Any = None
) -> Source:
    """Whatever holds rows, as a ``Source``.

    Args:
        X: see ``Moments.update``.
        y, weight: beside X.
        target, features: names of columns of a table or file.

    Raises:
        BadData: X is of no kind that is known, or the shapes do not fit.
    """
    named = [target] if isinstance(target, str) else list(target or [])
    if isinstance(X, Source):
        return X
    if isinstance(X, str | os.PathLike):
        from hasten.solve.files import open_file

        return open_file(X, named, features, y, weight)
    if _is_table(X):
        return TableSource(X, y, weight, named, features)
    if hasattr(X, "__array__") or isinstance(X, list) or hasattr(X, "__array_interface__"):
        if isinstance(X, list) and X and isinstance(X[0], tuple):
            return BatchSource(X)
        return ArraySource(X, y, weight)
    if hasattr(X, "__iter__"):
        return BatchSource(X)
    raise BadData(
        f"rows cannot be read from a {type(X).__name__}",
        "something else than data was given",
        "an array, a tensor, a table, a path, or an iterable of (X, y)",
    )


def _label(value: Any) -> str:
    """A class as text; whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# -- helpers -----------------------------------------------------------------------------------------------------------


def no_column(name: str, columns: Sequence[str]) -> BadData:
    """The error for a column that is not there."""
    import difflib

    near = difflib.get_close_matches(name, columns, 1)
    return BadData(
        f"there is no column {name!r}; there are {', '.join(columns[:12])}{', …' if len(columns) > 12 else ''}",
        "a typing error",
        repr(near[0]) if near else "one of these names",
    )


def split_columns(nw: Any, frame: Any, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Columns of numbers, and columns of texts."""
    numeric, texts = [], []
    for name in names:
        kind = frame.schema[name]
        if kind.is_numeric() or kind == nw.Boolean or kind.is_temporal():
            numeric.append(name)
        elif kind in (nw.String, nw.Categorical, nw.Object, nw.Enum) or isinstance(kind, nw.Enum):
            texts.append(name)
        else:
            raise BadData(
                f"column {name!r} is of the kind {kind}, which is neither number nor text",
                "nested or binary data",
                "leave it out, or make numbers of it",
            )
    return numeric, texts


def dense(frame: Any, names: Sequence[str]) -> Array:
    """(rows, columns) float64 of a narwhals frame; NaN where a value is missing, seconds for times."""
    out = np.empty((len(frame), len(names)), order="F")
    for j, name in enumerate(names):
        values = frame[name]
        kind = values.dtype
        array = values.to_numpy()
        if kind.is_temporal():
            stamps = array.astype("datetime64[us]")
            out[:, j] = np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / 1e6)
        elif array.dtype == object:
            out[:, j] = [np.nan if v is None or v != v else float(v) for v in array]
        else:
            out[:, j] = array
    return np.ascontiguousarray(out)


def _is_table(x: Any) -> bool:
    return type(x).__module__.split(".")[0] in ("pandas", "polars", "pyarrow", "narwhals", "modin", "cudf")


def _is_tensor(x: Any) -> bool:
    return type(x).__module__.split(".")[0] == "torch" or hasattr(x, "detach")


def _matrix(x: Any, what: str) -> Any:
    """As (rows, columns) of float32 or float64, without a copy where that is possible."""
    if _is_tensor(x):
        x = x.detach()
        if x.device.type != "cpu":
            if x.ndim != 2:
                raise _shape(what, tuple(x.shape))
            return x
        x = x.float().numpy() if x.dtype.itemsize < 4 and x.dtype.is_floating_point else x.numpy()
    if type(x).__module__.startswith("scipy.sparse"):
        raise BadData(
            f"{what} is a sparse matrix; sparse data was passed, but dense data is required",
            "a text or one-hot encoder made it",
            f"{what}.toarray(), or let a table's text columns be encoded here",
        )
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise BadData(f"{what} is no table of numbers: {error}", "rows of different lengths", "equal rows") from None
    if array.ndim != 2:
        raise _shape(what, array.shape)
    return _floats(array, what)


def _floats(array: Array, what: str) -> Array:
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype.kind == "c":
        raise BadData(f"Complex data not supported: {what} is {array.dtype}", "a Fourier transform", f"abs({what})")
    try:
        return array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    except (TypeError, ValueError) as error:
        raise BadData(
            f"{what} is {array.dtype} and cannot be taken for numbers: {error}",
            "texts or mixed kinds in an array",
            "a pandas or polars table, whose text columns are encoded here; or X.astype(float)",
        ) from None


def _targets(y: Any) -> Any:
    if y is None:
        return None
    if _is_table(y):
        y = y.to_numpy()
    if _is_tensor(y) and y.device.type != "cpu":
        return y.detach().reshape(len(y), -1)
    array = y.detach().numpy() if _is_tensor(y) else np.asarray(y)
    if array.ndim not in (1, 2):
        raise _shape("y", array.shape)
    return _floats(array[:, None] if array.ndim == 1 else array, "y")


def _weights(weight: Any) -> Any:
    if weight is None:
        return None
    if _is_tensor(weight) and weight.device.type != "cpu":
        return weight.detach()
    array = np.asarray(weight.detach() if _is_tensor(weight) else weight, dtype=np.float64)
    if array.ndim != 1:
        raise BadData(f"sample_weight has the shape {array.shape}", "a column instead of a vector", "(rows,)")
    return array


def _shape(what: str, shape: tuple[int, ...]) -> BadData:
    wanted = "(rows, features)" if what == "X" else "(rows,) or (rows, targets)"
    cure = f"{what}.reshape(-1, 1) for one feature, {what}.reshape(1, -1) for one row" if len(shape) == 1 else "a table"
    return BadData(f"{what} has the shape {shape}, not {wanted}; Reshape your data", "a row or column too few", cure)

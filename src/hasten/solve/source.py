"""Where rows come from. Everything becomes a ``Source``: blocks of rows, again and again where that is possible."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from hasten.solve.arrays import (
    in_host,
    is_sparse,
    is_table,
    is_tensor,
    matrix,
    target_names,
    targets_of,
    weights_of,
)
from hasten.solve.arrow import whole_table
from hasten.solve.columns import (
    Kinds,
    check_names,
    class_texts,
    dense,
    split_columns,
    texts_of,
    with_texts_as_names,
)
from hasten.solve.kernel import Array, piece_rows
from hasten.solve.problems import BadData, need, no_rows
from hasten.solve.products import Ready

TABLE_ROWS = 8192  # rows of a table that are made dense at a time
DIVIDED = "a division by zero, or the log of 0, when the column was made"
CURES = {  # (what, kind): usual cause, and the change to make
    ("y", "NaN"): ("a missing value", "drop rows without a target"),
    ("y", "infinity"): (DIVIDED, "drop such rows"),
    ("X", "NaN"): (
        "a missing value",
        'drop or fill such rows (sklearn.impute.SimpleImputer); in a pass: Moments(…, missing="mean")',
    ),
    ("X", "infinity"): (
        DIVIDED,
        "drop such rows, or make the value a missing one: frame.replace([numpy.inf, -numpy.inf], numpy.nan)",
    ),
}


@dataclass(frozen=True)
class Block:
    """Some rows.

    Attributes:
        x: (rows, features) float32 or float64.
        y: (rows, targets), or None without targets.
        weight: (rows,) or None.
        names, targets: names of the columns.
        categories: one (rows,) array of texts a categorical column; ``category_names`` names them.
        start: number of the first row in its source. numbers: (rows,) of all of them from there, where they are no
            neighbours.
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
    numbers: Array | None = None
    ready: Ready | None = None

    def taken(self, rows: Any) -> Block:
        """Some of its rows."""
        return replace(
            self,
            x=self.x[rows],
            y=None if self.y is None else self.y[rows],
            weight=None if self.weight is None else self.weight[rows],
            categories=tuple(c[rows] for c in self.categories),
            start=self.start + (rows.start or 0 if isinstance(rows, slice) and self.numbers is None else 0),
            numbers=self.numbers[rows] if self.numbers is not None else None if isinstance(rows, slice) else rows,
            ready=replace(self.ready, rows=self.ready.rows[rows]) if self.ready and isinstance(rows, slice) else None,
        )

    def check_weight(self) -> None:
        """Raises: BadData: a weight is negative, NaN or infinite."""
        weight = in_host(self.weight)
        if weight is not None and not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise BadData(
                "sample_weight holds a negative or non-finite number", "a division by zero", "weights of 0 or more"
            )

    def raise_where(self, names: Sequence[str], targets: Sequence[str]) -> None:
        """Raises: BadData: naming row and column of the first NaN or infinity, if there is one."""
        for values, columns, what in ((self.y, targets, "y"), (self.x, names, "X")):
            if values is None:
                continue
            values = in_host(values)
            bad = np.argwhere(~np.isfinite(values))
            if not len(bad):
                continue
            row, column = bad[0]
            kind = "NaN" if np.isnan(values[row, column]) else "infinity"
            raise not_finite(what, kind, self._number(row), columns[column])

    def raise_largest(self, names: Sequence[str], targets: Sequence[str], dtype: str) -> NoReturn:
        """Raises: BadData: naming row and column of what is largest. Args: dtype: of products."""
        root = 1.0 if self.weight is None else np.sqrt(in_host(self.weight))[:, None]
        given = [("X", self.x, names), ("y", self.y, targets)]
        parts = [(what, in_host(v), columns) for what, v, columns in given if v is not None]
        what, values, columns = max(parts, key=lambda part: np.abs(part[1] * root).max(initial=0.0))
        row, column = np.unravel_index(int(np.argmax(np.abs(values * root))), values.shape)
        weight = "" if self.weight is None else f" with the weight {in_host(self.weight)[row]:.3g}"
        raise BadData(
            f"{what} holds {values[row, column]:.3g}{weight}, too large to be squared in {dtype}: row "
            f"{self._number(int(row))}, column {columns[int(column)]!r}",
            "a placeholder for a missing value, such as 1e300, or another unit",
            "replace placeholders by NaN, or scale the column",
        )

    def _number(self, row: int) -> int:
        return int(self.start + (row if self.numbers is None else self.numbers[row]))


def not_finite(what: str, kind: str, row: int, column: str) -> BadData:
    """The error for a value that is none. Args: what: "X" or "y". kind: "NaN" or "infinity"."""
    return BadData(f"Input {what} contains {kind}: row {row}, column {column!r}", *CURES[what, kind])


class Source(ABC):
    """Rows in blocks.

    Attributes:
        rows: how many there are; None where unknown.
        again: whether ``blocks`` can be called more than once.
        file: whether blocks come from a file, so that they may be asked for by another thread.
        fingerprint: changes when the rows do; empty where unknown.
        named: names that the features brought along, where all of them are numbers.
    """

    rows: int | None = None
    again: bool = True
    file: bool = False
    fingerprint: str = ""
    named: Sequence[str] = ()

    def whole(self) -> Source:
        """The same rows without a target, where nothing but their place says which column it is."""
        return self

    @abstractmethod
    def blocks(self, first: int = 0) -> Iterator[Block]:
        """Blocks from row ``first`` on."""


class ArraySource(Source):
    """Rows of arrays, memory maps or tensors in memory."""

    def __init__(
        self, x: Any, y: Any, weight: Any, names: Sequence[str] | None = None, targets: Sequence[str] | None = None
    ) -> None:
        self.x, self.y, self.weight = matrix(x, "X"), targets_of(y), weights_of(weight)
        if not is_tensor(self.x):
            self.y, self.weight = in_host(self.y), in_host(self.weight)
        self.rows = len(self.x)
        check_lengths(self.rows, self.y, self.weight)
        self.names = list(names) if names is not None else [f"x{j}" for j in range(self.x.shape[1])]
        self.targets = list(targets) if targets is not None else target_names(self.y, y)

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
        at: number of the first row among those of its file.
        known: what columns held in earlier rows: one without any value here is of that kind.
    """

    def __init__(
        self, frame: Any, y: Any = None, weight: Any = None, target: Sequence[str] = (), features: Any = None,
        classes: Sequence[str] = (), known: Kinds | None = None, at: int = 0,
    ) -> None:  # fmt: skip
        nw = need("narwhals", "reading a table")
        self.at = at
        self.frame = nw.from_native(with_texts_as_names(whole_table(frame)), eager_only=True)
        columns = list(self.frame.columns)
        check_names(columns, target, features or [])
        chosen = list(features) if features else [c for c in columns if c not in target]
        self.numeric, self.texts = split_columns(nw, self.frame, chosen, known)
        self.named = [] if self.texts else self.numeric
        self.target = list(target)
        self.rows = len(self.frame)
        beside = ArraySource(np.zeros((self.rows, 0)), y, weight)
        self.y, self.weight = beside.y, beside.weight
        self.classes = list(classes)
        self.targets = [f"{self.target[0]}={c}" for c in classes] or self.target or beside.targets
        self.labels = split_columns(nw, self.frame, self.target)[1]
        if self.labels and not classes:
            raise texts_to_predict(self.labels[0])

    def blocks(self, first: int = 0) -> Iterator[Block]:
        assert self.rows is not None
        for start in range(first, self.rows, TABLE_ROWS):
            part = self.frame[start : start + TABLE_ROWS]
            here = slice(start, start + len(part))
            y = self._target(part, self.at + start) if self.target else None if self.y is None else self.y[here]
            yield Block(
                dense(part, self.numeric),
                y,
                None if self.weight is None else self.weight[here],
                self.numeric,
                self.targets,
                tuple(texts_of(part[c]) for c in self.texts),
                self.texts,
                self.at + start,
            )

    def _target(self, part: Any, start: int) -> Array:
        if not self.classes:
            return dense(part, self.target)
        name = self.target[0]
        texts = class_texts(texts_of(part[name]) if self.labels else dense(part, [name])[:, 0])
        return coded(texts, self.classes, name, start)


def texts_to_predict(name: str) -> BadData:
    """The error for a target of texts where nothing says that they are classes."""
    return BadData(
        f"the target {name!r} holds texts", "classes, where numbers are wanted",
        "--task classification; in Python StreamingLogistic in memory, or a column of 0 and 1",
    )  # fmt: skip


def coded(texts: Sequence[str | None], classes: Sequence[str], name: str, start: int) -> Array:
    """(rows, classes) 0 and 1.

    Args:
        texts: labels, None where one is missing. name: of the target. start: number of the first row.

    Raises:
        BadData: a label is missing, or none of the classes.
    """
    place: dict[str | None, int] = {c: i for i, c in enumerate(classes)} | {None: -1}
    unknown = next((text for text in texts if text not in place), None)
    if unknown is not None:
        raise BadData(
            f"the label {unknown!r} of {name!r} is none of the classes {', '.join(classes[:12])}",
            "a class that earlier rows did not have", "all rows in one file",
        )  # fmt: skip
    codes = np.array([place[text] for text in texts])
    if (codes < 0).any():
        raise not_finite("y", "NaN", start + int(np.argmax(codes < 0)), name)
    found: Array = np.eye(len(classes))[codes]
    return found


class SparseSource(Source):
    """Rows of a SciPy sparse matrix, made dense block by block."""

    def __init__(self, x: Any, y: Any, weight: Any) -> None:
        self.x, self.y, self.weight = x.tocsr(), targets_of(y), weights_of(weight)
        self.rows = int(x.shape[0])
        check_lengths(self.rows, self.y, self.weight)
        self.names, self.targets = [f"x{j}" for j in range(x.shape[1])], target_names(self.y, y)

    def blocks(self, first: int = 0) -> Iterator[Block]:
        assert self.rows is not None
        step = piece_rows(len(self.names))
        for start in range(first, self.rows, step):
            here = slice(start, start + step)
            y, weight = (None if v is None else v[here] for v in (self.y, self.weight))
            yield Block(matrix(self.x[here].toarray(), "X"), y, weight, self.names, self.targets, start=start)


def open_source(
    X: Any, y: Any = None, weight: Any = None, *, target: str | Sequence[str] | None = None, features: Any = None,
    known: Kinds | None = None,
) -> Source:  # fmt: skip
    """Whatever holds rows, as a ``Source``.

    Args:
        X: see ``Moments.update``.
        y, weight: beside X, one a row; rows of files and streams are counted as they pass. A text as y is ``target``
            (the path of a file if it ends with .npy).
        target, features: names of columns of a table or file.
        known: what its columns held in earlier rows.

    Raises:
        BadData: X is of no kind that is known, or the shapes do not fit.
    """
    from hasten.solve.streams import BatchSource, beside, in_batches, is_batches

    named, y = _names_of_targets(target, y)
    if is_path(X):
        from hasten.solve.files import open_file

        return open_file(X, named, features, y, weight, known=known)
    X = in_batches(X)
    if is_table(X):
        return TableSource(X, y, weight, named, features, known=known)
    if holds_rows(X) and is_batches(X):
        return beside(BatchSource(X, named, features, known), y, weight)
    if named or features:
        raise no_names(X, [*named, *(features or [])])
    if isinstance(X, Source):
        return beside(X, y, weight)
    return SparseSource(X, y, weight) if is_sparse(X) else ArraySource(X, y, weight)


def is_path(X: Any) -> bool:
    """Whether X is the path of a file, folder or pattern, or a list of paths."""
    if isinstance(X, list | tuple):
        return bool(X) and all(isinstance(each, str | os.PathLike) for each in X)
    return isinstance(X, str | os.PathLike)


def _names_of_targets(target: Any, y: Any) -> tuple[list[str], Any]:
    """Names of columns to predict, and targets that lie beside; one of both at most."""
    named = [target] if isinstance(target, str) else list(target or [])
    if isinstance(y, str) and not y.endswith(".npy") and named in ([], [y]):
        return [y], None
    if named and y is not None:
        raise BadData("y and a target were both given", f"two names of one thing: y beside {named}", "one of them")
    return named, y


def no_names(X: Any, names: Sequence[str]) -> BadData:
    """The error for names of columns of what has none."""
    return BadData(
        f"a {type(X).__name__} has no columns named {list(names)}",
        "names are for tables and files", "y=…, and the columns of X that are wanted",
    )  # fmt: skip


def holds_rows(X: Any) -> bool:
    """Raises: BadData: X holds no rows."""
    if isinstance(X, Mapping) and not is_sparse(X):  # SciPy's dok is both
        raise BadData("rows cannot be read from a dictionary", "a table kept as one", "pandas.DataFrame(X)")
    if hasattr(X, "encoder") and hasattr(X, "scatter"):
        raise BadData(
            "these are moments, not rows",
            "rows are read here; what is solved from moments alone has other names",
            "solve.ridge(m, alpha), solve.summary(m), solve.kfold(m, alphas)",
        )
    kinds = ("__array__", "__array_interface__", "__iter__")
    if not (isinstance(X, Source) or is_sparse(X) or any(hasattr(X, kind) for kind in kinds)):
        raise BadData(
            f"rows cannot be read from a {type(X).__name__}",
            "a data set without a loader" if hasattr(X, "__getitem__") else "something else than data was given",
            "torch.utils.data.DataLoader(dataset, batch_size=4096)"
            if hasattr(X, "__getitem__")
            else "an array, a tensor, a table, a path, or an iterable of (X, y) or of tables",
        )
    return True


def first_block(source: Source) -> Block:
    """The first rows.

    Raises:
        BadData: there are none.
    """
    for block in source.blocks():
        if len(block.x):
            return block
    raise no_rows()


def check_lengths(rows: int, y: Any, weight: Any) -> None:
    """Raises: BadData: y or weights are not one a row."""
    for what, other in (("y", y), ("sample_weight", weight)):
        if other is not None and len(other) != rows:
            raise BadData(f"X has {rows} rows, {what} has {len(other)}", "rows of different tables", "one each a row")

"""Columns of Arrow's that tables' common reader does not know, as ones that it does."""

from __future__ import annotations

from typing import Any

from hasten.solve.problems import need

DIGITS = 38  # of a decimal128


def whole_table(X: Any) -> Any:
    """A batch or a query that was not run yet as a table; run-end-encoded and extension columns written out, decimals
    of another width as those of 128 bits, or as float64 where they do not fit. Another table as it is."""
    if type(X).__name__ == "LazyFrame":
        X = X.collect()
    package = type(X).__module__.split(".")[0]
    if package == "pandas" and getattr(X, "ndim", 0) == 2:
        return _of_pandas(X)
    if package != "pyarrow" or not hasattr(X, "schema"):
        return X
    table = need("pyarrow", "reading a table").Table.from_batches([X]) if type(X).__name__ == "RecordBatch" else X
    for i, field in enumerate(table.schema):
        if _odd(field.type):
            table = table.set_column(i, field.name, plain(table.column(i)))
    return table


def _of_pandas(frame: Any) -> Any:
    """The frame with such columns replaced; a pandas column of dates is one of times."""
    copied = frame
    for i, kind in enumerate(frame.dtypes):
        inner = getattr(kind, "pyarrow_dtype", None)
        if inner is None or not (_odd(inner) or str(inner).startswith("date")):
            continue
        arrow = need("pyarrow", "reading a table")
        column = frame.iloc[:, i].array
        values = plain(arrow.chunked_array([arrow.array(column)], inner))
        if str(inner).startswith("date"):
            values = values.cast(arrow.timestamp("us"))
        copied = frame.copy(deep=False) if copied is frame else copied
        copied.isetitem(i, type(column)(values))
    return copied


def _odd(kind: Any) -> bool:
    name = str(kind)
    return name.startswith(("run_end_encoded", "extension<arrow.bool8", "decimal")) and not name.startswith(
        "decimal128"
    )


def plain(column: Any) -> Any:
    """A ``ChunkedArray`` of a kind that is known."""
    arrow, compute = need("pyarrow", "reading a table"), need("pyarrow.compute", "reading a table")
    kind = column.type
    if str(kind).startswith("run_end_encoded"):
        chunks = [compute.run_end_decode(chunk) for chunk in column.chunks]
        decoded = arrow.chunked_array(chunks, kind.value_type)
        return plain(decoded) if _odd(kind.value_type) else decoded
    if str(kind).startswith("extension"):
        return arrow.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
    if str(kind).startswith("decimal"):
        try:
            return column.cast(arrow.decimal128(DIGITS, kind.scale))
        except (arrow.ArrowInvalid, ValueError):  # through texts, which are rounded once
            return column.cast(arrow.string()).cast(arrow.float64())
    return column

"""Arrow's rarer kinds of columns are numbers and texts as well."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from hasten.solve import Moments, StreamingLogistic, StreamingPCA, StreamingRidge
from tests.solve.data import apart, table

VALUES = [1.5, 1.5, 1.5, -7.125, None, 3.0] * 20
DECIMALS = [None if v is None else Decimal(str(v)) for v in VALUES]
NUMBERS: dict[str, Any] = {
    "decimal256": pa.array(DECIMALS, pa.decimal256(50, 4)),
    "decimal64": pa.array(DECIMALS, pa.decimal64(15, 4)),
    "decimal32": pa.array(DECIMALS, pa.decimal32(9, 4)),
    "runs": pc.run_end_encode(pa.array(VALUES)),
    "runs of decimals": pc.run_end_encode(pa.array(DECIMALS, pa.decimal128(20, 4))),
}


def as_pandas(found: pa.Table) -> Any:
    return found.to_pandas(types_mapper=pd.ArrowDtype)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("kind", ["table", "chunks", "batch", "pandas"])
def test_numbers_of_any_encoding(name: str, kind: str) -> None:
    """They were said to be neither number nor text."""
    given, plain = (pa.table({"b": np.arange(120.0), "a": c}) for c in (NUMBERS[name], pa.array(VALUES)))
    wanted = Moments(plain, missing="mean")
    turn: Any = {
        "table": lambda t: t,
        "chunks": lambda t: pa.concat_tables([t.slice(0, 50), t.slice(50, 3), t.slice(53)]),
        "batch": lambda t: t.to_batches()[0],
        "pandas": as_pandas,
    }[kind]
    found = Moments(turn(given), missing="mean")
    assert found.names == wanted.names and apart(found.scatter, wanted.scatter) < 1e-14


def test_wide_decimals_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": NUMBERS["decimal256"]}), tmp_path / "a.parquet")
    found = Moments(tmp_path / "a.parquet", missing="mean")
    assert apart(found.scatter, Moments(pa.table({"a": pa.array(VALUES)}), missing="mean").scatter) < 1e-14


def test_decimals_beyond_128_bits_are_rounded_once() -> None:
    long = [Decimal("1" * 45 + ".3"), Decimal("-" + "7" * 44 + ".9"), Decimal("0.1")] * 5
    found = Moments(pa.table({"a": pa.array(long, pa.decimal256(60, 2)), "y": np.arange(15.0)}), "y")
    assert apart(found.mean[:1], [np.mean([float(v) for v in long])]) < 1e-15


def test_texts_and_truths_in_runs() -> None:
    truth = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0] * 60, pa.int8()))
    found = Moments(pa.table({"t": pc.run_end_encode(pa.array(["x"] * 90 + ["y"] * 30)), "b": truth}))
    assert found.names == ["b", "t=x", "t=y"] and found.mean.tolist() == [0.5, 0.75, 0.25]


def test_days_of_pandas_in_arrow_are_seconds() -> None:
    """A TypeError of Python's."""
    days = [datetime.date(2020, 1, 1 + i) for i in range(10)] + [None]
    frame = as_pandas(pa.table({"d": pa.array(days, pa.date32()), "x": np.arange(11.0)}))
    given = frame.copy()
    wanted = Moments(pl.DataFrame({"d": days, "x": np.arange(11.0)}), missing="mean")
    found = Moments(frame, missing="mean")
    assert apart(found.mean, wanted.mean) < 1e-15 and frame.equals(given)


@pytest.mark.parametrize("model", [StreamingRidge(1.0), StreamingPCA(2), StreamingLogistic()])
def test_estimators_take_queries_and_such_columns(model: Any) -> None:
    """A query could be fitted to, and not be predicted from."""
    X, y = table(200, 3)
    y = y > 3 if isinstance(model, StreamingLogistic) else y
    frame = pl.DataFrame(X, schema=["a", "b", "c"])
    use = "transform" if isinstance(model, StreamingPCA) else "predict"
    wanted = getattr(model.fit(frame, y), use)(frame)
    assert apart(getattr(model, use)(frame.lazy()), wanted) < 1e-12
    if not isinstance(model, StreamingLogistic):
        assert apart(getattr(model.fit(frame.lazy(), y), use)(frame), wanted) < 1e-12
    runs = pa.table({name: pc.run_end_encode(pa.array(X[:, i])) for i, name in enumerate("abc")})
    assert apart(getattr(model, use)(runs), wanted) < 1e-12

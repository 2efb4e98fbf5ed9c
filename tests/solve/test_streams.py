"""Arrow's datasets and streams, loaders of dictionaries, and objects in tables."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from hasten.solve import BadData, Moments, StreamingRidge, lstsq, newton, open_source
from tests.solve.data import apart, table

X, y = table(400, 3)
WHOLE = Moments(X, y)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=y)
ARROW = pa.Table.from_pandas(FRAME)


class Stream:
    """What a query of a database hands out."""

    def __arrow_c_stream__(self, schema: Any = None) -> Any:
        return ARROW.__arrow_c_stream__(schema)


@pytest.mark.parametrize(
    "rows",
    [
        lambda: pyarrow.dataset.dataset(ARROW), lambda: pyarrow.dataset.dataset(ARROW).scanner(batch_size=64),
        lambda: ARROW.to_reader(64), Stream, lambda: pyarrow.dataset.dataset(ARROW).to_batches(batch_size=64),
    ],
    ids=["dataset", "scanner", "reader", "stream", "batches"],
)  # fmt: skip
def test_arrow_hands_out_rows_in_many_ways(rows: Any) -> None:
    m = Moments(rows(), "y")
    assert m.names == ["a", "b", "c"] and apart(m.scatter, WHOLE.scatter) < 1e-13
    found = StreamingRidge(alphas=1.0).fit(rows(), "y")
    assert apart(found.coef_, StreamingRidge(alphas=1.0).fit(X, y).coef_) < 1e-12


def test_a_dataset_is_read_as_often_as_is_wanted() -> None:
    hard = FRAME.assign(c=FRAME["a"] + 1e-5 * FRAME["c"])
    found = lstsq(pyarrow.dataset.dataset(pa.Table.from_pandas(hard)), target="y")
    assert found.passes_ > 1
    assert apart(found.coef_, lstsq(hard[["a", "b", "c"]], hard["y"]).coef_) < 1e-9


class Items(Dataset[Any]):
    def __init__(self, wide: bool) -> None:
        self.wide = wide

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if self.wide:
            return {"x": torch.tensor(X[i]), "y": y[i]}
        return {"a": X[i, 0], "town": "uv"[i % 2], "b": X[i, 1], "c": X[i, 2], "y": y[i]}


def test_loaders_of_dictionaries_are_read_by_the_key_of_the_target() -> None:
    assert apart(Moments(DataLoader(Items(True), batch_size=64), "y").scatter, WHOLE.scatter) < 1e-13
    loader = DataLoader(Items(False), batch_size=64)
    m = Moments(loader, "y")
    assert m.names == ["a", "b", "c", "town=u", "town=v"]
    assert apart(m.scatter[:3, :3], WHOLE.scatter[:3, :3]) < 1e-13
    some = Moments(open_source(loader, target="y", features=["a", "b", "c"]))
    assert apart(some.scatter, WHOLE.scatter) < 1e-13
    positive = (y > y.mean()).astype(float)
    by_key = newton([{"x": X, "y": positive}], target="y")
    assert apart(by_key.coef, newton(X, positive).coef) < 1e-8
    both = Moments([{"x": X, "y": y, "z": np.column_stack([y, -y])}], target=["y", "z"])
    assert (both.p, both.q) == (3, 3)
    for target, match in (("none", "no column 'none'"), (None, 'y="y"')):
        with pytest.raises(BadData, match=match):
            Moments(DataLoader(Items(True), batch_size=64), target=target)
    with pytest.raises(BadData, match="x are matrices beside others"):
        Moments([{"x": X, "age": y, "y": y}], "y")
    with pytest.raises(BadData, match="DataLoader"):
        Moments(TensorDataset(torch.tensor(X)))


DAY = datetime.datetime(2020, 3, 1, 13, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "moments",
    [
        [DAY.date() + datetime.timedelta(i) for i in range(400)],
        [DAY + datetime.timedelta(hours=i) for i in range(400)],
        [DAY.replace(tzinfo=None) + datetime.timedelta(hours=i) for i in range(400)],
        [datetime.timedelta(hours=i) for i in range(400)],
        [datetime.time(i % 24, i % 60) for i in range(400)],
        [DAY.date() + datetime.timedelta(i) if i % 3 else None for i in range(400)],
    ],
    ids=["dates", "zone", "moments", "spans", "times", "missing"],
)
def test_times_as_objects_are_seconds_as_in_any_other_column(moments: list[Any]) -> None:
    objects = pd.DataFrame({"when": pd.Series(moments, dtype=object), "a": X[:, 0]})
    found, wanted = (
        Moments(each, y, missing="mean") for each in (objects, pl.DataFrame({"when": moments, "a": X[:, 0]}))
    )
    assert found.names == wanted.names and found.names[0] == "when"
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-15)
    np.testing.assert_allclose(found.scatter, wanted.scatter, rtol=1e-14)


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, (1, 2), {1}, np.ones(2)])
def test_nested_objects_are_no_categories(value: Any) -> None:
    column = pd.Series([value] * 399 + [None], dtype=object)
    with pytest.raises(BadData, match="nested data"):
        Moments(pd.DataFrame({"a": X[:, 0], "c": column}), y)

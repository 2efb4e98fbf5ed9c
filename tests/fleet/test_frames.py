"""Data frames as people have them: keys of any kind, columns that are the frame's index."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from hasten import fleet
from hasten.core.errors import UsageError
from tests.fleet.common import mlp, weights
from tests.fleet.test_given import COLUMNS, frame

pd = pytest.importorskip("pandas")


def test_keys_may_be_tuples() -> None:
    data = frame(("a", "b"))
    both = [(key, 1) for key in data[COLUMNS["by"]]]
    trained = fleet.fit(mlp, data.assign(**{COLUMNS["by"]: both}), **COLUMNS)
    assert set(trained) == {"('a', 1)", "('b', 1)"} and weights(trained).keys() == set(trained)
    assert ("a", 1) in trained


def test_a_column_that_is_the_index_is_named() -> None:
    with pytest.raises(UsageError, match=r"is the frame's index\n.*reset_index"):
        fleet.fit(mlp, frame(("a",)).set_index(COLUMNS["by"]), **COLUMNS)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_keys_that_are_moments_are_found_by_any_of_their_kinds(unit: str, tmp_path: Path) -> None:
    """Whatever unit a frame keeps them in, before and after saving, for updates and predictions."""
    moments = [datetime.datetime(2024, 1, 31), datetime.datetime(2024, 2, 29, 23, 5)]
    data = frame(("a", "b"))
    named = {"a": moments[0], "b": moments[1]}
    dated = data.assign(**{COLUMNS["by"]: pd.to_datetime(data[COLUMNS["by"]].map(named)).astype(f"datetime64[{unit}]")})
    trained = fleet.fit(mlp, dated, **COLUMNS)
    parts = data.groupby(COLUMNS["by"])
    tasks = {named[key]: (part[COLUMNS["features"]].to_numpy(), part[COLUMNS["target"]]) for key, part in parts}
    plain = {key: (X.astype(np.float32), y.to_numpy(np.float32)) for key, (X, y) in tasks.items()}
    assert weights(trained) == weights(fleet.fit(mlp, plain, **{k: v for k, v in COLUMNS.items() if k == "epochs"}))
    trained.save(tmp_path / "f.safetensors")
    for one in (trained, fleet.Fleet.load(tmp_path / "f.safetensors", mlp)):
        assert list(one) == [str(moment) for moment in moments]
        for key in moments:
            assert all(kind in one for kind in (key, str(key), pd.Timestamp(key), np.datetime64(key, unit)))
        assert (
            one.predict(np.array(moments, f"datetime64[{unit}]"), [plain[key][0] for key in moments])[0].shape[1] == 1
        )
        assert one.update(plain).rows == one.update(dated).rows == len(data)


def test_keys_that_are_days_are_called_as_days() -> None:
    day = datetime.date(2024, 1, 31)
    data = frame(("a",)).assign(**{COLUMNS["by"]: day})
    trained = fleet.fit(mlp, data, **COLUMNS)
    assert list(trained) == ["2024-01-31"] and day in trained and np.datetime64(day) in trained


def test_targets_that_float32_does_not_hold_are_told() -> None:
    """Of a level of 1e8 float32 knows every eighth number: what is learned is a staircase."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    level, small = 1e8 + 10 * X[:, 0], {"epochs": 1, "batch_size": 20}
    data = pd.DataFrame({"k": "a", "p": X[:, 0], "q": X[:, 1], "y": level, "z": X[:, 0]})

    def net(outputs: int = 1) -> nn.Module:
        return nn.Linear(2, outputs)

    columns: dict[str, Any] = {"by": "k", "features": ["p", "q"]}
    both: dict[str, Any] = {"settings": {"a": {"outputs": 2}}}
    told = [
        fleet.fit(net, {"a": (X, level)}, **small),
        fleet.fit(net, {"a": (X, np.stack([X[:, 0], level], 1))}, **small, **both),
        fleet.fit(net, data, **columns, target="y", **small),
        fleet.fit(net, data, **columns, target=["z", "y"], **small, **both),
    ]
    for found, name in zip(told, ("y", "y", "'y'", "'y'"), strict=True):
        assert [f"float32, which rounds {name} (a)" in remark for remark in found.summary().remarks] == [True]
    for y in (level - 1e8, level.astype(np.float32), 1e12 * X[:, 0], (X[:, 0] > 0).astype(int)):
        assert fleet.fit(net, {"a": (X, y)}, **small).summary().remarks == ()


@pytest.mark.parametrize("kind", ["boolean", "object", "Int64"])
@pytest.mark.parametrize("name", ["y", "x0"])
def test_a_value_that_pandas_calls_na_fails_its_own_key(name: str, kind: str) -> None:
    data = frame(("a", "b"))
    data[name] = (data[name] > 0).astype(kind)
    data.loc[3, name] = pd.NA
    by_hand = {key: (rows[COLUMNS["features"]], rows["y"]) for key, rows in data.groupby("k")}
    for trained in (fleet.fit(mlp, data, **COLUMNS), fleet.fit(mlp, by_hand, epochs=1)):
        assert list(trained) == ["b"] and "NaN or infinity in 1 of 30 rows, first in row 3" in trained.failed["a"]
    if name == "y":
        series = fleet.fit(lambda: nn.Linear(8, 3), data, by="k", target="y", window=8, horizon=3, epochs=1)
        assert list(series) == ["b"] and "first in row 3" in series.failed["a"]


def test_a_number_beyond_float32_is_not_called_infinite() -> None:
    X, y = np.random.default_rng(0).normal(size=(2, 20, 6))
    with np.errstate(over="ignore"):
        trained = fleet.fit(mlp, {"far": (X * 1e39, y[:, 0]), "none": (np.where(X > 1, np.nan, X), y[:, 0])}, epochs=1)
    assert "as float32, which ends at 3.4e+38" in trained.failed["far"] and "float32" not in trained.failed["none"]

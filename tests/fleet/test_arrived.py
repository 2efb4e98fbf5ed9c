"""New rows: gaps in front of them, rows of the past, and blocks that begin with rows that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from hasten import fleet
from tests.fleet.common import mlp, weights
from tests.fleet.test_fit import series_net
from tests.fleet.test_given import COLUMNS, frame
from tests.fleet.test_times import BY_DAY, days

pd = pytest.importorskip("pandas")


def test_a_gap_before_new_rows_is_told(tmp_path: Path) -> None:
    data = days(slice(90), count=90)
    old, new = data[data["day"] < "2024-03-01"], data[data["day"] >= "2024-03-11"]
    trained = fleet.fit(series_net, old, **BY_DAY)
    trained.save(tmp_path / "f")
    for each in (trained, fleet.Fleet.load(tmp_path / "f", series_net)):
        (told,) = each.update(new[:10]).remarks
        assert "1 key lacks rows in time: 1 steps from the last known row on" in told and told in str(each.summary())
        assert each.update(new[10:]).remarks == ()


def test_rows_from_the_past_are_not_learned_as_if_they_were_new(tmp_path: Path) -> None:
    data = days(slice(90), count=90)
    two = pd.concat([data, data.assign(k="b")])
    trained = fleet.fit(series_net, two[two["day"] < "2024-03-01"], **BY_DAY)
    trained.save(tmp_path / "f")
    for each in (trained, fleet.Fleet.load(tmp_path / "f", series_net)):
        past, new = data[data["day"] < "2024-02-01"], data[data["day"] >= "2024-03-01"]
        found = each.update(pd.concat([past, new.assign(k="b")]))
        assert found.rows == len(new)
        assert found.failed == {"a": "31 of its 31 new rows come before, or are, rows that it has learned already"}
        other = new.assign(k="b", y=new["y"] + (new["day"] == "2024-03-05"))
        assert each.update(pd.concat([new, other])).failed.keys() == {"b"}
        why = each.update(other).failed["b"]
        n, at = len(new), 4
        assert why.startswith(f"{n} of its {n} new rows come before, or are, rows that it has learned already, and are")
        assert f"row {at} is {other['y'].iloc[at]:.4f}" in why and f"was {new['y'].iloc[at]:.4f}" in why


@pytest.mark.parametrize("series", [True, False])
def test_a_block_that_overlaps_is_learned_from_where_it_is_new(series: bool, tmp_path: Path) -> None:
    """To the bits of an update with the new rows alone; those that are known are told, and none of them learned."""
    data = days(slice(90), count=90).assign(x=np.linspace(-1, 1, 90))
    ways: dict[str, Any] = {**BY_DAY, "batch_size": 16}
    if not series:
        ways = {"by": "k", "features": ["x"], "target": "y", "time_column": "day", "epochs": 1, "batch_size": 16}
    make = series_net if series else lambda: nn.Linear(1, 1)
    fleet.fit(make, data[:60], **ways).save(tmp_path / "f")
    plain, overlaps, whole = (fleet.Fleet.load(tmp_path / "f", make) for _ in range(3))
    plain.update(data[60:75])
    plain.update(data[75:])
    for trained, begun in ((overlaps, 40), (whole, 0)):
        for first, last in ((60, 75), (75, 90)):
            found = trained.update(data[begun:last])
            assert found.rows == 15 and not found.failed
            assert f"{first - begun} rows (a: {first - begun})" in found.remarks[0]
        assert weights(trained) == weights(plain)
        again = trained.update(data[begun:])
        assert again.rows == 0 and not again.failed and weights(trained) == weights(plain)
    assert "are not the same" in plain.update(data[80:].assign(y=0.0)).failed["a"]
    assert "come before" in plain.update(data[80:85]).failed["a"]  # without the last one known
    assert "are not the same" in plain.update(pd.concat([data[80:85], data[86:]])).failed["a"]


def test_a_block_of_a_table_may_end_in_more_rows_of_the_last_time() -> None:
    data = frame(("a",)).assign(t=np.arange(30) // 3)
    trained, alone = (fleet.fit(mlp, data[:20], **COLUMNS, time_column="t") for _ in range(2))
    assert trained.update(data[15:25]).rows == alone.update(data[20:25]).rows == 5  # row 20 is of the time of 18 and 19
    assert weights(trained) == weights(alone)


def test_rows_of_a_table_may_be_of_one_time() -> None:
    data = frame(("a",)).assign(t=np.arange(30) // 2)
    trained = fleet.fit(mlp, data, **COLUMNS, time_column="t")
    assert trained.update(data[-1:]).rows == 1
    assert "come before" in trained.update(data[:2]).failed["a"]

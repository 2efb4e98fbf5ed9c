"""Data frames as people have them: keys of any kind, columns that are the frame's index."""

from __future__ import annotations

import pytest

from hasten import fleet
from hasten.core.errors import UsageError
from tests.fleet.common import mlp, weights
from tests.fleet.test_given import COLUMNS, frame

pytest.importorskip("pandas")


def test_keys_may_be_tuples() -> None:
    data = frame(("a", "b"))
    both = [(key, 1) for key in data[COLUMNS["by"]]]
    trained = fleet.fit(mlp, data.assign(**{COLUMNS["by"]: both}), **COLUMNS)
    assert set(trained) == {"('a', 1)", "('b', 1)"} and weights(trained).keys() == set(trained)
    assert ("a", 1) in trained


def test_a_column_that_is_the_index_is_named() -> None:
    with pytest.raises(UsageError, match=r"is the frame's index\n.*reset_index"):
        fleet.fit(mlp, frame(("a",)).set_index(COLUMNS["by"]), **COLUMNS)

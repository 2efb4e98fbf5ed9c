"""Folds, groups and classes: labels stay what they are, or are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold

from hasten.solve import BadData, GroupRidge, Moments, Prototypes, StreamingLogistic, ladder
from tests.solve.data import apart, table

X, Y = table(300, 3)


@pytest.mark.parametrize("folds", [2.5, -1, "5", KFold(3)])
def test_a_number_of_folds_is_whole(folds: Any) -> None:
    """They were taken for fold numbers, and a shape of () was told."""
    with pytest.raises(BadData, match="folds="):
        Moments(X, Y, folds=folds)


@pytest.mark.parametrize("mixed", [[1, "1"] * 150, np.array([1, "1"] * 150, dtype=object)])
def test_labels_of_several_kinds_are_no_classes(mixed: Any) -> None:
    """Of a list NumPy makes texts, and 1 became "1"."""
    for call in (
        lambda: StreamingLogistic().fit(X, mixed),
        lambda: Prototypes().fit(X, mixed),
        lambda: ladder(X, mixed, budget=5),
    ):
        with pytest.raises(BadData, match="texts and numbers: '1' and 1"):
            call()
        with pytest.raises(BadData, match="no label for row 1"):
            StreamingLogistic().fit(X, ["a", None] * 150)
    m = Moments(X, Y, groups=mixed)  # to keep apart is all that groups do
    assert len(m.labels) == 2 and m.parts.rows.tolist() == [150, 150]
    model = GroupRidge().fit(X, Y, groups=mixed)
    assert apart(model.predict(X[:2], [1, "1"])[0], model.predict(X[:1], [1])) == 0


def test_whole_numbers_beyond_int64_stay_apart_in_lists() -> None:
    """With one that int64 holds beside them, NumPy makes one float64 of them."""
    labels = [2**63 + 5, 2**63 + 6, 1] * 100
    assert sorted(Moments(X, Y, groups=labels).labels) == [1, 2**63 + 5, 2**63 + 6]  # type: ignore[type-var]

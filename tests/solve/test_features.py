"""Features that are made of columns."""

from __future__ import annotations

import numpy as np
import pytest

from hasten.solve import features


def test_knots_lie_in_all_of_sorted_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lay in the first rows only."""
    monkeypatch.setattr(features, "QUANTILE_ROWS", 100)
    found = features.Hinges(knots=3).fit(np.linspace(0, 1, 1000)[:, None]).knots_[:, 0]
    assert np.abs(found - [0.25, 0.5, 0.75]).max() < 0.01

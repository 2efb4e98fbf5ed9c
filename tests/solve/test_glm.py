"""Newton over streams whose rows do not all weigh."""

from __future__ import annotations

import numpy as np
import pytest

from hasten.solve import newton
from tests.solve.data import apart, table


@pytest.mark.parametrize("family", ["logistic", "poisson"])
def test_rows_without_weight_cost_newton_no_digits(family: str) -> None:
    """Their level was taken out of all columns."""
    X, y = table(300, 3)
    y = np.clip(np.round(y), 0, 1 if family == "logistic" else 20)
    weight = (np.arange(300) >= 30).astype(float)
    far = X + 1e13 * (1 - weight)[:, None]
    found = newton(far, y, family=family, sample_weight=weight)
    wanted = newton(X[30:], y[30:], family=family)
    assert found.converged and apart(found.coef, wanted.coef) < 1e-9

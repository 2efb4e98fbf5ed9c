"""Newton over streams whose rows do not all weigh, and do not all count over the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import PoissonRegressor

from hasten.solve import BadData, newton
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


def counts() -> tuple[Any, Any, Any, Any]:
    """X (300, 3), counts, exposures and weights."""
    random = np.random.default_rng(2)
    X = random.standard_normal((300, 3))
    exposure = random.uniform(0.1, 50, 300)
    return X, random.poisson(exposure * np.exp(X @ [0.3, -0.2, 0.1] - 1)), exposure, random.uniform(0.2, 3, 300)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_an_offset_is_scikit_learns_exposure(intercept: bool, weighted: bool) -> None:
    X, y, exposure, weight = counts()
    w = weight if weighted else np.ones(300)
    theirs = PoissonRegressor(alpha=2 / (w * exposure).sum(), fit_intercept=intercept, tol=1e-12, max_iter=9999)
    theirs.fit(X, y / exposure, exposure * w)
    ours = newton(X, y, family="poisson", alpha=2.0, sample_weight=w if weighted else None,
                  offset=np.log(exposure), fit_intercept=intercept, tol=1e-14)  # fmt: skip
    assert ours.converged
    assert apart([*ours.coef, ours.intercept], [*theirs.coef_, theirs.intercept_]) < 1e-6


def test_an_offset_of_labels_is_a_column_with_the_coefficient_1() -> None:
    X, y, _, _ = counts()
    labels, fixed = (y > np.median(y)).astype(float), X[:, 0]
    found = newton(X[:, 1:], labels, offset=fixed, alpha=0.0, tol=1e-14)
    eta = X[:, 1:] @ found.coef + found.intercept + fixed
    error = labels - 1 / (1 + np.exp(-eta))
    assert np.abs(np.column_stack([X[:, 1:], np.ones(300)]).T @ error).max() < 1e-8
    assert apart(newton(X[:, 1:], labels, offset=0 * fixed).coef, newton(X[:, 1:], labels).coef) < 1e-12


def test_an_offset_lies_beside_the_rows_or_is_one_of_their_columns(tmp_path: Path) -> None:
    X, y, exposure, _ = counts()
    table_ = pd.DataFrame(X, columns=["a", "b", "c"]).assign(n=y, size=np.log(exposure))
    table_.to_parquet(tmp_path / "rows.parquet")
    wanted = newton(X, y, family="poisson", offset=np.log(exposure)).coef
    batches = [(X[i : i + 70], y[i : i + 70]) for i in range(0, 300, 70)]
    for found in (
        newton(batches, family="poisson", offset=np.log(exposure)),
        newton(table_, "n", family="poisson", offset="size"),
        newton(str(tmp_path / "rows.parquet"), family="poisson", target="n", offset="size"),
    ):
        assert len(found.coef) == 3 and apart(found.coef, wanted) < 1e-9


@pytest.mark.parametrize(
    ("offset", "says"),
    [
        (lambda e: np.log(e)[:-1], "X has 300 rows, the offset has 299"),
        (lambda e: np.append(np.log(e), 0), "X has 300 rows, the offset has 301"),
        (lambda e: np.log(np.where(np.arange(300) == 7, 0, e)), "offset of row 7 is -inf"),
        (lambda e: np.column_stack([e, e]), r"shape \(300, 2\)"),
        (lambda e: "size", "'size' names a column"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_offsets_of_other_rows_are_refused(offset: Callable[[Any], Any], says: str) -> None:
    X, y, exposure, _ = counts()
    with pytest.raises(BadData, match=says):
        newton(X, y, family="poisson", offset=offset(exposure))


def overlapping(rows: int = 400) -> tuple[Any, Any]:
    """X (rows, 3), the last one a mark, and labels that no plane separates, but for a few marked rows."""
    X, y = table(rows, 3)
    X[:, 2] = np.arange(rows) < 7
    return X, ((y > 3) | (X[:, 2] > 0)).astype(float)


@pytest.mark.parametrize("intercept", [True, False])
def test_rows_that_a_plane_separates_have_no_optimum(intercept: bool) -> None:
    """The others' loss hid what these still gained, and the coefficient, infinite at the optimum, was called one."""
    X, y = overlapping()
    found = newton(X, y, alpha=0.0, fit_intercept=intercept)
    assert not found.converged and found.passes < 60
    line = np.array([[-2.0], [-1], [0], [0], [1], [2]])
    assert not newton(line, [0, 0, 0, 1, 1, 1], alpha=0.0).converged
    assert not newton(line[[0, 1, 4, 5]], [0, 0, 1, 1], alpha=0.0).converged
    assert newton(X[:, :2], (table(400, 3)[1] > 3).astype(float), alpha=0.0, fit_intercept=intercept).converged


def test_a_group_without_counts_has_no_optimum() -> None:
    X, y, _, _ = counts()
    group = (np.arange(300) < 10).astype(float)
    X, y = np.column_stack([X, group]), np.where(group > 0, 0, y)
    assert not newton(X, y, family="poisson", alpha=0.0).converged
    assert newton(X[:, :3], y, family="poisson", alpha=0.0).converged


@pytest.mark.parametrize("alpha", [1e-3, 1e-9])
def test_a_faint_penalty_has_an_optimum_where_classes_are_separable(alpha: float) -> None:
    """Steps ended on the way there."""
    X, y = overlapping()
    found = newton(X, y, alpha=alpha)
    error = 1 / (1 + np.exp(-(X @ found.coef + found.intercept))) - y
    assert found.converged and np.abs(X.T @ error + alpha * found.coef).max() < 0.05 * alpha * found.coef[2]

"""Paths over alpha against scikit-learn and against leaving rows out one by one."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneOut, cross_val_score

from hasten.solve import BadData, Moments, kfold, leave_one_out
from hasten.solve.problems import FewDigits
from hasten.solve.source import open_source
from tests.solve.data import table

ALPHAS = np.logspace(-2, 4, 9)
SMALL = np.array([1e-4, 1e-2])


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_squared_error"])
def test_k_fold_scores_are_those_of_a_grid_search(scoring: str) -> None:
    X, y = table(203, 7, offset=10.0)
    grid = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=5, scoring=scoring).fit(X, y)
    found = kfold(Moments(X, y, folds=5), ALPHAS)
    ours = found.r2 if scoring == "r2" else -found.mse
    assert np.abs(ours.mean(axis=(0, 2)) - grid.cv_results_["mean_test_score"]).max() < 1e-11
    if scoring != "r2":
        assert found.alpha == grid.best_params_["alpha"]


def test_leave_one_out_is_that_of_ridgecv() -> None:
    X, y = table(150, 5, offset=3.0)
    found, _ = leave_one_out(open_source(X, y), Moments(X, y), ALPHAS)
    theirs = RidgeCV(ALPHAS, store_cv_results=True).fit(X, y)
    assert np.abs(found.mse[0, :, 0] - theirs.cv_results_.mean(axis=0)).max() < 1e-10
    assert found.alpha == theirs.alpha_


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_leave_one_out_is_leaving_out_one(intercept: bool, weighted: bool) -> None:
    X, y = table(30, 3, offset=1.0)
    w: Any = np.random.default_rng(0).random(30) + 0.1 if weighted else np.ones(30)
    m = Moments(X, y, sample_weight=w)
    found, _ = leave_one_out(open_source(X, y, w), m, [2.0], fit_intercept=intercept)
    total = 0.0
    for i in range(30):
        rest = np.arange(30) != i
        model = Ridge(2.0, fit_intercept=intercept).fit(X[rest], y[rest], sample_weight=w[rest])
        total += w[i] * (y[i] - model.predict(X[i : i + 1])[0]) ** 2
    assert found.mse[0, 0, 0] == pytest.approx(total / w.sum(), rel=1e-10)


def test_scaled_penalties_do_not_depend_on_units() -> None:
    X, y = table(100, 3)
    a = kfold(Moments(X, y, folds=4), ALPHAS, scale=True)
    b = kfold(Moments(X * [1e-3, 1.0, 1e4], y, folds=4), ALPHAS, scale=True)
    assert np.allclose(a.mse, b.mse, rtol=1e-9)


def test_no_folds_no_alphas() -> None:
    X, y = table()
    with pytest.raises(BadData, match="folds"):
        kfold(Moments(X, y), ALPHAS)
    for wrong in ([], [-1.0], [np.nan]):
        with pytest.raises(BadData, match="alphas"):
            kfold(Moments(X, y, folds=3), wrong)


def test_shares_of_the_variance_are_around_the_mean_with_and_without_an_intercept() -> None:
    """Leave-one-out without an intercept told them around nought, k-fold around the mean."""
    X, y = table(120, 3, offset=5.0)
    for intercept in (True, False):
        m = Moments(X, y)
        found = leave_one_out(open_source(X, y), m, ALPHAS, fit_intercept=intercept)[0]
        assert found.r2[0, :, 0] == pytest.approx(1 - found.mse[0, :, 0] / y.var(), rel=1e-10)


@pytest.mark.parametrize("by", ["k-fold", "leave-one-out"])
def test_errors_of_few_digits_are_told(by: str) -> None:
    """A common offset without an intercept is a condition of 1e6: errors were off by a thousandth, and said nothing."""
    random = np.random.default_rng(1)
    X = random.standard_normal((40, 4)) * 1e-2 + 1e4
    y = random.standard_normal(40) + X @ random.standard_normal(4) * 1e-4

    def errors(intercept: bool) -> Any:
        if by == "k-fold":
            return kfold(Moments(X, y, folds=4), SMALL, fit_intercept=intercept)
        return leave_one_out(open_source(X, y), Moments(X, y), SMALL, fit_intercept=intercept)[0]

    with pytest.warns(FewDigits, match="the best alpha"):
        found = errors(False)
    held = LeaveOneOut() if by == "leave-one-out" else KFold(4)
    for alpha, mse, rounding in zip(SMALL, found.mse.mean(axis=(0, 2)), found.rounding, strict=True):
        model = Ridge(alpha, fit_intercept=False, solver="svd")
        wanted = -cross_val_score(model, X, y, cv=held, scoring="neg_mean_squared_error").mean()
        assert abs(mse - wanted) < rounding * (np.mean(y**2) + wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert errors(True).rounding.max() < 1e-10

"""Elimination where X's condition cannot be squared: against models that are fitted one by one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import KFold

from hasten.solve import BadData, ExactRFECV
from tests.solve.data import table


class Plain(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Least squares by singular values of columns of one length; scikit-learn 1.9's own drops directions below 1e-6."""

    def __init__(self, alpha: float = 0.0, intercept: bool = True) -> None:
        self.alpha, self.intercept = alpha, intercept

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        mean, level = (np.average(v, axis=0, weights=weight) * self.intercept for v in (X, y))
        root = np.sqrt(weight)[:, None]
        rows, right = (X - mean) * root, (y - level).reshape(len(X), -1) * root
        scale = np.linalg.norm(rows, axis=0)
        flat = scale <= 1e-13 * np.abs(X).max(axis=0)
        rows[:, flat], scale[flat] = 0.0, 1.0
        rows = np.vstack([rows / scale, np.sqrt(self.alpha) * np.diag(1 / scale)])
        right = np.vstack([right, np.zeros((X.shape[1], right.shape[1]))])
        coef = np.linalg.lstsq(rows, right, rcond=None)[0] / scale[:, None]
        self.coef_ = coef[:, 0] if y.ndim == 1 else coef.T
        self.intercept_ = level - mean @ self.coef_.T
        return self

    def predict(self, X: Any) -> Any:
        return X @ self.coef_.T + self.intercept_


def steep(rows: int, columns: int, condition: float, seed: int = 0) -> tuple[Any, Any]:
    """X, and y to which every direction of it matters."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((rows, columns)))[0]
    right = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
    X = left * np.geomspace(1, 1 / condition, columns) @ right
    return X, left @ rng.standard_normal(columns) + 1e-3 * rng.standard_normal(rows)


@pytest.mark.parametrize("condition", [1e5, 1e7, 1e9, 1e11])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1e-12])
def test_the_ranking_is_that_of_models_fitted_one_by_one(condition: float, intercept: bool, alpha: float) -> None:
    for seed in range(3):
        X, y = steep(300, 6, condition, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if condition < 1e10 else "ignore")  # then few digits are left, which is told
            ours = ExactRFECV(alpha, fit_intercept=intercept).fit(X, y)
        theirs = RFECV(Plain(alpha, intercept), cv=KFold(5)).fit(X, y)
        assert "QR" in ours.method_ and (ours.ranking_ == theirs.ranking_).all()
        off = ours.cv_results_["mean_test_score"] - theirs.cv_results_["mean_test_score"]
        assert np.abs(off).max() < 1e-19 * condition**2 + 1e-13 * condition
        wanted = theirs.estimator_.predict(X[:, theirs.support_])
        np.testing.assert_allclose(ours.predict(X), wanted, atol=1e-15 * condition * np.abs(y).max() * 10)


@pytest.mark.parametrize(("step", "least"), [(2, 1), (3, 2), (0.1, 1), (0.3, 4), (50, 1), (0.01, 11)])
@pytest.mark.parametrize("condition", [10.0, 1e7])
def test_several_columns_are_dropped_at_a_time_as_by_scikit_learn(condition: float, step: float, least: int) -> None:
    """Of moments (a condition of 10) and of triangles."""
    X, y = steep(200, 11, condition)
    ours = ExactRFECV(step=step, min_features_to_select=least).fit(X, y)
    theirs = RFECV(Plain(), cv=KFold(5), step=step, min_features_to_select=least).fit(X, y)
    assert ("QR" in ours.method_) == (condition > 100)
    assert (ours.ranking_ == theirs.ranking_).all() and ours.n_features_ == theirs.n_features_
    assert (ours.cv_results_["n_features"] == theirs.cv_results_["n_features"]).all()
    for name in ("mean_test_score", "split3_test_score"):
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], atol=1e-13 * condition)
    wanted = theirs.estimator_.predict(X[:, theirs.support_])
    np.testing.assert_allclose(ours.predict(X), wanted, atol=1e-14 * condition * np.abs(y).max())


@pytest.mark.parametrize("step", [0, -1, 1.5, 0.0, 2.0, "2", None])
def test_a_step_that_is_no_number_of_columns_is_told_before_rows_are_read(step: Any) -> None:
    with pytest.raises(BadData, match="step="):
        ExactRFECV(step=step).fit("no such file.parquet")


def test_files_weights_targets_and_splitters_are_as_well(tmp_path: Path) -> None:
    X, y = steep(400, 5, 1e8)
    Y = np.column_stack([y, y**3])
    weight = np.random.default_rng(0).random(400)
    folds = KFold(4, shuffle=True, random_state=0)
    ours = ExactRFECV(cv=folds).fit(X, Y)
    theirs = RFECV(Plain(), cv=folds).fit(X, Y)
    assert (ours.ranking_ == theirs.ranking_).all()
    np.testing.assert_allclose(
        ours.cv_results_["split2_test_score"], theirs.cv_results_["split2_test_score"], rtol=1e-6, atol=1e-6
    )
    twice = ExactRFECV().fit(np.repeat(X, 2, axis=0), np.repeat(Y, 2, axis=0))
    heavy = ExactRFECV().fit(X, Y, np.full(400, 2.0))
    np.testing.assert_allclose(heavy.cv_results_["mean_test_score"], twice.cv_results_["mean_test_score"], rtol=1e-6)
    assert ExactRFECV().fit(X, Y, weight).coef_.shape == (2, 5)
    np.save(tmp_path / "d.npy", np.column_stack([X, Y[:, 0]]))
    stored = ExactRFECV(cv=4).fit(str(tmp_path / "d.npy"))
    in_memory = ExactRFECV(cv=4).fit(X, Y[:, 0])
    assert "QR" in stored.method_ and (stored.ranking_ == in_memory.ranking_).all()
    np.testing.assert_allclose(stored.coef_, in_memory.coef_, rtol=1e-6, atol=1e-9)


def test_constants_and_copies_beside_steep_columns() -> None:
    X, y = steep(300, 4, 1e7)
    X = np.column_stack([X[:, :2], np.full(300, 7.1), X[:, 2:], np.zeros(300)])
    X[60:, 2] += np.arange(240) == 239  # constant in all folds but the last
    ours, theirs = ExactRFECV().fit(X, y), RFECV(Plain(), cv=KFold(5)).fit(X, y)
    assert (ours.ranking_ == theirs.ranking_).all()
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-6, atol=1e-6
    )


def test_what_can_be_squared_needs_no_second_pass() -> None:
    X, y = table(300, 6)
    ours = ExactRFECV().fit(X, y)
    assert ours.method_.startswith("one pass")
    steep = X.copy()
    steep[:, 5] = X[:, 0] + 1e-5 * X[:, 5]
    again = ExactRFECV().fit(steep, y)
    theirs = RFECV(LinearRegression(tol=1e-15), cv=5).fit(steep, y)
    assert (again.ranking_ == theirs.ranking_).all()
    once = ExactRFECV().fit((steep[i : i + 50], y[i : i + 50]) for i in range(0, 300, 50))
    assert once.method_.startswith("one pass")


def test_scores_of_an_elimination_begin_with_the_least_number_of_columns() -> None:
    X, y = table(60, 5)
    ours = ExactRFECV(1.0, cv=4, min_features_to_select=3).fit(X, y)
    theirs = RFECV(Ridge(1.0), cv=KFold(4), min_features_to_select=3).fit(X, y)
    assert ours.n_features_ == theirs.n_features_ and (ours.ranking_ == theirs.ranking_).all()
    for name, values in ours.cv_results_.items():
        assert values == pytest.approx(theirs.cv_results_[name], rel=1e-9)

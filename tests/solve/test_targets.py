"""Targets with alphas of their own: against scikit-learn's, by every method, from rows, files, streams and moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from hasten.solve import BadData, Moments, StreamingLogistic, StreamingRidge, choose, lstsq, newton, ridge
from hasten.solve.accuracy import METHODS
from tests.solve.data import apart

ALPHAS = [10.0, 0.1, 10.0, 1.0]


def rows(condition: float = 30.0) -> tuple[Any, Any, Any]:
    """X, four targets and weights."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 5)) * np.geomspace(1, 1 / condition, 5) @ np.linalg.qr(rng.standard_normal((5, 5)))[0]
    Y = X @ rng.standard_normal((5, 4)) + 0.1 * rng.standard_normal((400, 4)) + [0, 10, 0, -5]
    return X + 3, Y, rng.random(400)


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("intercept", [True, False])
def test_each_target_is_solved_as_by_scikit_learn(method: str, intercept: bool) -> None:
    X, Y, weight = rows()
    found = lstsq(X, Y, alpha=ALPHAS, sample_weight=weight, method=method, fit_intercept=intercept)
    known = Ridge(ALPHAS, fit_intercept=intercept).fit(X, Y, weight)
    np.testing.assert_allclose(found.coef_.T, known.coef_, rtol=1e-9)
    np.testing.assert_allclose(found.intercept_, known.intercept_, rtol=1e-11, atol=1e-11)
    for j, alpha in enumerate(ALPHAS):
        own = lstsq(X, Y[:, j], alpha=alpha, sample_weight=weight, method=method, fit_intercept=intercept)
        np.testing.assert_allclose(found.coef_[:, j], own.coef_[:, 0], rtol=1e-10)
        assert found.condition_ >= own.condition_ * (1 - 1e-9) and found.error_bound_ >= own.error_bound_ * 0.99


def test_what_depends_on_no_alpha_is_done_once() -> None:
    X, Y, _ = rows(1.0)
    assert lstsq(X - X.mean(axis=0), Y, alpha=ALPHAS).passes_ == 1
    X, Y, _ = rows(1e10)  # QR takes it, once an alpha
    same, apart = lstsq(X, Y, alpha=[0.0] * 4), lstsq(X, Y, alpha=[0.0, 1e-30, 0.0, 0.0])
    assert "TSQR" in apart.method_ and same.passes_ == 3 and apart.passes_ == 5


def test_streams_that_are_read_once_have_alphas_too(tmp_path: Path) -> None:
    X, Y, _ = rows()
    np.save(tmp_path / "x.npy", X)
    wanted = lstsq(X, Y, alpha=ALPHAS)
    assert apart(lstsq(tmp_path / "x.npy", Y, alpha=ALPHAS).coef_, wanted.coef_) < 1e-11
    once = lstsq(((X[i : i + 50], Y[i : i + 50]) for i in range(0, 400, 50)), alpha=ALPHAS)
    assert once.passes_ == 1 and apart(once.coef_, wanted.coef_) < 1e-9
    with pytest.raises(BadData, match="read once"):
        lstsq(((X, Y) for _ in range(1)), alpha=ALPHAS, method="tsqr")
    with pytest.raises(BadData, match="alpha is"):
        lstsq(X, Y, alpha=ALPHAS[:3])


@pytest.mark.parametrize("cv", [None, 5])
@pytest.mark.parametrize("scale", [False, True])
def test_the_best_alpha_of_each_target_is_that_of_ridgecv(cv: Any, scale: bool) -> None:
    X, Y, _ = rows()
    Y = Y + np.random.default_rng(1).standard_normal(Y.shape) * [0, 1, 5, 30]
    alphas = np.logspace(-3, 4, 8)
    given = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1) if scale else X
    found = StreamingRidge(alphas, cv=cv, scale=scale, alpha_per_target=True).fit(X, Y)
    if cv is None:
        assert (found.alpha_ == RidgeCV(alphas, alpha_per_target=True).fit(given, Y).alpha_).all()
    assert found.alpha_.shape == (4,) and len(set(found.alpha_)) > 1
    assert apart(found.predict(X), Ridge(found.alpha_).fit(given, Y).predict(given)) < 1e-9
    alone = StreamingRidge(alphas, cv=cv, scale=scale, alpha_per_target=True).fit(X, Y[:, 2])
    assert isinstance(alone.alpha_, float) and alone.alpha_ == found.alpha_[2]


def test_rows_that_are_added_have_an_alpha_for_each_target_too() -> None:
    X, Y, _ = rows()
    Y = Y + np.random.default_rng(1).standard_normal(Y.shape) * [0, 1, 5, 30]
    alphas = np.logspace(-3, 4, 8)
    found = StreamingRidge(alphas, alpha_per_target=True)
    for part in np.array_split(np.arange(400), 4):
        found.partial_fit(X[part], Y[part])
    assert len(set(found.alpha_)) > 1
    assert apart(found.coef_, ridge(found.moments_, found.alpha_).coef.T) < 1e-10
    chosen = StreamingRidge(alphas, alpha_per_target=True).fit(X, Y)  # by leave-one-out: later rows have no folds
    before = chosen.alpha_.copy()
    assert (chosen.partial_fit(X[:9], Y[:9]).alpha_ == before).all()


@pytest.mark.parametrize("alpha", [[1.0, 2.0, 3.0], [1.0, -1.0], [[1.0, 2.0]], np.inf, "1.0x", None])
def test_alpha_is_one_number_or_one_for_each_target(alpha: Any) -> None:
    """Of three for three targets each was taken for one of the columns."""
    X, many, _ = rows()
    many = many[:, :2]
    classes = many[:, 0] > 0
    for call in (
        lambda: lstsq(X, many, alpha=alpha),
        lambda: lstsq(X, many, alpha=alpha, method="tsqr"),
        lambda: ridge(Moments(X, many), alpha),
        lambda: choose(X, many, alpha=alpha),
        lambda: newton(X, classes, alpha=alpha),
        lambda: StreamingLogistic(alpha).fit(X, classes),
    ):
        with pytest.raises(BadData, match="alpha is"):
            call()

"""The ladder: a QR's accuracy at any condition and offset; what was done, and the bound, are told."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from hasten.solve import (
    BadData,
    ExactRFECV,
    Moments,
    StreamingRidge,
    kfold,
    leave_one_out,
    lstsq,
    open_source,
    ridge,
    summary,
)  # fmt: skip
from hasten.solve.accuracy import METHODS, SINGLE_COLUMNS, DependentColumns
from hasten.solve.linear import FaintColumns
from tests.solve.data import apart, conditioned, exact, table


def error(found: Any, wanted: Any) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e9])
def test_the_error_is_that_of_a_qr_and_below_its_bound(dtype: Any, offset: float, condition: float) -> None:
    ours, theirs = [], []
    for seed in range(3):
        X = (conditioned(800, 8, condition, seed) + offset).astype(dtype)
        w = np.random.default_rng(seed).standard_normal(8)
        y = (X.astype(float) - offset) @ w + 1e-4 * np.random.default_rng(seed + 9).standard_normal(800)
        wanted = exact(X, y)
        answer = lstsq(X, y)
        got = error(answer.coef_[:, 0], wanted)
        assert got <= answer.error_bound_
        X1 = X.astype(float) - X[0].astype(float)  # a QR is given its best chance, too
        Q, R = np.linalg.qr(np.column_stack([np.ones(800), X1]))
        ours.append(got)
        theirs.append(error(np.linalg.solve(R, Q.T @ (y - y[0]))[1:], wanted))
    assert np.median(ours) <= max(10 * np.median(theirs), 1e-14)


def test_the_rung_follows_the_condition() -> None:
    y = np.random.default_rng(0).standard_normal(600)
    methods = [lstsq(conditioned(600, 5, c), y).method_ for c in (1.0, 1e4, 1e11)]
    assert methods == ["Gram in float64", "Gram in float64, refined", "TSQR stream"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_every_rung_solves_the_same_problem(method: str, alpha: float) -> None:
    X, y = table(700, 5, offset=2.0)
    Y = np.column_stack([y, -2 * y + X[:, 0]])
    w = np.random.default_rng(0).random(700)
    C = X - np.average(X, axis=0, weights=w)
    wanted = np.linalg.solve(C.T @ (C * w[:, None]) + alpha * np.eye(5), C.T @ (w[:, None] * Y))
    answer = lstsq(X, Y, alpha=alpha, sample_weight=w, method=method)
    assert error(answer.coef_, wanted) < 1e-11
    no = lstsq(X, Y, alpha=alpha, sample_weight=w, method=method, fit_intercept=False)
    wanted = np.linalg.solve(X.T @ (X * w[:, None]) + alpha * np.eye(5), X.T @ (w[:, None] * Y))
    assert error(no.coef_, wanted) < 1e-11 and not no.intercept_.any()


def test_dependent_columns_are_told_and_predictions_stay_right() -> None:
    X, y = table(500, 4)
    X = np.column_stack([X, X[:, 0] + X[:, 1], np.full(500, 7.0)])
    with pytest.warns(DependentColumns, match="rank 4"):
        answer = lstsq(X, y)
    assert answer.rank_ == 4 and answer.condition_ == np.inf
    full = lstsq(X[:, :4], y)
    predictions = X @ answer.coef_[:, 0] + answer.intercept_
    assert error(predictions, X[:, :4] @ full.coef_[:, 0] + full.intercept_) < 1e-10


def test_constant_columns_get_no_coefficient() -> None:
    X, y = table(100, 3)
    X[:, 1] = 1e5 / 3
    answer = lstsq(X, y)
    assert answer.coef_[1] == 0 and np.isfinite(answer.condition_)


def test_one_row_is_its_own_mean() -> None:
    answer = lstsq(np.array([[1.0, 2.0]]), [5.0])
    assert not answer.coef_.any() and answer.intercept_ == 5.0


def test_a_stream_that_is_read_once_gets_one_pass_or_an_error() -> None:
    X, y = table(300, 3)
    batches = lambda: ((X[i : i + 50], y[i : i + 50]) for i in range(0, 300, 50))  # noqa: E731
    assert lstsq(batches()).passes_ == 1
    assert error(lstsq(batches(), method="tsqr").coef_, lstsq(X, y).coef_) < 1e-12
    with pytest.raises(BadData, match="read once"):
        lstsq(batches(), method="refined")


@pytest.mark.parametrize("alpha", [-1.0, np.nan, np.inf])
def test_no_such_alpha(alpha: float) -> None:
    with pytest.raises(BadData, match="alpha"):
        lstsq(*table(), alpha=alpha)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_scales_beyond_single_precision(scale: float) -> None:
    """Squares were 0 or infinite in float32."""
    X = np.random.default_rng(0).standard_normal((20 * SINGLE_COLUMNS, SINGLE_COLUMNS))
    found = lstsq(X * scale, X[:, 0])
    assert "float64" in found.method_ and found.coef_[0, 0] * scale == pytest.approx(1.0)


def test_constants_alone_have_no_error() -> None:
    y = np.arange(9.0)
    for X in (np.ones((9, 2)), np.ones((9, 0))):
        found = lstsq(X, y)
        assert found.error_bound_ < 1e-15 and found.intercept_[0] == 4 and not found.coef_.any()


SIZES = [1e-100, 1e-150, 1e-158, 1e-162, 1e-170, 1e-300]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_columns_whose_squares_vanish_are_solved_by_qr(size: float, alpha: float) -> None:
    """At 1e-162 half of a coefficient was wrong, below it was 0, with bounds of 1e-14."""
    X, y = table(500, 3)
    scale = np.array([1.0, size, 1.0])
    if alpha:  # a penalty that is small to the other columns, and all there is to the tiny one
        wanted = lstsq(X[:, [0, 2]], y, alpha=alpha).coef_[:, 0]
        found = lstsq(X * scale, y, alpha=alpha)
        assert apart(found.coef_[[0, 2], 0], wanted) < 1e-12 and abs(found.coef_[1, 0] * size) < 1e-100
        return
    wanted, found, model = lstsq(X, y).coef_[:, 0], lstsq(X * scale, y), StreamingRidge(0.0).fit(X * scale, y)
    assert apart(found.coef_[:, 0] * scale, wanted) <= min(found.error_bound_, 1e-13)
    assert apart(model.coef_ * scale, wanted) <= min(model.error_bound_, 1e-13)
    assert found.method_ == ("TSQR stream" if size < 1e-153 else lstsq(X, y).method_)


@pytest.mark.parametrize("size", SIZES)
def test_where_only_squares_are_at_hand_such_columns_are_told_and_count_as_constant(size: float) -> None:
    X, y = table(500, 3)
    X[:, 1] *= size
    m = Moments(X, y)
    if size > 1e-153:
        assert apart(ridge(m).coef[:, 0] * [1, size, 1], lstsq(X, y).coef_[:, 0] * [1, size, 1]) < 1e-13
        return
    uses: list[Any] = [
        lambda: ridge(m).coef,
        lambda: lstsq(X, y, method="gram64").coef_,
        lambda: lstsq((X, y) for _ in [0]).coef_,
    ]
    for solve in uses:
        with pytest.warns(FaintColumns, match="x1"):
            coef = solve()
        assert coef[1, 0] == 0 and apart(coef[[0, 2]], lstsq(X[:, [0, 2]], y).coef_) < 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m.update(table(500, 3, seed=1)[0], y)  # as soon as other rows come, there is something to square
        ridge(m)
        X[:, 1] = size  # what is constant is not faint
        ridge(Moments(X, y))


@pytest.mark.parametrize("size", [1e-10, 1e-22, 1e-30])
def test_products_in_float32_tell_columns_whose_squares_they_lose(size: float) -> None:
    X, y = table(500, 3)
    X[:, 1] *= size
    if size < 1e-18:
        with pytest.warns(FaintColumns, match="x1.*float32"):
            ridge(Moments(X, y, precision="float32"))
    else:
        found = ridge(Moments(X, y, precision="float32")).coef[:, 0] * [1, size, 1]
        assert apart(found, lstsq(X, y).coef_[:, 0] * [1, size, 1]) < 1e-5


def test_a_target_whose_squares_are_lost_is_told_where_errors_are_compared() -> None:
    X, y = table(300, 3)
    tiny = 1e-200 * y
    assert apart(lstsq(X, tiny).coef_ * 1e200, lstsq(X, y).coef_) < 1e-12
    uses: list[Any] = [
        lambda: kfold(Moments(X, tiny, folds=3), [1.0, 2.0]),
        lambda: leave_one_out(open_source(X, tiny), Moments(X, tiny), [1.0, 2.0]),
        lambda: summary(Moments(X, tiny)),
        lambda: ExactRFECV().fit(X, tiny),
    ]
    for use in uses:
        with pytest.raises(BadData, match="target 'y' varies by less"):
            use()
    summary(Moments(X, np.full(300, 1e-200)))  # what is constant is not faint


def test_products_in_float32_cost_the_intercept_no_digits() -> None:
    """Corrections were of the coefficients alone: predictions were off by as much as means of float32 products are."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5000, 20)) + 3
    y = X @ rng.standard_normal(20) + 7 + rng.standard_normal(5000)
    weight = rng.random(5000)
    for given in (None, weight):
        single, double = (lstsq(X, y, method=m, sample_weight=given) for m in ("gram32", "tsqr"))
        assert abs(single.intercept_ - double.intercept_) < 1e-12 * abs(X @ double.coef_).max()

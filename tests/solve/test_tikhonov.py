"""Ridge and generalised Tikhonov regularisation: penalties of any size, with null spaces; error bounds that hold."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from hasten.solve import BadData, Moments, ridge
from hasten.solve.problems import DependentColumns


def _stacked(X: Any, y: Any, rows: Any) -> Any:
    """The same minimum in quadruple the digits of a Gram matrix: QR of all rows, in long double's refinement."""
    centred, right = X - X.mean(axis=0), y - y.mean()
    a = np.vstack([rows, centred]).astype(np.longdouble)
    b = np.concatenate([np.zeros(len(rows)), right]).astype(np.longdouble)
    order = np.argsort(-np.abs(a).max(axis=1).astype(float), kind="stable")
    q, r = np.linalg.qr(a[order].astype(float))
    coef = np.linalg.solve(r, q.T @ b[order].astype(float)).astype(np.longdouble)
    for _ in range(5):
        gradient = a.T @ (b - a @ coef)
        coef = coef + np.linalg.solve(r, np.linalg.solve(r.T, gradient.astype(float)))
    return coef.astype(float)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("rows", [12, 300])
def test_a_penalty_with_a_null_space_may_be_of_any_size(size: float, rows: int) -> None:
    rng = np.random.default_rng(0)
    p = 10
    X = rng.standard_normal((rows, p)) + 100
    y = X @ np.linspace(0, 1, p) + rng.standard_normal(rows)
    differences = size * np.diff(np.eye(p), 2, axis=0)  # straight lines are free
    fit = ridge(Moments(X, y), penalty=differences)
    known = _stacked(X, y, differences)
    assert fit.rank == p and np.isfinite(fit.condition)
    if size == 1e12:  # the limit: a straight line, fitted to the rows
        lines = np.column_stack([np.ones(p), np.arange(p)])
        free = np.linalg.lstsq((X - X.mean(axis=0)) @ lines, y - y.mean(), rcond=None)[0]
        known = lines @ free
    np.testing.assert_allclose(fit.coef[:, 0], known, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_error_bound_holds(condition: float, noise: float) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        q = np.linalg.qr(rng.standard_normal((400, 6)) - 0.0)[0]
        X = q @ np.diag(np.geomspace(1, 1 / condition, 6)) @ np.linalg.qr(rng.standard_normal((6, 6)))[0] + 3
        y = X @ rng.standard_normal(6) + noise * rng.standard_normal(400)
        fit = ridge(Moments(X, y))
        scale = (X - X.mean(axis=0)).std(axis=0)
        off = np.linalg.norm((fit.coef[:, 0] - _stacked(X, y, np.zeros((0, 6)))) * scale)
        assert off <= max(fit.error_bound, 1e-15) * np.linalg.norm(fit.coef[:, 0] * scale)
        assert fit.error_bound < 1e-10 * condition**2 * 100


def test_every_target_may_have_its_own_alpha_as_in_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((100, 4)) + 5, rng.standard_normal((100, 3))
    weight = rng.random(100)
    for alphas in ([0.1, 10.0, 0.1], np.array([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.25, 0.125])):
        fit = ridge(Moments(X, Y, sample_weight=weight), alphas)
        known = Ridge(np.asarray(alphas)).fit(X, Y, weight)
        np.testing.assert_allclose(fit.coef.T, known.coef_, rtol=1e-10)
        np.testing.assert_allclose(fit.intercept, known.intercept_, rtol=1e-10)
    with pytest.raises(BadData, match="one for each target"):
        ridge(Moments(X, Y), [1.0, 2.0])
    with pytest.raises(BadData, match="negative"):
        ridge(Moments(X, Y), [1.0, 2.0, -1.0])


def test_dependent_columns_are_told() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 2))
    m = Moments(np.column_stack([x, x.sum(axis=1)]), x[:, 0])
    with pytest.warns(DependentColumns, match="rank 2"):
        fit = ridge(m)
    assert fit.dependent and fit.error_bound == np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ridge(m, 1e-3).error_bound < 1e-6
        assert not ridge(m, penalty=np.array([[1.0, 1.0, -1.0]])).dependent
    with pytest.warns(DependentColumns):
        assert ridge(m, penalty=1e9 * np.array([[1.0, -1.0, 0.0]])).rank == 2

"""Windows and recursive models: exact after every row, drift measured and healed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.solve import BadData, Recursive, Window
from tests.solve.data import apart, table


def plain(X, y, alpha):  # type: ignore[no-untyped-def]
    return np.linalg.solve(X.T @ X + alpha * np.eye(X.shape[1]), X.T @ y)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=20), st.integers(1, 40), st.integers(0, 99))
def test_any_blocks_are_the_ridge_of_the_last_rows(blocks: list[int], size: int, seed: int) -> None:
    X, y = table(300, 3, seed)
    window, at = Window(3, 1, size, alpha=0.5, check=7), 0
    for rows in blocks:
        if rows == 1:
            window.slide(X[at], y[at])
        else:
            window.extend(X[at : at + rows], y[at : at + rows])
        at += rows
        first = max(0, at - size)
        assert apart(window.coef[:, 0], plain(X[first:at], y[first:at], 0.5)) < 1e-8


def test_many_targets_and_pickles() -> None:
    X, y = table(60, 3)
    Y = np.column_stack([y, X[:, 0]])
    window = Window(3, 2, 20)
    for i in range(30):
        window.slide(X[i], Y[i])
    window = pickle.loads(pickle.dumps(window))
    for i in range(30, 60):
        window.slide(X[i], Y[i])
    assert apart(window.coef, plain(X[40:], Y[40:], 1.0)) < 1e-10


def test_drift_is_measured_and_healed() -> None:
    X, y = table(400, 3)
    window = Window(3, 1, 50, check=10**9)
    for i in range(200):
        window.slide(X[i], y[i])
    assert window.measure() < 1e-10 and window.healed == 0
    window._inverse *= 1.01
    window._coef += 1
    assert window.measure() > 1e-3 and window.healed == 1
    assert apart(window.coef[:, 0], plain(X[150:200], y[150:200], 1.0)) < 1e-11
    assert window.measure() < 1e-12


def test_a_row_that_holds_nan_is_refused() -> None:
    X, y = table(30, 3)
    window = Window(3, 1, 10)
    for i in range(15):
        window.slide(X[i], y[i])
    before = window.coef.copy()
    with pytest.raises(BadData):
        window.slide([np.nan, 1, 2], 1.0)
    assert np.array_equal(window.coef, before)
    with pytest.raises(BadData):
        Window(3, alpha=0.0)


@pytest.mark.parametrize("forgetting", [1.0, 0.97])
def test_recursive_models_forget_exponentially(forgetting: float) -> None:
    X, y = table(120, 3)
    models = Recursive(5, 3, forgetting=forgetting, alpha=2.0)
    for i in range(120):
        models.step(np.tile(X[i], (5, 1)) * np.arange(1, 6)[:, None], np.full(5, y[i]))
    w = forgetting ** np.arange(119, -1, -1)
    for k in (0, 4):
        Z = X * (k + 1)
        wanted = np.linalg.solve(Z.T @ (Z * w[:, None]) + 2.0 * forgetting**120 * np.eye(3), Z.T @ (w * y))
        assert apart(models.coef[k], wanted) < 1e-9


def test_recursive_models_stay_exact_for_thousands_of_steps() -> None:
    """An antisymmetric error of the inverse grows by 1 / forgetting a step: rounding alone reached the coefficients."""
    random = np.random.default_rng(0)
    models = Recursive(3, 4, forgetting=0.97)
    models._inverse[1] += 1e-10 * np.triu(np.ones((4, 4)), 1)
    sums, right = np.tile(np.eye(4), (3, 1, 1)), np.zeros((3, 4))
    for _ in range(2500):
        x, y = random.standard_normal((3, 4)), random.standard_normal(3)
        models.step(x, y)
        sums = 0.97 * sums + x[:, :, None] * x[:, None, :]
        right = 0.97 * right + x * y[:, None]
    assert apart(models.coef, np.linalg.solve(sums, right[:, :, None])[:, :, 0]) < 1e-11
    assert np.array_equal(models._inverse, np.swapaxes(models._inverse, 1, 2))


def test_recursive_models_take_any_rows() -> None:
    X = np.arange(12, dtype=np.float32).reshape(3, 4)
    X.flags.writeable = False
    one, two = Recursive(3, 4, heal=True), Recursive(3, 4, heal=True)
    for _ in range(3):
        assert np.array_equal(one.step(X[::-1], [1, 2, 3]), two.step(X[::-1].astype(float), np.arange(1.0, 4.0)))
    assert np.array_equal(one.coef, two.coef)


def test_recursive_models_heal() -> None:
    X, y = table(100, 3)
    models = Recursive(2, 3, heal=True, check=10**9)
    for i in range(100):
        models.step(np.tile(X[i], (2, 1)), np.full(2, y[i]))
    models._inverse *= 1.1
    assert models.measure() > 0.01 and models.healed == 1
    assert apart(models.coef[0], plain(X, y, 1.0)) < 1e-11
    with pytest.raises(BadData, match="keeps no sums"):
        Recursive(2, 3).measure()

"""Windows and recursive models: exact after every row, drift measured and healed."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.solve import BadData, Recursive, SlidingRidge, Window, gram, recursive, sliding
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


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(2, 60), st.integers(0, 99))
def test_the_kernel_and_blas_change_a_window_alike(p: int, q: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    X, Y = random.standard_normal((150, p)), random.standard_normal((150, q))
    X[70], X[71], Y[110] = 1e4, 1e8, 1e9  # rows that lose digits when they leave
    one, two = Window(p, q, size), Window(p, q, size)
    two._change = sliding._Blas(two)
    for i in range(150):
        for window in (one, two):
            window.slide(X[i], Y[i])
    assert one._change.__class__ is (sliding._Kernel if gram.kernel() else sliding._Blas)
    assert np.array_equal(one.rows, two.rows)
    assert apart(one.coef, two.coef) < 1e-8
    x, y = one.held[:, :p], one.held[:, p:]
    assert apart(one.coef, plain(x, y, 1.0)) < 1e-8


def test_without_a_compiler_blas_changes_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "kernel", lambda isa="": None)
    X, y = table(60, 3)
    window = Window(3, 1, 20)
    for i in range(60):
        window.slide(X[i], y[i])
    assert apart(window.coef[:, 0], plain(X[40:], y[40:], 1.0)) < 1e-10
    models = Recursive(2, 3)
    for i in range(60):
        models.step(X[[i, i]], y[[i, i]])
    assert apart(models.coef[0], plain(X, y, 1.0)) < 1e-9


def test_a_window_that_was_read_from_memory_that_must_not_be_written_slides_on() -> None:
    """As joblib hands large arrays to its workers."""
    X, y = table(60, 3)
    window = Window(3, 1, 20)
    window.extend(X[:30], y[:30])
    buffers: list[pickle.PickleBuffer] = []
    dumped = pickle.dumps(window, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(dumped, buffers=[bytes(b.raw()) for b in buffers])
    for i in range(30, 60):
        again.slide(X[i], y[i])
    assert apart(again.coef[:, 0], plain(X[40:], y[40:], 1.0)) < 1e-10
    assert apart(window.coef[:, 0], plain(X[10:30], y[10:30], 1.0)) < 1e-10


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


@settings(max_examples=20)
@given(st.integers(1, 70), st.integers(1, 20), st.sampled_from([1.0, 0.95]), st.integers(0, 99))
def test_the_kernel_and_blas_step_models_alike(models: int, p: int, forgetting: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    one, two = (Recursive(models, p, forgetting=forgetting, heal=True, check=7) for _ in "ab")
    two._all = two._by_blas  # type: ignore[method-assign]
    for _ in range(20):
        x, y = random.standard_normal((models, p)), random.standard_normal(models)
        assert apart(one.step(x[:, ::-1], y), two.step(x[:, ::-1], y)) < 1e-9
    assert apart(one.coef, two.coef) < 1e-9
    assert np.array_equal(one._inverse, np.swapaxes(one._inverse, 1, 2))


def test_threads_and_neighbours_change_no_bit_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((5, 200, 6)), random.standard_normal((5, 200))
    one, some, shared = Recursive(200, 6), Recursive(3, 6), Recursive(200, 6)
    for i in range(5):
        one.step(x[i], y[i])
        some.step(x[i, :3], y[i, :3])
    monkeypatch.setattr(recursive, "SHARED_BYTES", 0)
    monkeypatch.setattr(gram, "blas_threads", lambda: 3)
    for i in range(5):
        shared.step(x[i], y[i])
    assert np.array_equal(one.coef, shared.coef)
    if gram.kernel() is not None:
        assert np.array_equal(one.coef[:3], some.coef)


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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_numbers_that_are_none_change_nothing(bad: float) -> None:
    X, y = table(60, 3)
    for targets in (1, 2):
        Y = np.column_stack([y] * targets)
        window = Window(3, targets, 20)
        for rows in (5, 40):  # while it fills, and full
            for i in range(rows):
                window.slide(X[i], Y[i])
            before = pickle.dumps(window.__getstate__())
            for x, t in ((X[50], Y[50] * bad), (X[50] * bad, Y[50])):
                with pytest.raises(BadData, match="NaN, infinity"):
                    window.slide(x, t)
                with pytest.raises(BadData, match="NaN, infinity"):
                    window.extend(x[None], t[None])
            assert pickle.dumps(window.__getstate__()) == before
    with pytest.raises(BadData, match="shape"):
        window.slide(X[0][:2], Y[0])


@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_row_of_another_size_leaves_nothing_behind(block: int) -> None:
    """Its rounding stayed in the coefficients, where a probe of the inverse does not see it."""
    X, y = table(400, 3)
    y[100] = 1e12
    window = Window(3, 1, 50)  # whose drift is measured every 10,000 slides
    for i in range(0, 399, block):
        window.add(X[i], y[i]) if block == 1 else window.add(X[i : i + block], y[i : i + block])
        if i > 150 + block:
            at = i + block
            assert apart(window.coef[:, 0], plain(X[at - 50 : at], y[at - 50 : at], 1.0)) < 1e-9
    assert 1 <= window.healed <= 2


def test_drift_of_the_coefficients_alone_is_seen() -> None:
    X, y = table(100, 3)
    window = Window(3, 1, 50)
    window.extend(X, y)
    window._coef *= 1 + 1e-6
    assert window.measure() > 1e-7 and window.healed == 1
    assert apart(window.coef[:, 0], plain(X[50:], y[50:], 1.0)) < 1e-12
    models = Recursive(2, 3, heal=True)
    for i in range(50):
        models.step(np.tile(X[i], (2, 1)), np.full(2, y[i]))
    models.coef = models.coef * (1 + 1e-6)
    assert models.measure() > 1e-7 and models.healed == 1 and models.measure() < 1e-12


@settings(max_examples=25)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=25), st.integers(1, 12), st.integers(0, 99))
def test_rows_come_and_go(changes: list[int], size: int, seed: int) -> None:
    X, y = table(200, 3, seed)
    window, at, held = Window(3, 1, size, alpha=0.5), 0, 0
    for change in changes:
        if change < 0:
            rows = min(-change, held)
            window.drop(rows)
            held -= rows
        else:
            window.add(X[at : at + change], y[at : at + change])
            at, held = at + change, min(held + change, size)
        wanted = plain(X[at - held : at], y[at - held : at], 0.5)
        assert window.filled == held and np.abs(window.coef[:, 0] - wanted).max() < 1e-8
    with pytest.raises(BadData, match="cannot leave"):
        window.drop(held + 1)


@pytest.mark.parametrize("heal", [True, False])
def test_one_bad_row_stops_no_model_for_good(heal: bool) -> None:
    X, y = table(40, 3)
    models = Recursive(3, 3, heal=heal, check=5)
    for i in range(20):
        models.step(X[i : i + 3], y[i : i + 3])
    before = pickle.dumps(models.__dict__)
    for x, t in ((X[:3] * [1, np.nan, 1], y[:3]), (X[:3], [0, np.inf, 0])):
        with pytest.raises(BadData, match="NaN"):
            models.step(x, t)
    with pytest.raises(BadData, match="shape"):
        models.step(X[:2], y[:2])
    assert pickle.dumps(models.__dict__) == before


@pytest.mark.parametrize("way", ["slide", "extend", "drop"])
@pytest.mark.parametrize("alpha", [1e-6, 1.0])
def test_a_row_that_outweighs_all_others_takes_no_digits_along(way: str, alpha: float) -> None:
    """Until the next measurement, thousands of rows later, coefficients were off by parts in a hundred."""
    X, y = table(60, 4)
    X[3] *= 3e4
    window = Window(4, size=20, alpha=alpha)
    window.extend(X[:3], y[:3])
    for i in range(3, 20):
        window.slide(X[i], y[i])
    if way == "slide":
        for i in range(20, 24):
            window.slide(X[i], y[i])
    elif way == "extend":
        window.extend(X[20:24], y[20:24])
    else:
        window.drop(4)
    rows = slice(4, 20 if way == "drop" else 24)
    wanted = np.linalg.solve(X[rows].T @ X[rows] + alpha * np.eye(4), X[rows].T @ y[rows])
    assert apart(window.coef[:, 0], wanted) < 1e-8


def test_penalties_far_below_the_rows_are_kept() -> None:
    X, y = table(40, 3)
    X[0] = 1e8
    window = Window(3, size=50, alpha=1e-6)
    for i in range(40):
        window.slide(X[i], y[i])
    wanted = np.linalg.lstsq(np.vstack([X, 1e-3 * np.eye(3)]), np.append(y, np.zeros(3)))[0]
    assert apart(window.coef[:, 0], wanted) < 1e-6


def dual(x: Any, y: Any, alpha: float) -> Any:
    """Ridge of no more rows than columns, in extended precision: a tiny alpha takes no digits of this form."""
    x, y = x.astype(np.longdouble), y.astype(np.longdouble)
    left, right = x @ x.T + np.longdouble(alpha) * np.eye(len(x), dtype=np.longdouble), y
    found = np.zeros(len(x), np.longdouble)
    for _ in range(3):  # NumPy solves in float64 only: corrections from the true residual
        found += np.linalg.solve(left.astype(float), (right - left @ found).astype(float))
    return x.T @ found


@pytest.mark.parametrize("alpha", [1e-4, 1e-8, 1e-16, 1e-30, 1e-50, 1e-100])
@pytest.mark.parametrize("size", [3, 30])
def test_windows_that_leave_directions_open_are_exact_for_any_alpha(size: int, alpha: float) -> None:
    """A window was solved by squares up to a condition of 1e6, and below alpha=1e-32 rounding counted as data."""
    X, y = table(40, 5, offset=0.5)
    window, model = Window(5, size=size, alpha=alpha), SlidingRidge(size, alpha=alpha)
    for i in range(40):
        window.slide(X[i], y[i])
        model.partial_fit(X[i : i + 1], y[i : i + 1])
        held = slice(max(0, i + 1 - size), i + 1)
        x, t = X[held], y[held]
        if len(x) <= 4:
            assert apart(window.coef[:, 0], dual(x, t, alpha)) < 1e-9
            if len(x) > 1 and alpha >= 1e-8:  # below, the centred rows depend on each other here, too
                assert apart(model.coef_, dual(x - x.mean(axis=0), t - t.mean(), alpha)) < 1e-8
        elif len(x) > 6:
            assert apart(window.coef[:, 0], np.linalg.solve(x.T @ x + alpha * np.eye(5), x.T @ t)) < 1e-9
            c = x - x.mean(axis=0)
            assert apart(model.coef_, np.linalg.solve(c.T @ c + alpha * np.eye(5), c.T @ (t - t.mean()))) < 1e-9


@pytest.mark.parametrize(("alpha", "wanted"), [(1e-6, 1e-9), (1e-8, 1e-7)])
def test_a_small_penalty_of_equal_columns_is_solved_anew_before_the_inverse_loses_digits(
    alpha: float, wanted: float
) -> None:
    """Errors a hundred times as large stood until the next measurement."""
    random = np.random.default_rng(0)
    Z = random.standard_normal((400, 4))
    y = Z @ [1.0, 2.0, 3.0, 9.0] + 0.1 * random.standard_normal(400)
    window = Window(5, size=30, alpha=alpha)
    for i in range(400):
        window.slide(Z[i, [0, 1, 2, 3, 3]], y[i])
        held = slice(max(0, i - 29), i + 1)
        merged = Z[held] * [1, 1, 1, np.sqrt(2)]  # two equal columns are one that is longer
        coef = np.linalg.solve(merged.T @ merged + alpha * np.eye(4), merged.T @ y[held])
        if i > 8:
            assert apart(window.coef[:, 0], coef[[0, 1, 2, 3, 3]] / [1, 1, 1, *[np.sqrt(2)] * 2]) < wanted


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1e-120, np.inf, np.nan])
def test_penalties_that_have_no_inverse_are_refused(alpha: float) -> None:
    for build in (lambda: Window(3, alpha=alpha), lambda: SlidingRidge(alpha=alpha).fit(*table(20, 3))):
        with pytest.raises(BadData, match="below 1e-100"):
            build()

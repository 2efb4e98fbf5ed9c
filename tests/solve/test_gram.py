"""The compiled kernel: products of rows however they lie, and the same bits whoever computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.measure import machine
from hasten.native.compiled import TARGETS, NoCompiler
from hasten.solve import Moments, gram, lstsq
from hasten.solve.gram import LIBRARY, kernel, residual, square
from tests.solve.data import apart, table

needs_kernel = pytest.mark.skipif(kernel() is None, reason="no C++ compiler here, or a processor without AVX2")
ISAS = [name for name, (needs, _) in TARGETS.items() if needs and needs <= machine.cpu_flags()]


def wanted(x: Any, y: Any, root: Any, shift: Any) -> Any:
    z = np.column_stack([x.astype(float), y.astype(float)]) - shift
    z = np.column_stack([z, np.ones(len(z))]) * (1.0 if root is None else root[:, None])
    return np.triu(z.T @ z)


@needs_kernel
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("single", [False, True])
@given(
    rows=st.sampled_from([1, 2, 3, 4, 5, 127, 128, 129, 300, 2047, 2048, 2049, 4500]),
    p=st.integers(0, 70),
    q=st.integers(0, 5),
    kinds=st.tuples(*[st.sampled_from([np.float32, np.float64])] * 2),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_products_are_those_of_the_rows(
    isa: str, single: bool, rows: int, p: int, q: int, kinds: Any, weighted: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x = (random.standard_normal((rows, p)) + 3).astype(kinds[0])
    y = (random.standard_normal((rows, q)) - 7).astype(kinds[1])
    shift = random.standard_normal(p + q)
    root = random.random(rows) if weighted else None
    expected = wanted(x, y, root, shift)
    found = square(x, y if q else None, root, shift, single, 1, isa)
    assert np.abs(found - expected).max() <= (2e-6 if single else 1e-14) * np.abs(expected).max()
    assert not np.tril(found, -1).any()


@needs_kernel
@pytest.mark.parametrize("form", ["F", "every other", "backwards", "columns", "not aligned", "read-only", "y inside"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_however_they_lie(form: str, dtype: Any) -> None:
    whole = np.random.default_rng(0).standard_normal((700, 21)).astype(dtype)
    if form == "not aligned":
        raw = np.zeros(whole.nbytes + 1, np.uint8)[1:]
        raw[:] = np.frombuffer(whole.tobytes(), np.uint8)
        whole = raw.view(dtype).reshape(whole.shape)
    x, y = {
        "F": (np.asfortranarray(whole), whole[:, :2].T.copy().T), "every other": (whole[::2], whole[::2, 3:5]),
        "backwards": (whole[::-1], whole[::-1, ::-2]), "columns": (whole[:, ::3], whole[:, 1::4]),
        "not aligned": (whole, whole[:, :1]), "read-only": (whole, whole[:, :1]),
        "y inside": (whole[:, 1:], whole[:, :1]),
    }[form]  # fmt: skip
    if form == "read-only":
        x.flags.writeable = False
    shift = np.zeros(x.shape[1] + y.shape[1])
    assert apart(square(x, y, None, shift), wanted(x, y, None, shift)) < 1e-14


@needs_kernel
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("p", [3, 37, 130])
def test_threads_and_vectors_and_addresses_change_no_bit(p: int, single: bool) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((9000, p)) + 5, random.standard_normal((9000, 1))
    shift, root = np.full(p + 1, 4.9), random.random(9000)
    one = square(x, y, root, shift, single, 1)
    for threads in (2, 3, 16):
        assert np.array_equal(square(x, y, root, shift, single, threads), one)
    for isa in ISAS:
        assert np.array_equal(square(x, y, root, shift, single, 1, isa), one)
    moved = np.empty((9001, p + 3))[1:, 1 : p + 1]
    moved[:] = x
    assert np.array_equal(square(moved, np.asfortranarray(y), root, shift, single, 2), one)


@needs_kernel
def test_a_hole_shows_in_the_sums() -> None:
    x = np.ones((3000, 9))
    x[2999, 4] = np.nan
    found = square(x, None, None, np.zeros(9))
    assert np.isnan(found[4, -1]) and np.isfinite(np.delete(found[:, -1], 4)).all()


@needs_kernel
def test_as_many_threads_as_blas_takes() -> None:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        assert gram.blas_threads() == 1


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_without_a_kernel_blas_gives_the_same_to_rounding(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = table(9000, 12, offset=30.0)
    w = np.random.default_rng(1).random(9000)
    ours = [Moments(X, y, sample_weight=weight, precision=precision) for weight in (None, w)]

    def refuses(isa: str = "") -> Any:
        raise NoCompiler("there is no C++ compiler")

    monkeypatch.setattr(type(LIBRARY), "load", lambda self, isa="": refuses())
    kernel.cache_clear()
    try:
        assert not gram.suits(13)
        blas = [Moments(X, y, sample_weight=weight, precision=precision) for weight in (None, w)]
    finally:
        monkeypatch.undo()
        kernel.cache_clear()
    for a, b in zip(ours, blas, strict=True):
        assert apart(a.scatter, b.scatter) < (1e-13 if precision == "float64" else 1e-6) and a.n == b.n


def test_old_processors_and_many_columns_are_left_to_blas() -> None:
    assert kernel("baseline") is None
    assert not gram.suits(gram.MOST_COLUMNS + 1)


@needs_kernel
@pytest.mark.parametrize("isa", ISAS)
@given(
    rows=st.sampled_from([0, 1, 31, 32, 33, 2047, 2049, 4500]),
    p=st.integers(1, 70),
    q=st.integers(1, 4),
    kinds=st.tuples(*[st.sampled_from([np.float32, np.float64])] * 2),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_what_a_solution_leaves_over(
    isa: str, rows: int, p: int, q: int, kinds: Any, weighted: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x, y = random.standard_normal((rows, p)).astype(kinds[0]), random.standard_normal((rows, q)).astype(kinds[1])
    mean, coef = random.standard_normal(p + q), random.standard_normal((p, q))
    weight = random.random(rows) if weighted else np.ones(rows)
    c = x.astype(np.longdouble) - mean[:p]  # BLAS adds up one after the other, and lost more than is allowed here
    rest = (y.astype(np.longdouble) - mean[p:] - c @ coef) * weight[:, None]
    found = residual(x, y, weight if weighted else None, mean, coef, 1, isa)
    sizes = np.abs(c).T @ np.abs(rest), np.abs(c).T @ weight, np.abs(rest).sum(axis=0)
    for ours, wanted, size in zip(found, (c.T @ rest, c.T @ weight, rest.sum(axis=0)), sizes, strict=True):
        assert np.all(np.abs(ours - wanted) <= 1e-13 * (size + 1))


@needs_kernel
@pytest.mark.parametrize("p", [3, 37, 130])
def test_threads_and_vectors_change_no_bit_of_it(p: int) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((9000, p)) + 5, random.standard_normal((9000, 2))
    mean, coef, weight = np.full(p + 2, 4.9), random.standard_normal((p, 2)), random.random(9000)
    one = residual(x, y, weight, mean, coef, 1)
    others = [residual(np.asfortranarray(x), y, weight, mean, coef, threads) for threads in (2, 3, 16)]
    others += [residual(x, y, weight, mean, coef, 1, isa) for isa in ISAS]
    assert all(np.array_equal(a, b) for other in others for a, b in zip(other, one, strict=True))


@needs_kernel
@pytest.mark.parametrize("q", [1, 3])
def test_refinement_with_and_without_the_kernel_ends_alike(q: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    X = random.standard_normal((20_000, 6)) @ np.diag(np.logspace(0, 4, 6)) + 1e3
    X[:, 1] += 1e3 * X[:, 0]
    y, w = X @ random.standard_normal((6, q)) + random.standard_normal((20_000, q)), random.random(20_000)
    ours = lstsq(X, y, sample_weight=w)
    monkeypatch.setattr(gram, "kernel", lambda isa="": None)
    theirs = lstsq(X, y, sample_weight=w)
    assert "refined" in ours.method_ and ours.passes_ == theirs.passes_
    assert apart(ours.coef_, theirs.coef_) < max(ours.error_bound_, 1e-13)

"""Moments that are added and taken away again."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pandas as pd
import pytest

from hasten.solve import (
    BadData,
    ExactRFECV,
    Moments,
    Prototypes,
    discriminant,
    kfold,
    leave_one_out,
    open_source,
    ridge,
    solve_groups,
)  # fmt: skip
from hasten.solve.problems import DependentColumns, FewDigits
from tests.solve.data import apart, moments_of, table


def test_what_was_never_there_is_not_removed() -> None:
    X, y = table(200, 3)
    m = Moments(X, y, groups=["a"] * 200)
    for other in (
        Moments(X[:50], y[:50], groups=["b"] * 50),
        Moments(X[:50] * 100, y[:50], groups=["a"] * 50),
    ):
        with pytest.raises(BadData, match="never added"):
            _ = m - other
    folds = Moments(X, y, folds=2)
    with pytest.raises(BadData, match="neither folds nor groups"):
        _ = folds - Moments(X[:150], y[:150])
    with pytest.raises(BadData, match="other folds"):
        _ = folds - Moments(X[:150], y[:150], folds=np.zeros(150, int))
    assert apart((m - Moments(X[:50], y[:50], groups=["a"] * 50)).scatter, Moments(X[50:], y[50:]).scatter) < 1e-11


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_what_is_left_with_few_digits_is_told_by_a_bound_that_holds(offset: float) -> None:
    X, y = table(5000, 3, offset=offset)
    Z = np.column_stack([X, y])
    for size in (1e-3, 1e-5, 1e-6, 1e-7):
        few = Z.copy()
        few[:20] = Z.mean(axis=0) + size * (Z[:20] - Z.mean(axis=0))
        whole, part = Moments(few[:, :3], few[:, 3]), Moments(few[20:, :3], few[20:, 3])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            left = whole - part
        true = np.diagonal(moments_of(few[:20])[1]).astype(float)
        error = float(np.max(np.abs(np.diagonal(left.scatter) - true) / true))
        told = [str(each.message) for each in said if each.category is FewDigits]
        assert bool(told) or error < 1e-4
        if told and "off by up to" in told[0]:
            assert error < float(told[0].split("off by up to ")[1].split()[0])
        assert told or size > 1e-5, "of 1e-14 of the squares two digits are left"


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_rows_that_leave_piece_by_piece_are_never_said_to_have_been_others(precision: str) -> None:
    """Rounding is of what there was at first: of what is left at last it is more than everything."""
    X, y = table(600, 3)
    X[:2], y[:2] = 40.0, 7.0
    weight = np.random.default_rng(0).uniform(0.1, 3, 600)
    m = Moments(X, y, sample_weight=weight, precision=precision)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for part in np.array_split(np.arange(2, 600), 40):
            m = m - Moments(X[part], y[part], sample_weight=weight[part], precision=precision)
    assert said[-1].category is FewDigits
    assert m.n == 2 and apart(m.mean, [40, 40, 40, 7]) < 1e-3
    assert not m.scatter.any()
    with pytest.raises(BadData, match="never added"):
        _ = Moments(X, y) - Moments(100 * X[:50], y[:50])


def test_a_column_of_which_nothing_is_left_is_constant() -> None:
    """Rounding is no spread: its coefficient was that of noise."""
    X, y = table(400, 2)
    X[:, 1] = np.arange(400) >= 100
    with pytest.warns(FewDigits, match="x1"):
        left = Moments(X, y) - Moments(X[100:], y[100:])
    wanted = ridge(Moments(X[:100], y[:100])).coef
    assert left.scatter[1].tolist() == [0.0, 0.0, 0.0] and apart(ridge(left).coef, wanted) < 1e-9
    towns = pd.DataFrame({"a": X[:, 0], "town": np.where(X[:, 1] > 0, "p", "q")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left = Moments(towns, y) - Moments(towns[100:], y[100:])
    assert apart(ridge(left).coef[0], wanted[0]) < 1e-9


def shard(seed: int, rows: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows whose spread is a billionth of their offset, and weights."""
    random = np.random.default_rng(seed)
    Z = random.standard_normal((rows, 3)) * 1e-3 + 1e6
    return Z[:, :2], Z[:, 2], random.uniform(0.1, 10, rows)


@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_added_to_nothing_keeps_all_digits(grouped: bool) -> None:
    """What rounding took from means was lost in an empty cell, and ten digits of the scatter with the next shard."""
    shards = [shard(seed) for seed in range(6)]
    X, y, w = (np.concatenate(part) for part in zip(*shards, strict=True))
    m = Moments()
    for k, (x, target, weight) in enumerate(shards):
        groups = np.full(80, k // 2) if grouped else None
        m = m + Moments(x, target, sample_weight=weight, groups=groups)
    wanted = moments_of(np.column_stack([X, y]), w)[1]
    assert apart(m.scatter, wanted) < 1e-14
    if grouped:
        for k, part in enumerate(m.parts.scatter):
            here = slice(160 * k, 160 * k + 160)
            assert apart(part, moments_of(np.column_stack([X, y])[here], w[here])[1]) < 1e-14


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8])
def test_an_offset_changes_nothing(offset: float) -> None:
    """Half of the prototypes' answers were others at an offset of 1e6, and errors of folds kept seven digits."""
    random = np.random.default_rng(0)
    X = random.standard_normal((300, 4)) * 1e-2 + offset
    y = (X - offset) @ [1, 2, 3, 4.0] + 1e-2 * random.standard_normal(300) + offset
    near, beside = X - X[0], y - y[0]  # these differences are exact
    labels, folds, alphas = np.arange(300) % 3, np.arange(300) % 5, np.array([1e-7, 1e-2])
    answers = []
    for x, t in ((X, y), (near, beside)):
        m, groups = Moments(x, t, folds=folds), Moments(x, t, groups=labels)
        found = discriminant(Moments(x, groups=labels), 0.1)
        scores = x @ found.coef + found.intercept
        answers.append({
            "k-fold": kfold(m, alphas).mse,
            "leave-one-out": leave_one_out(open_source(x, t), m, alphas)[0].mse,
            "elimination": ExactRFECV().fit(x, t).cv_results_["mean_test_score"],
            "groups": solve_groups(groups, 1e-2, 5.0).coef,
            "prototypes": Prototypes(0.1).fit(x, labels).predict(x),
            "scores": scores - scores[:, :1],
        })  # fmt: skip
    for what, wanted in answers[1].items():
        digits = 1e-11 if what != "scores" else 1e-12 * offset  # X @ coef itself takes those of the offset
        assert apart(answers[0][what], wanted) < digits, what


def _shards(const: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """X, y, folds of three shards; column 1 varies in the second one only."""
    rng = np.random.default_rng(0)
    found = []
    for rows in (300, 200, 100):
        x = rng.standard_normal((rows, 3))
        if len(found) != 1:
            x[:, 1] = const
        found.append((x, x @ [1.0, 2.0, 3.0] + rng.standard_normal(rows), rng.integers(0, 5, rows)))
    return found


@pytest.mark.parametrize("const", [0.0, 0.1, 5.0, 1000.1])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_a_constant_that_a_removal_leaves_gets_no_coefficient(const: float, folded: bool, intercept: bool) -> None:
    first, gone, later = _shards(const)

    def of(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> Moments:
        return Moments(x, y, folds=fold if folded else None)

    left = of(*first) + of(*gone) - of(*gone)
    updated = copy.deepcopy(left).update(later[0], later[1], fold=later[2] if folded else None)
    for m, known in (
        (left, of(*first)), (left + of(*later), of(*first) + of(*later)), (updated, of(*first) + of(*later)),
    ):  # fmt: skip
        found, wanted = (ridge(each, 0.0, fit_intercept=intercept) for each in (m, known))
        assert found.rank == wanted.rank
        np.testing.assert_allclose(found.coef, wanted.coef, atol=1e-9)
        if folded:
            scores, others = (kfold(each, [0.0, 1.0], fit_intercept=intercept).mse for each in (m, known))
            np.testing.assert_allclose(scores, others, rtol=1e-7)


@pytest.mark.parametrize("kept", ["folds", "groups", "both", "neither"])
def test_a_category_that_a_removal_leaves_without_rows_gets_no_coefficient(kept: str) -> None:
    rng = np.random.default_rng(0)

    def shard(rows: int, towns: str) -> Moments:
        table = pd.DataFrame({"town": rng.choice(list(towns), rows), "x": rng.standard_normal(rows)})
        folds = rng.integers(0, 3, rows) if kept in ("folds", "both") else None
        groups = rng.integers(0, 4, rows) if kept in ("groups", "both") else None
        return Moments(table, rng.standard_normal(rows), sample_weight=rng.random(rows), folds=folds, groups=groups)

    first, gone, later = shard(500, "abc"), shard(300, "bcd"), shard(200, "ab")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DependentColumns)  # categories beside an intercept
        for m in (first + gone - gone, first + later + gone - gone, first + gone - gone + later):
            at = m.names.index("town=d")
            assert m.mean[at] == 0 and not m.scatter[at].any()
            assert abs(ridge(m, 0.0).coef[at, 0]) < 1e-12
            if kept in ("groups", "both"):
                assert np.abs(solve_groups(m, 1e-3).coef[:, at]).max() < 1e-9

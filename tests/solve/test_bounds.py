"""The bound holds where rows lie and weigh as they should not; what is not refined, too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hasten.solve import (
    ExactRFECV,
    GroupRidge,
    Moments,
    StreamingRidge,
    choose,
    discriminant,
    eliminate,
    lstsq,
    solve_groups,
)  # fmt: skip
from hasten.solve.problems import FewDigits
from tests.solve.data import apart, conditioned


def slope(x: Any, y: Any, w: Any) -> Any:
    """Of a regression on one column, in extended precision."""
    x, y, w = (np.asarray(v, np.longdouble) for v in (x, y, w))
    for _ in range(3):  # means are rounded, too
        x, y = x - (w * x).sum() / w.sum(), y - (w * y).sum() / w.sum()
    return (w * x * y).sum() / (w * x * x).sum()


def late(seed: int) -> tuple[Any, Any, Any]:
    """A row that outweighs all others comes when rows are shifted by another one's mean already."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(1500) + random.choice([0.0, 1.0, 3.0])
    w = np.ones(1500)
    w[-100] = 10.0 ** random.uniform(2, 9)
    return x, 0.1 * x + random.standard_normal(1500), w


def off(answer: Any, wanted: Any) -> float:
    """Its error over its bound."""
    return abs(float((np.ravel(answer.coef_)[0] - wanted) / wanted)) / float(answer.error_bound_)


@pytest.mark.parametrize("method", ["auto", "gram64", "tsqr"])
def test_a_late_row_that_outweighs_all_others(method: str) -> None:
    """The shift lies far from its mean: 7 times the bound of Gram matrices, 26 times that of TSQR."""
    for seed in range(40):
        x, y, w = late(seed)

        def once(x: Any = x, y: Any = y, w: Any = w) -> Iterator[Any]:
            return ((x[i : i + 300, None], y[i : i + 300], w[i : i + 300]) for i in range(0, 1500, 300))

        assert off(lstsq(once(), method=method), slope(x, y, w)) <= 1


def test_what_sums_were_shifted_by_is_kept(tmp_path: Any) -> None:
    x, y, w = late(3)
    w = np.minimum(w, 200.0)
    one = Moments(x[:300, None], y[:300]).update(x[300:, None], y[300:], w[300:])
    assert one.shifted.max() > 1 and one._base is None
    one.save(tmp_path / "m.safetensors")
    assert np.array_equal(Moments.load(tmp_path / "m.safetensors").shifted, one.shifted)
    assert apart((one + Moments(x[:9, None], y[:9])).shifted, one.shifted) < 1e-3
    assert apart(one.decay(0.5).shifted * 2, Moments.load(tmp_path / "m.safetensors").shifted) < 1e-12
    one.save(tmp_path / "half.safetensors")
    assert np.array_equal(Moments.load(tmp_path / "half.safetensors").shifted, one.shifted)


def test_rows_that_are_added_explain_nothing() -> None:
    """Then a Gram matrix is off by the size of Y, of which the bound knew nothing: by 1000 times."""
    for seed in range(8):
        x, y = np.random.default_rng(seed).standard_normal((2, 20_000))
        y -= x * (x @ y) / (x @ x) * (1 - 1e-4)
        model = StreamingRidge(0.0)
        for part in np.array_split(np.arange(len(x)), 4):
            model.partial_fit(x[part, None], y[part])
        assert off(model, slope(x, y, np.ones(len(x)))) <= 1


@pytest.mark.parametrize("scale", [False, True])
def test_rows_that_are_added_one_batch_at_a_time_are_solved_as_those_of_one_fit(scale: bool) -> None:
    x = conditioned(400, 4, 100.0)
    y = x[:, 0] + np.random.default_rng(0).standard_normal(400)
    whole = StreamingRidge(2.0, scale=scale).fit(x, y)
    parts = StreamingRidge(2.0, scale=scale).partial_fit(x[:150], y[:150]).partial_fit(x[150:], y[150:])
    assert apart(parts.coef_, whole.coef_) < 1e-9 and parts.condition_ == pytest.approx(whole.condition_)


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_constant_column_among_ill_conditioned_ones(at: int) -> None:
    """The correction was solved through a triangle with a row of noughts: LinAlgError."""
    X, y = conditioned(800, 5, 1e10), np.random.default_rng(0).standard_normal(800)
    wanted = lstsq(X, y)
    found = lstsq(np.insert(X, at, 7.0, axis=1), y)
    assert found.method_ == "TSQR stream" and found.coef_[at] == 0 and len(found.corrections_) == 1
    assert apart(np.delete(found.coef_, at, axis=0), wanted.coef_) < found.error_bound_ + wanted.error_bound_


def test_a_correction_that_is_rounding_is_not_taken() -> None:
    """It moved coefficients that were known to seven digits by a fifth, and past their bound."""
    for seed in range(30):
        random = np.random.default_rng(seed)
        X = conditioned(107, 7, 1e8, seed) * 10.0 ** random.uniform(-3, 3, 7) + 1e6 * random.standard_normal(7)
        y, w = X @ random.standard_normal(7) + 1e3 * random.standard_normal(107), np.ones(107)
        w[random.permutation(107)[:8]] = 10.0 ** random.uniform(2, 14, 8)
        order = np.argsort(-w)  # as a QR wants its rows
        root, first = np.sqrt(w[order])[:, None], order[0]
        Q, R = np.linalg.qr(np.column_stack([np.ones(107), X[order] - X[first]]) * root)
        wanted = np.linalg.solve(R, Q.T @ ((y[order] - y[first]) * root[:, 0]))[1:]
        found = lstsq(X, y, sample_weight=w)
        lengths = np.sqrt(np.diagonal(Moments(X, y, sample_weight=w).scatter)[:7])
        error = np.linalg.norm((found.coef_[:, 0] - wanted) * lengths) / np.linalg.norm(wanted * lengths)
        assert error <= found.error_bound_


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e7])
@pytest.mark.parametrize("noise", [1e-6, 1.0, 1e3])
def test_what_would_be_done_has_the_bound_of_what_is_done(condition: float, noise: float) -> None:
    """Errors of much noise were said to be a thousand times smaller than they may be."""
    X = conditioned(600, 5, condition)
    y = X @ np.ones(5) + noise * np.random.default_rng(0).standard_normal(600)
    told, done = choose(X, y).chosen, lstsq(X, y)
    assert told.name == done.method_ and 0.5 < told.error / done.error_bound_ < 2
    assert choose(np.column_stack([X, X[:, 0]]), y).chosen.error == np.inf


@pytest.mark.parametrize("condition", [1e2, 3e7, np.inf])
def test_what_is_solved_from_squares_alone_tells_its_digits(condition: float) -> None:
    """Rankings were another model's at a condition of 3e7, and groups' coefficients without digits: not a word."""
    X = conditioned(300, 6, min(condition, 1e2))
    X[:, 5] = X[:, 0] + (0 if condition == np.inf else X[:, 5] / condition)
    y, labels = X @ np.ones(6) + np.random.default_rng(0).standard_normal(300), np.arange(300) % 2
    uses: list[Any] = [
        lambda: eliminate(Moments(X, y)),
        lambda: ExactRFECV().fit(iter([(X, y)])),  # rows that can be read again are
        lambda: discriminant(Moments(X, groups=labels)),
        lambda: solve_groups(Moments(X, y, groups=labels), 0.0),
        lambda: GroupRidge(0.0).fit(X, y, groups=labels),
    ]
    for use in uses:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            use()
        assert (condition > 1e3) == any(w.category is FewDigits for w in told)

"""Backward elimination: the exact order of recursive feature elimination, from one inverse.

Dropping a column from a regression is a rank-1 change of the inverse normal matrix, so that the order in which RFE
drops columns costs one inverse instead of as many fits as there are columns. (Sherman & Morrison 1950; stepwise
regression by sweeps: Beaton 1964; Goodnight, The American Statistician 33(3), 1979, p. 149-158.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.kernel import Array, Floats, Stats
from hasten.solve.linear import EPS, Factor, Normal, check_targets, tell_digits
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, no_rows
from hasten.solve.tikhonov import penalty_matrix

REFRESH = 64  # columns dropped before the inverse is made anew, so that rounding cannot pile up
TINY = 1e-300
STEEP = 1e-9  # error by the square of the condition; scores of large coefficients have some hundred times as much


@dataclass(frozen=True)
class Elimination:
    """The order in which columns were dropped.

    Attributes:
        ranking: (p,) 1 for the columns that were kept longest, then one more for every step before.
        order: columns in the order in which they were dropped, the ones kept longest last; of one step the least first.
        counts: how many columns were left before the first step, after it, and so on.
        coefs: for every one of ``counts``, the least first, the columns kept and their (columns, q) coefficients; empty
            unless asked for.
    """

    ranking: Floats
    order: list[int]
    counts: list[int]
    coefs: list[tuple[Array, Floats]]

    @classmethod
    def of(cls, order: list[int], counts: list[int], coefs: list[tuple[Array, Floats]]) -> Elimination:
        """Args: coefs: of all columns first."""
        ranking = np.empty(len(order))
        ranking[order] = np.repeat(np.arange(len(counts), 0, -1), -np.diff([*counts, 0]))
        return cls(ranking, order, counts, coefs[::-1])


def counts_of(p: int, step: Any = 1, least: int = 1) -> list[int]:
    """How many columns are left before the first step, after it, and so on.

    Args:
        step: columns to drop at a time; below 1 the share of all p. least: where to end.

    Raises:
        BadData: ``step`` is neither a number of columns nor a share of them.
    """
    whole = isinstance(step, int | np.integer) and step >= 1
    if not whole and not (isinstance(step, float) and 0 < step < 1):
        raise BadData(f"step={step!r}", "another kind of number", "a whole number of columns, or a share, 0 < step < 1")
    size = int(step) if whole else max(int(step * p), 1)
    return [*range(p, least, -size), least] if p else []


def eliminate(
    normal: Normal | Moments, alpha: float = 0.0, by: str = "coef", keep_coefs: bool = False, tell: bool = True,
    step: float = 1, least: int = 1,
) -> Elimination:  # fmt: skip
    """Drop the least columns until few are left.

    Args:
        normal: equations, or the moments they are made of.
        alpha: of the ridge model whose coefficients are compared.
        by: "coef" as scikit-learn's ``RFE`` does (least sum of squared coefficients, over targets), or "f": least rise
            of the residual sum of squares, the partial F test of stepwise regression.
        keep_coefs: keep the coefficients of every step.
        tell: warn (``FewDigits``) where the condition of X lets less than four digits of coefficients be known: those
            of nearly one size may then change places.
        step: columns to drop at a time, or the share of all of them, as scikit-learn's.
        least: how many are left.

    Raises:
        BadData: ``by`` is something else, alpha is negative, or ``step`` is no number of columns.
    """
    if by not in ("coef", "f"):
        raise BadData(f"by={by!r}", "a typing error", '"coef" or "f"')
    normal = normal if isinstance(normal, Normal) else Normal.from_moments(normal)
    p = len(normal.xx)
    counts = counts_of(p, step, min(max(least, 1), p))
    matrix = normal.xx + penalty_matrix(p, alpha)
    left, order, coefs = np.arange(p), list[int](), list[tuple[Array, Floats]]()
    inverse, coef, factor = _start(matrix, normal.xy, left)
    if tell:
        tell_digits(factor, p)
    for fewer in [*counts[1:], 0]:
        if keep_coefs:
            coefs.append((left.copy(), coef.copy()))
        size = np.sum(coef**2, axis=1)
        score = size if by == "coef" else size / np.maximum(np.diagonal(inverse), TINY)
        out = np.argsort(score, kind="stable")[: len(left) - fewer]
        rest = np.delete(np.arange(len(left)), out)
        before = len(order) // REFRESH
        order += left[out].tolist()
        left = left[rest]
        fresh = factor.deficient or len(order) // REFRESH > before  # a pseudo-inverse has no such change
        if not fewer:
            break
        changed = None if fresh else _without(inverse, coef, out, rest)
        if changed is None:
            inverse, coef, factor = _start(matrix, normal.xy, left)
        else:
            inverse, coef = changed
    return Elimination.of(order, counts, coefs)


def _without(inverse: Floats, coef: Floats, out: Any, rest: Any) -> tuple[Floats, Floats] | None:
    """Inverse and coefficients without some columns; None where rounding has left no inverse."""
    if len(out) == 1:  # LAPACK's calls would take longer than the rest
        column, pivot = inverse[rest, out[0]], inverse[out[0], out[0]]
        if pivot <= 0:
            return None
        lever = column / pivot
        return inverse[np.ix_(rest, rest)] - np.outer(lever, column), coef[rest] - np.outer(lever, coef[out[0]])
    pivots, columns = inverse[np.ix_(out, out)], inverse[np.ix_(out, rest)]
    if np.linalg.eigvalsh(pivots)[0] <= 0:
        return None
    levers = np.linalg.solve(pivots, columns).T
    return inverse[np.ix_(rest, rest)] - levers @ columns, coef[rest] - levers @ coef[out]


def _start(matrix: Floats, right: Floats, left: Any) -> tuple[Floats, Floats, Factor]:
    factor = Factor(matrix[np.ix_(left, left)])
    return factor.inverse(), factor.solve(right[left]), factor


def too_steep(m: Moments, alpha: float, intercept: bool) -> bool:
    """Whether X's condition is too large to be squared where coefficients and scores are compared with others'."""
    normal = Normal.from_moments(m, intercept)
    factor = Factor(normal.xx + penalty_matrix(m.p, alpha))
    return factor.deficient or EPS * factor.condition**2 > STEEP


def kept_scores(
    m: Moments, alpha: float = 0.0, fit_intercept: bool = True, step: float = 1, least: int = 1
) -> tuple[Floats, Elimination]:  # fmt: skip
    """Cross-validated R² for every number of columns, each fold with its own elimination, from moments with folds.

    Returns:
        (folds, counts) R² on the fold left out, mean over targets, the least number of columns first; the elimination
        on all rows.
    """
    parts, p = m.by_fold[1], m.p
    cells = np.flatnonzero(parts.weight > 0)
    if len(cells) < 2:
        if m.n == 0:
            raise no_rows()
        raise BadData(f"there are {len(cells)} folds", "moments without folds", "Moments(X, y, folds=5)")
    if (parts.rows[cells] < 2).any():
        raise BadData("a fold holds one row, of which there is no R²", "as many folds as rows", "fewer folds: cv=5")
    check_targets(m)
    scores = []
    for k in cells:
        others = cells[cells != k]
        train = parts.some(others).pooled()
        normal = Normal.of(train, p, fit_intercept)
        found = eliminate(normal, alpha, keep_coefs=True, tell=False, step=step, least=least)
        scores.append(_r2(normal, found.coefs, parts, int(k), p))
    return np.array(scores), eliminate(Normal.from_moments(m, fit_intercept), alpha, step=step, least=least)


def _r2(train: Normal, coefs: list[tuple[Array, Floats]], parts: Stats, k: int, p: int) -> Floats:
    """(steps,) coefficients of determination on cell ``k``, from its moments, of all steps in one product."""
    w = np.zeros((p, len(coefs), coefs[0][1].shape[1]))
    for j, (left, coef) in enumerate(coefs):
        w[left, j] = coef
    off = train.away(parts, k)
    scatter = parts.scatter[k] + parts.weight[k] * np.outer(off, off)
    image = np.tensordot(scatter[:p, :p], w, axes=1)
    fitted = np.sum(w * image, axis=0) - 2 * np.sum(w * scatter[:p, None, p:], axis=0)
    error = np.diagonal(scatter)[p:] + fitted
    around = np.diagonal(parts.scatter[k])[p:]
    with np.errstate(divide="ignore", invalid="ignore"):  # of targets all alike as scikit-learn's r2_score has it
        found: Floats = np.where(around > 0, 1 - error / around, np.where(error > 0, 0.0, 1.0)).mean(axis=1)
    return found

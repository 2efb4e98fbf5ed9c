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
        ranking: (p,) 1 for the column that was kept longest, p for the first one dropped.
        order: columns in the order in which they were dropped; the last one is the one kept longest.
        coefs: for every number of columns k = 1 … p (index k - 1) the columns kept and their (k, q) coefficients;
            empty unless asked for.
    """

    ranking: Floats
    order: list[int]
    coefs: list[tuple[Array, Floats]]


def eliminate(
    normal: Normal | Moments, alpha: float = 0.0, by: str = "coef", keep_coefs: bool = False, tell: bool = True
) -> Elimination:
    """Drop the least column until one is left.

    Args:
        normal: equations, or the moments they are made of.
        alpha: of the ridge model whose coefficients are compared.
        by: "coef" as scikit-learn's ``RFE`` does (least sum of squared coefficients, over targets), or "f": least rise
            of the residual sum of squares, the partial F test of stepwise regression.
        keep_coefs: keep the coefficients of every step.
        tell: warn (``FewDigits``) where the condition of X lets less than four digits of coefficients be known: those
            of nearly one size may then change places.

    Raises:
        BadData: ``by`` is something else, or alpha is negative.
    """
    if by not in ("coef", "f"):
        raise BadData(f"by={by!r}", "a typing error", '"coef" or "f"')
    normal = normal if isinstance(normal, Normal) else Normal.from_moments(normal)
    p = len(normal.xx)
    matrix = normal.xx + penalty_matrix(p, alpha)
    left = np.arange(p)
    order: list[int] = []
    coefs: list[tuple[Array, Floats]] = []
    inverse, coef, factor = _start(matrix, normal.xy, left)
    if tell:
        tell_digits(factor, p)
    while len(left):
        if keep_coefs:
            coefs.append((left.copy(), coef.copy()))
        size = np.sum(coef**2, axis=1)
        score = size if by == "coef" else size / np.maximum(np.diagonal(inverse), TINY)
        worst = int(np.argmin(score))
        order.append(int(left[worst]))
        rest = np.delete(np.arange(len(left)), worst)
        pivot, column = inverse[worst, worst], inverse[rest, worst]
        if len(rest) == 0:
            break
        if factor.deficient or len(order) % REFRESH == 0 or pivot <= 0:  # a pseudo-inverse has no such change
            inverse, coef, factor = _start(matrix, normal.xy, left[rest])
        else:
            coef = coef[rest] - np.outer(column / pivot, coef[worst])
            inverse = inverse[np.ix_(rest, rest)] - np.outer(column / pivot, column)
        left = left[rest]
    ranking = np.empty(p)
    ranking[order] = np.arange(p, 0, -1)
    return Elimination(ranking, order, coefs[::-1])


def _start(matrix: Floats, right: Floats, left: Any) -> tuple[Floats, Floats, Factor]:
    factor = Factor(matrix[np.ix_(left, left)])
    return factor.inverse(), factor.solve(right[left]), factor


def too_steep(m: Moments, alpha: float, intercept: bool) -> bool:
    """Whether X's condition is too large to be squared where coefficients and scores are compared with others'."""
    normal = Normal.from_moments(m, intercept)
    factor = Factor(normal.xx + penalty_matrix(m.p, alpha))
    return factor.deficient or EPS * factor.condition**2 > STEEP


def kept_scores(m: Moments, alpha: float = 0.0, fit_intercept: bool = True) -> tuple[Floats, Elimination]:
    """Cross-validated R² for every number of columns, each fold with its own elimination, from moments with folds.

    Returns:
        (folds, p) R² on the fold left out, mean over targets, for 1 … p columns; the elimination on all rows.
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
    scores = np.empty((len(cells), p))
    for i, k in enumerate(cells):
        others = cells[cells != k]
        train = parts.some(others).pooled()
        normal = Normal.of(train, p, fit_intercept)
        found = eliminate(normal, alpha, keep_coefs=True, tell=False)
        scores[i] = _r2(normal, found.coefs, parts, int(k), p)
    return scores, eliminate(Normal.from_moments(m, fit_intercept), alpha)


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

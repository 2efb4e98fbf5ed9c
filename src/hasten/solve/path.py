"""Choosing alpha: every alpha and every fold from one pass; exact leave-one-out from two.

The validation error of a linear model is a quadratic form of the fold's moments, so no row is predicted; all alphas
share one eigendecomposition a fold. Leave-one-out: Allen's PRESS (Technometrics 16(1), 1974, p. 125-127), with weights
and intercept: e_i / (1 - h_i).
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.accuracy import centred, check_again, check_means
from hasten.solve.encode import encoded
from hasten.solve.kernel import Floats, Stats
from hasten.solve.linear import EPS, FEW_DIGITS, Normal, check_moments, check_targets
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, FewDigits, no_rows
from hasten.solve.source import Source


@dataclass(frozen=True)
class Path:
    """Errors along the alphas.

    Attributes:
        alphas: (alphas,).
        mse: (folds, alphas, targets) mean squared errors on rows that were left out; one fold for leave-one-out.
        r2: the same as coefficients of determination, each fold around its own mean.
        alpha: the best one: smallest mean squared error, averaged over folds and targets.
        each: (targets,) the best one for every target.
        method: "k-fold from fold moments" or "leave-one-out".
        rounding: (alphas,) by what share of the targets' mean squares rounding may move errors, at most: it grows with
            the square of X's condition. A ``FewDigits`` warning tells where that matters at the best alpha.
    """

    alphas: Floats
    mse: Floats
    r2: Floats
    alpha: float
    method: str
    rounding: Floats

    @property
    def each(self) -> Floats:
        """See the class."""
        found: Floats = self.alphas[np.argmin(np.where(np.isnan(self.mse), np.inf, self.mse).mean(axis=0), axis=0)]
        return found


class Spectrum:
    """All ridge solutions of one regression: coef(alpha) = V (V'xy / (values + alpha)).

    Args:
        normal: what is regressed.
        scale: (p,) penalise ``coef * scale`` instead of ``coef``; standard deviations make alpha free of units.
    """

    def __init__(self, normal: Normal, scale: Floats | None = None) -> None:
        self.scale = np.ones(len(normal.xx)) if scale is None else np.where(scale > 0, scale, 1.0)
        self.values, self.vectors = np.linalg.eigh(normal.xx / self.scale[:, None] / self.scale)
        self.values = np.maximum(self.values, 0.0)
        self.right = self.vectors.T @ (normal.xy / self.scale[:, None])
        self.normal = normal

    def shrunk(self, alphas: Floats) -> Floats:
        """(p, alphas) 1 / (values + alpha); directions without variance are left out."""
        total = self.values[:, None] + alphas
        least = EPS * max(len(self.values), 1) * (self.values[-1] if len(self.values) else 0.0)
        found: Floats = np.where(total > least, 1 / np.where(total > least, total, 1.0), 0.0)
        return found

    def rounding(self, alphas: Floats) -> Floats:
        """(alphas,) share of themselves by which fitted values are off, at most."""
        if not len(self.values):
            return np.zeros(len(alphas))
        inverse = self.shrunk(alphas).max(axis=0)
        found: Floats = EPS * max(len(self.values), 10) * (self.values[-1] + alphas) * inverse
        return found

    def rotated(self, alphas: Floats) -> Floats:
        """(p, alphas, q) coefficients in the eigenvectors' directions."""
        return self.right[:, None, :] * self.shrunk(alphas)[:, :, None]

    def coef(self, alpha: float) -> Floats:
        """(p, q) in X's own columns."""
        found: Floats = (self.vectors @ self.rotated(np.array([alpha]))[:, 0, :]) / self.scale[:, None]
        return found


def as_alphas(alphas: Any) -> Floats:
    """(alphas,) checked.

    Raises:
        BadData: one is negative or no number, or there is none.
    """
    try:
        found = np.atleast_1d(np.asarray(alphas, dtype=np.float64)).ravel()
    except (TypeError, ValueError):
        found = np.array([np.nan])
    if not len(found) or not (np.isfinite(found).all() and (found >= 0).all()):
        raise BadData(f"alphas={alphas!r}", "a negative or missing number, or none", "numpy.logspace(-3, 3, 13)")
    return found


def kfold(m: Moments, alphas: Any, *, fit_intercept: bool = True, scale: bool = False) -> Path:
    """Exact k-fold cross-validation of ridge for all alphas, from moments with folds: no further pass.

    Each training part is added up from the other folds, not subtracted from the total, so no digits are lost. A fold's
    error is a difference of large sums: where the model explains all but 1e-12 of the variance, it is rounding.

    Args:
        m: ``Moments(X, y, folds=k)``.
        alphas: (alphas,), as scikit-learn's ``Ridge``.
        scale: penalise coefficients of columns scaled to unit variance (of all rows).

    Raises:
        BadData: fewer than two folds.
    """
    grid, parts = as_alphas(alphas), check_moments(m).by_fold[1]
    folds = np.flatnonzero(parts.weight > 0)
    if len(folds) < 2:
        if m.n == 0:
            raise no_rows()
        raise BadData(f"there are {len(folds)} folds", "moments without folds", "Moments(X, y, folds=5)")
    check_targets(m)
    spread = np.sqrt(np.diagonal(m.covariance)[: m.p]) if scale else None
    mse = np.empty((len(folds), len(grid), m.q))
    r2, rounding = np.empty_like(mse), np.zeros(len(grid))
    for i, k in enumerate(folds):
        train = Normal.of(parts.some(folds[folds != k]).pooled(), m.p, fit_intercept)
        test = parts.some([int(k)])
        spectrum = Spectrum(train, spread)
        mse[i] = validation_error(spectrum, test, m.p, grid)
        rounding = np.maximum(rounding, spectrum.rounding(grid))
        variance = np.diagonal(test.scatter[0])[m.p :] / test.weight[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            r2[i] = 1 - mse[i] / variance
    return _best(grid, mse, r2, rounding, "k-fold from fold moments")


def _best(grid: Floats, mse: Floats, r2: Floats, rounding: Floats, method: str) -> Path:
    """With the alpha of the least error, and a warning where that is known to few digits."""
    at = int(np.argmin(np.where(np.isnan(mse), np.inf, mse).mean(axis=(0, 2))))
    if rounding[at] > FEW_DIGITS:
        warnings.warn(
            f"errors at the best alpha, {grid[at]:.3g}, may be off by {rounding[at]:.0e} of the targets' squares: X's "
            "condition is too large to be squared. Fit an intercept where columns have an offset, drop columns "
            "that depend on others, or let alphas begin later.",
            FewDigits, stacklevel=3,
        )  # fmt: skip
    return Path(grid, mse, r2, float(grid[at]), method, rounding)


def validation_error(spectrum: Spectrum, test: Stats, p: int, alphas: Floats) -> Floats:
    """(alphas, q) mean squared errors on other rows, known by their moments."""
    normal = spectrum.normal
    weight, scale = test.weight[0], spectrum.scale
    off = normal.away(test)
    scatter = test.scatter[0] + weight * np.outer(off, off)
    turned = spectrum.vectors / scale[:, None]
    xx = turned.T @ scatter[:p, :p] @ turned
    xy = turned.T @ scatter[:p, p:]
    coef = spectrum.rotated(alphas)
    out = np.empty((len(alphas), scatter.shape[0] - p))
    for j in range(out.shape[1]):
        w = coef[:, :, j]
        out[:, j] = scatter[p + j, p + j] - 2 * (xy[:, j] @ w) + np.sum(w * (xx @ w), axis=0)
    found: Floats = np.maximum(out, 0.0) / weight
    return found


def leave_one_out(
    source: Source, m: Moments, alphas: Any, *, fit_intercept: bool = True, scale: bool = False
) -> tuple[Path, Spectrum]:
    """Exact leave-one-out errors of ridge for all alphas, in a second pass over the data.

    Args:
        source: the rows that ``m`` was made of; texts and missing values are encoded as there.
        m: their moments.

    Returns:
        the errors, one "fold"; and all solutions.

    Raises:
        BadData: the rows can be read only once, or are not those of ``m``.
    """
    grid = as_alphas(alphas)
    normal = Normal.from_moments(m, fit_intercept)
    if not isinstance(source, Source):
        raise BadData("leave-one-out needs rows and targets", "X without y", "solve.open_source(X, y)")
    check_targets(m)
    spread = np.sqrt(np.diagonal(m.covariance)[: m.p]) if scale else None
    spectrum = Spectrum(normal, spread)
    inverse, coef = spectrum.shrunk(grid), np.ascontiguousarray(np.moveaxis(spectrum.rotated(grid), 2, 0))
    turn = spectrum.vectors / spectrum.scale[:, None]
    at_mean = 1.0 / normal.weight if fit_intercept else 0.0
    total, weights, ones = np.zeros((len(grid), m.q)), 0.0, np.zeros(m.p)
    for c, t, weight in centred(encoded(source, m), normal.x_mean, normal.y_mean):
        weights += len(c) if weight is None else float(weight.sum())
        ones += c.sum(axis=0) if weight is None else weight @ c
        c -= normal.rest[: m.p]  # the means were rounded
        t -= normal.rest[m.p :]
        z = c @ turn
        leverage = (z * z) @ inverse + at_mean
        if weight is not None:
            leverage *= weight[:, None]
        left = np.maximum(1 - leverage, 0.0)
        left[left < 1e-10] = np.nan  # the row alone decides: it cannot be left out
        error = np.empty_like(left)  # in place: with many targets this is nearly all of the time
        for j in range(m.q):
            np.matmul(z, coef[j], out=error)
            np.subtract(t[:, j : j + 1], error, out=error)
            error /= left
            error *= error
            if weight is not None:
                error *= weight[:, None]
            total[:, j] += error.sum(axis=0)
    check_again(weights, normal.weight)
    check_means(ones, normal)
    mse = (total / normal.weight)[None]
    variance = np.diagonal(m.scatter)[m.p :] / m.weight
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - mse / variance
    return _best(grid, mse, r2, spectrum.rounding(grid), "leave-one-out"), spectrum


def cell(m: Moments, label: Hashable) -> Stats:
    """Moments of one cell."""
    return m.parts.some([m.cells[label]])

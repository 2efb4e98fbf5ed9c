"""Least squares and ridge from moments: normal equations, equilibrated, with their condition told."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.combine import shortened
from hasten.solve.kernel import Array, Floats, Stats, settle
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, FewDigits, no_rows, no_target

EPS = float(np.finfo(np.float64).eps)
FEW_DIGITS = 1e-4  # relative error of a regression table, from which on it is told
FAINT = 16 * float(np.finfo(np.float64).tiny)  # variance below which squares lose digits, or are nought


class FaintColumns(UserWarning):
    """Columns of X vary by so little that their squares are no numbers of full precision."""


@dataclass(frozen=True)
class Normal:
    """Normal equations of the regression of Y on X.

    Attributes:
        xx: (p, p) scatter of X; around 0 instead of the mean without an intercept.
        xy: (p, q); yy: (q, q).
        x_mean: (p,), y_mean: (q,); zeros without an intercept.
        weight, rows: sum of weights; rows of positive weight.
        intercept: whether one is fitted.
        rest: (p + q,) what rounding took from the means of [X | Y].
    """

    xx: Floats
    xy: Floats
    yy: Floats
    x_mean: Floats
    y_mean: Floats
    weight: float
    rows: float
    intercept: bool
    rest: Floats

    @classmethod
    def of(cls, stats: Stats, p: int, intercept: bool = True) -> Normal:
        """From moments of one cell, columns as [X | Y].

        Raises:
            BadData: there are no rows, or no targets.
        """
        if stats.weight[0] <= 0:
            raise no_rows()
        mean, scatter, rest = stats.mean[0], stats.scatter[0], stats.rest[0]
        if p == len(mean):
            raise no_target()
        squares = np.diagonal(scatter)[:p]
        lost = np.flatnonzero((squares > 0) & (squares < FAINT * stats.weight[0]))
        if len(lost):
            scatter = scatter.copy()
            scatter[lost], scatter[:, lost] = 0.0, 0.0
        if not intercept:
            scatter = scatter + stats.weight[0] * np.outer(mean, mean)
            settle(scatter, None if stats.unsure is None else stats.unsure[0])
            mean, rest = np.zeros_like(mean), np.zeros_like(rest)
        return cls(
            scatter[:p, :p], scatter[:p, p:], scatter[p:, p:], mean[:p], mean[p:],
            float(stats.weight[0]), float(stats.rows[0]), intercept, rest,
        )  # fmt: skip

    @classmethod
    def from_moments(cls, m: Moments, intercept: bool = True, cell: Hashable = None) -> Normal:
        """From all of ``m``, or from one of its cells."""
        check_moments(m)
        if cell is None:
            return cls.of(m.total, m.p, intercept)
        return cls.of(m.parts.some([m.cells[cell]]), m.p, intercept)

    @property
    def spread(self) -> Floats:
        """(p,) standard deviations of the columns; around 0 without an intercept."""
        return np.sqrt(np.diagonal(self.xx) / self.weight)

    def away(self, stats: Stats, cell: Any = 0) -> Floats:
        """(p + q,) the means of a cell, or (cells, p + q) of several, less those of these equations."""
        found: Floats = (stats.mean[cell] - np.append(self.x_mean, self.y_mean)) + (stats.rest[cell] - self.rest)
        return found

    def intercept_of(self, coef: Floats) -> Floats:
        """(q,) for coefficients (p, q)."""
        found: Floats = self.y_mean - self.x_mean @ coef
        return found

    def residual(self, coef: Floats) -> Floats:
        """(q,) weighted sums of squared errors of coefficients (p, q).

        They are differences of large sums: below about 1e-13 of the targets' scatter only rounding is left.
        """
        inner = np.diagonal(self.yy) - 2 * np.sum(coef * self.xy, axis=0) + np.sum(coef * (self.xx @ coef), axis=0)
        found: Floats = np.maximum(inner, 0.0)
        return found


def check_moments(m: Any) -> Moments:
    """``m``, with a warning where columns are faint.

    Raises:
        BadData: these are rows, not moments.
    """
    if isinstance(m, Moments):
        if names := faint(m):
            warnings.warn(
                f"the columns {shortened(names)} vary by less than {np.sqrt(_limit(m)):.0e}, and {m.precision} has no "
                "squares of that: they lose digits, or count as constant. Scale them, or use solve.lstsq, which then "
                "takes QR.",
                FaintColumns,
                stacklevel=3,
            )
        return m
    raise BadData(
        f"a {type(m).__name__} is no Moments",
        "rows where their moments are wanted",
        "Moments(X, y) first, as in solve.ridge(solve.Moments(X, y), alpha); or solve.lstsq(X, y, alpha=alpha)",
    )


def faint(m: Moments) -> list[str]:
    """Names of X's columns that vary, though by less than can be squared."""
    found = _faint(m, slice(0, m.p), slice(0, len(m.encoder.numeric)))
    return [name for name, at in zip(m.names, found, strict=True) if at]


def check_targets(m: Moments) -> None:
    """Raises: BadData: a target varies by less than can be squared, so errors would be 0 for every alpha."""
    k = len(m.encoder.numeric)
    found = _faint(m, slice(m.p, m.p + m.q), slice(k, k + m.q))
    if found.any():
        name = m.targets[int(np.argmax(found))]
        raise BadData(
            f"the target {name!r} varies by less than {np.sqrt(_limit(m)):.0e}, and {m.precision} has no squares of "
            "that: errors cannot be told from 0",
            "another unit", "scale the target, as by 1e100",
        )  # fmt: skip


def _faint(m: Moments, at: slice, kept: slice) -> Array:
    """(columns,) whether they vary, though by less than can be squared.

    Args:
        at: which columns of [X | Y]. kept: which columns of the sums these begin with.
    """
    limit = _limit(m)
    inside = np.diagonal(m.parts.scatter, axis1=1, axis2=2)[:, at].sum(axis=0)
    if not (inside < limit * m.parts.weight.sum()).any():  # known without adding up all of many cells
        return np.zeros(len(inside), dtype=bool)
    total, sums = m.total, m._sums
    unsure = np.zeros(m.p + m.q) if total.unsure is None else total.unsure[0]
    squares = np.diagonal(total.scatter[0])[at]
    small = squares < limit * total.weight[0]
    held = m.parts.mean[m.parts.weight > 0][:, at]
    apart = np.ptp(held, axis=0) > 1e-12 * np.abs(held).max(axis=0) if len(held) else np.zeros(len(small), dtype=bool)
    found: Array = small & ((squares > 0) | (apart & (unsure[at] == 0)))
    if sums is not None:  # without any square left, sums of the numbers themselves tell
        second = np.diagonal(sums.sums.scatter, axis1=1, axis2=2)[:, kept]
        varies = (sums.sums.mean[:, kept] != 0) & (second < limit * sums.sums.weight[:, None])
        k = varies.shape[1]
        found[:k] |= small[:k] & varies.any(axis=0)
    return found


def _limit(m: Moments) -> float:
    """Variance below which products lose digits."""
    return FAINT if m.precision == "float64" else 16 * float(np.finfo(np.float32).tiny)


class Factor:
    """A factored ``xx + penalty``, scaled to ones on its diagonal (van der Sluis: within sqrt(p) of the best scaling;
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, p. 126).

    Columns that are constant get the coefficient 0. Columns that depend on each other are solved by the minimum-norm
    solution in scaled columns, and ``rank`` tells of it.

    Args:
        matrix: (p, p) symmetric, positive semidefinite.
        unit: relative rounding of its elements.
    """

    def __init__(self, matrix: Floats, unit: float = EPS) -> None:
        p = len(matrix)
        diagonal = np.diagonal(matrix)
        self.used = diagonal > 0
        self.scale = np.where(self.used, np.sqrt(np.where(self.used, diagonal, 1.0)), 1.0)
        scaled = matrix / self.scale[:, None] / self.scale
        self.values: Floats = np.ones(0)
        self.vectors: Floats = np.ones((0, 0))
        if p:
            self.values, self.vectors = np.linalg.eigh(scaled)
        largest = self.values[-1] if p else 1.0
        floor = max(largest, 1e-300) * unit * max(p, 10)
        self.kept = self.values > floor
        self.rank = int(self.kept.sum())
        dropped = p - int(self.used.sum())  # constant columns are known to be zero; the rest is below rounding
        self.deficient = self.rank < p - dropped
        smallest = self.values[self.kept][0] if self.rank else largest
        self.condition = 1.0  # of nothing
        if self.deficient:
            self.condition = float("inf")
        elif self.rank:
            self.condition = float(np.sqrt(largest / smallest))

    @property
    def alone(self) -> Array:
        """(p,) whether a column is neither constant nor a sum of others: no null direction has a part of it."""
        found: Array = self.used & (np.sum(self.vectors[:, self.kept] ** 2, axis=1) > 1 - 1e-6)
        return found

    def solve(self, right: Floats) -> Floats:
        """(p, q) solution for right-hand sides (p, q)."""
        scaled = right / self.scale[:, None]
        inverse = np.where(self.kept, 1.0 / np.where(self.kept, self.values, 1.0), 0.0)
        found = self.vectors @ (inverse[:, None] * (self.vectors.T @ scaled)) / self.scale[:, None]
        return np.where(self.used[:, None], found, 0.0)

    def inverse(self) -> Floats:
        """(p, p) (pseudo-)inverse of the matrix."""
        return self.solve(np.eye(len(self.scale)))


def one_alpha(alpha: Any) -> float:
    """The penalty as a number.

    Raises:
        BadData: it is negative, no number, or several.
    """
    try:
        found = float(np.asarray(alpha, dtype=np.float64).item())
    except (TypeError, ValueError):
        found = np.nan
    if not 0 <= found < np.inf:
        raise BadData(
            f"alpha is {alpha}", "a negative or missing number, or several, though not one for each target",
            "one number: 0 for least squares, more for ridge",
        )  # fmt: skip
    return found


def alphas_of(alpha: Any, targets: int) -> list[float]:
    """The penalty: one number, or one for each of several targets.

    Raises:
        BadData: as ``one_alpha``.
    """
    each = np.ndim(alpha) == 1 and len(alpha) == targets > 1
    return [one_alpha(a) for a in (alpha if each else [alpha])]


@dataclass(frozen=True)
class Summary:
    """What regression tables show; one column a target.

    Attributes:
        coef, standard_error, t, p_value: (p, q).
        intercept, intercept_error: (q,).
        sigma2: (q,) residual variance. r2, adjusted_r2, f, f_p_value: (q,).
        vif: (p,) variance inflation factors; infinite for columns that depend on others, or are constant.
        freedom: rows - rank - intercept.
    """

    coef: Floats
    standard_error: Floats
    t: Floats
    p_value: Floats
    intercept: Floats
    intercept_error: Floats
    sigma2: Floats
    r2: Floats
    adjusted_r2: Floats
    f: Floats
    f_p_value: Floats
    vif: Floats
    freedom: float


def summary(m: Moments, fit_intercept: bool = True) -> Summary:
    """Standard errors, t and F tests and variance inflation of ordinary least squares, from moments alone.

    Weights count as inverse variances, as in ``statsmodels.WLS``. Source: Seber & Lee, Linear Regression Analysis,
    2nd ed. 2003, p. 42-48 (variances), 97-110 (tests), 254 (variance inflation).

    Raises:
        BadData: no more rows than coefficients. A ``FewDigits`` warning: the condition of X lets less than four digits
            be known; without an intercept a common offset of columns is such a condition.
    """
    from hasten.solve.problems import need

    special = need("scipy.special", "p-values")
    normal = Normal.from_moments(m, fit_intercept)
    check_targets(m)
    factor = Factor(normal.xx)
    coef, inverse = factor.solve(normal.xy), factor.inverse()
    freedom = normal.rows - factor.rank - fit_intercept
    if freedom < 1:
        raise BadData(
            f"{normal.rows:.0f} rows leave nothing over for errors of {factor.rank} coefficients",
            "too few rows", "more rows, or fewer columns",
        )  # fmt: skip
    tell_digits(factor, m.p)
    residual, total = normal.residual(coef), np.diagonal(normal.yy)
    sigma2 = residual / freedom
    spread = np.sqrt(np.maximum(np.diagonal(inverse), 0)[:, None] * sigma2)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = coef / spread
        r2 = np.where(total > 0, 1 - residual / total, np.nan)
        f = (total - residual) / max(factor.rank, 1) / sigma2
        vif = np.where(factor.alone, np.diagonal(inverse) * np.diagonal(normal.xx), np.inf)
    at_zero = (1 / normal.weight + normal.x_mean @ inverse @ normal.x_mean) if fit_intercept else 0.0
    return Summary(
        coef, spread, t, 2 * special.stdtr(freedom, -np.abs(t)), normal.intercept_of(coef), np.sqrt(at_zero * sigma2),
        sigma2, r2, 1 - (1 - r2) * (normal.rows - fit_intercept) / freedom, f, special.fdtrc(factor.rank, freedom, f),
        vif, float(freedom),
    )  # fmt: skip


def tell_digits(factor: Factor, p: int) -> None:
    """A ``FewDigits`` warning where what is solved by ``factor`` has few of them."""
    error = EPS * max(p, 10) * factor.condition**2
    if error < FEW_DIGITS:
        return
    told = f"are known to a share of {error:.0e} of themselves" if error < 1 else "are not known to any digit"
    what = f"the condition of X is {factor.condition:.0e}, and the figures {told}"
    if factor.deficient:
        what = f"X has {p} columns but rank {factor.rank}, and the coefficients are the smallest of many solutions"
    warnings.warn(f"{what}. Drop columns that depend on others; fit an intercept where columns have an offset.",
                  FewDigits, stacklevel=3)  # fmt: skip


def whitening(m: Moments, regularise: float = 0.0) -> tuple[Floats, Any]:
    """(p,) mean and (p, p) symmetric W such that ``(X - mean) @ W`` has the covariance I (ZCA; Bell & Sejnowski, Vision
    Research 37(23), 1997, p. 3329). Directions without variance are left out.

    Args:
        regularise: added to every eigenvalue of the covariance.
    """
    p = check_moments(m).p
    values, vectors = np.linalg.eigh(m.covariance[:p, :p])
    kept = values > EPS * p * max(values[-1], 1e-300)
    root = np.where(kept, 1 / np.sqrt(np.where(kept, values + regularise, 1.0)), 0.0)
    return m.mean[:p], (vectors * root) @ vectors.T

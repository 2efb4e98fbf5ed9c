"""Ridge and generalised Tikhonov regularisation from moments."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.bounds import bound_of, gram_bound, shift_growth
from hasten.solve.kernel import Array, Floats
from hasten.solve.linear import EPS, Factor, Normal, alphas_of, one_alpha
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, DependentColumns, need

SQUARED = 1e-8  # error by the square of the condition, from which on a penalty is not squared


@dataclass(frozen=True)
class Fit:
    """A linear model.

    Attributes:
        coef: (p, q); intercept: (q,).
        condition: of X with its columns scaled to one length, and with the penalty's rows below it.
        rank: of the same; less than p where columns are constant or depend on each other.
        method: what was done.
        error_bound: first-order bound of the scaled coefficients' relative error by rounding, as
            ``Answer.error_bound_``; infinite where columns depend on each other.
        dependent: whether they do; a ``DependentColumns`` warning has told so.
    """

    coef: Floats
    intercept: Floats
    condition: float
    rank: int
    method: str
    error_bound: float = np.inf
    dependent: bool = False


def ridge(
    m: Moments | Normal, alpha: Any = 0.0, *, penalty: Array | None = None, fit_intercept: bool = True
) -> Fit:  # fmt: skip
    """Minimise the weighted sum of squares plus ``alpha * |coef|²``, or plus ``|penalty @ coef|²``.

    Args:
        m: moments of [X | Y].
        alpha: a number, or (targets,) one each, as scikit-learn's ``Ridge``; 0 is ordinary least squares.
        penalty: (k, p) of generalised Tikhonov regularisation (for example differences of neighbours, for smooth
            coefficients), or (p,) weights of a diagonal one; on top of ``alpha``. Its squares are not added to those
            of X where that would cost digits: it may be 1e8 times as large, and leave directions free.
        fit_intercept: not penalised. Ignored for a ``Normal``.

    Returns:
        the fit; see ``solve.lstsq`` for a smaller error.

    Raises:
        BadData: no rows, a negative alpha, or a penalty of another shape or without numbers.
    """
    fit = fitted(m, alpha, penalty, fit_intercept)
    if fit.dependent:
        warnings.warn(
            f"X has {len(fit.coef)} columns but rank {fit.rank}: the coefficients are the smallest of many solutions, "
            "in columns scaled to one length; predictions are unique. Drop columns, or use alpha > 0.",
            DependentColumns, stacklevel=2,
        )  # fmt: skip
    return fit


def fitted(m: Moments | Normal, alpha: Any = 0.0, penalty: Array | None = None, fit_intercept: bool = True) -> Fit:
    """As ``ridge``, without a warning."""
    normal = m if isinstance(m, Normal) else Normal.from_moments(m, fit_intercept)
    alphas = alphas_of(alpha, normal.xy.shape[1])
    if len(alphas) > 1:
        return _each(m, normal, alphas, penalty)
    added = penalty_matrix(len(normal.xx), alpha, penalty)
    factor = Factor(normal.xx + added)
    if penalty is not None and (factor.deficient or EPS * factor.condition**2 > SQUARED):
        return _by_root(normal, penalty_rows(len(normal.xx), one_alpha(alpha), penalty), factor.scale)
    coef = factor.solve(normal.xy)
    bound = gram_bound(normal, factor, coef) * (shift_growth(m, normal, factor) if isinstance(m, Moments) else 1.0)
    return Fit(
        coef, normal.intercept_of(coef), factor.condition, factor.rank, "normal equations, float64", bound,
        factor.deficient,
    )  # fmt: skip


def _each(m: Moments | Normal, normal: Normal, alphas: list[float], penalty: Array | None) -> Fit:
    """Every target with its own alpha; condition, rank and bound are the worst ones."""
    coef, fits = np.empty_like(normal.xy), []
    for alpha in sorted(set(alphas)):
        fits.append(fitted(m, alpha, penalty, normal.intercept))
        own = [j for j, a in enumerate(alphas) if a == alpha]
        coef[:, own] = fits[-1].coef[:, own]
    return Fit(
        coef, normal.intercept_of(coef), max(f.condition for f in fits), min(f.rank for f in fits), fits[0].method,
        max(f.error_bound for f in fits), any(f.dependent for f in fits),
    )  # fmt: skip


def _by_root(normal: Normal, rows: Floats, scale: Floats) -> Fit:
    """The minimum of ``|root @ coef - known|² + |rows @ coef|²``, with ``root`` that of X's Gram matrix, by QR.

    Largest rows first and columns pivoted, so that small rows keep their digits beside large ones (Cox & Higham,
    "Stability of Householder QR factorization for weighted least squares problems", 1998).
    """
    linalg = need("scipy.linalg", "a penalty")
    p, gram = len(normal.xx), Factor(normal.xx)
    values, vectors = gram.values[gram.kept], gram.vectors[:, gram.kept]
    root = np.sqrt(values)[:, None] * vectors.T * np.where(gram.used, gram.scale, 0.0)
    known = vectors.T @ (normal.xy / gram.scale[:, None]) / np.sqrt(values)[:, None]
    stacked = np.vstack([rows, root]) / scale
    right = np.vstack([np.zeros((len(rows), known.shape[1])), known])
    order = np.argsort(-np.abs(stacked).max(axis=1, initial=0.0), kind="stable")
    turned, r, pivots = linalg.qr(stacked[order], mode="economic", pivoting=True)
    left, singular, back = np.linalg.svd(r, full_matrices=False)
    kept = singular > EPS * max(p, 10) * singular.max(initial=0.0)
    rank, dependent = int(kept.sum()), bool(kept.sum() < (np.abs(stacked).max(axis=0) > 0).sum())
    coef, image = np.zeros((p, right.shape[1])), turned.T @ right[order]
    if rank == p:
        coef[pivots] = linalg.solve_triangular(r[:p], image[:p])
    else:
        coef[pivots] = back[kept].T @ ((left[:, kept].T @ image) / singular[kept, None])
    condition = np.inf if dependent else float(singular[0] / singular[kept][-1]) if rank else 1.0
    coef /= scale[:, None]
    bound = 0.0
    if rank:
        lengths = np.linalg.norm(coef * scale[:, None], axis=0) * singular[0]
        tangent = float(np.max(np.sqrt(normal.residual(coef)) / np.maximum(lengths, 1e-300), initial=0.0))
        squared = (np.linalg.norm(root / scale, 2) / singular[kept][-1]) ** 2 if len(root) else 0.0
        bound = bound_of(p, condition, tangent) + EPS * max(p, 10) * float(squared)
    return Fit(coef, normal.intercept_of(coef), condition, rank, "QR of Gram root and penalty", bound, dependent)


def penalty_rows(p: int, alpha: float, penalty: Array | None) -> Floats:
    """(k, p) whose squares are the penalty."""
    rows = np.sqrt(alpha) * np.eye(p) if alpha else np.zeros((0, p))
    if penalty is None:
        return rows
    given = np.asarray(penalty, dtype=np.float64)
    if given.ndim == 1:
        given = np.diag(given)
    if given.ndim != 2 or given.shape[1] != p:
        raise BadData(f"the penalty has the shape {given.shape}", "one of another X", f"(any, {p}) or ({p},)")
    if not np.isfinite(given).all():
        raise BadData("the penalty holds NaN or infinity", "a division by zero", "numbers")
    return np.vstack([rows, given])


def penalty_matrix(p: int, alpha: float, penalty: Array | None = None) -> Floats:
    """(p, p) what is added to the scatter of X."""
    added, given = np.eye(p) * one_alpha(alpha), penalty_rows(p, 0.0, penalty)
    found: Floats = added + given.T @ given
    return found

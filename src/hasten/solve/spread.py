"""Principal components and linear discriminants from moments."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from hasten.solve.kernel import Floats
from hasten.solve.linear import EPS, Factor, check_moments, tell_digits
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, need

FEW = 8  # of so many eigenvectors one is wanted: then the others are not made
TINY = 1e-300


@dataclass(frozen=True)
class Components:
    """Principal components.

    Attributes:
        mean: (p,).
        components: (k, p) orthonormal rows; in each the largest element in size is positive.
        variance: (k,) along them, as ``Moments.covariance`` has them.
        ratio: (k,) shares of the whole variance.
        left: mean variance of the directions that were left out.
    """

    mean: Floats
    components: Floats
    variance: Floats
    ratio: Floats
    left: float


def components(m: Moments, k: float | None = None, *, least: int = 2) -> Components:
    """The exact principal components, from the eigenvectors of the covariance; all that carry variance for None, as
    many as explain the share ``k`` of it for a number between 0 and 1.

    Variances below ``EPS`` of the largest one are rounding (a Gram matrix squares X's condition); sklearn's SVD in
    memory resolves them down to ``EPS²``. Source: Jolliffe, Principal Component Analysis, 2nd ed. 2002, p. 29-31.

    Args:
        least: rows that there have to be; of one all variances are nought.

    Raises:
        BadData: k is larger than the number of columns, or there are fewer rows.
    """
    p = check_moments(m).p
    check_count(k, p, m.n, least)
    covariance = m.covariance[:p, :p]
    total = float(np.trace(covariance))
    number = p if k is None or k < 1 else int(k)
    values, rows = _largest(covariance, number)
    if k is None:
        number = max(int((values > EPS * p * values[0]).sum()), 1)
    elif k < 1:
        number = min(int(np.searchsorted(np.cumsum(values) / max(total, TINY), k, side="right")) + 1, p)
    values, rows = values[:number], rows[:number].copy()
    largest = np.argmax(np.abs(rows), axis=1)
    rows *= np.where(rows[np.arange(number), largest] < 0, -1.0, 1.0)[:, None]
    ratio = values / total if total > 0 else np.zeros(number)
    left = max(total - float(values.sum()), 0.0) / (p - number) if number < p else 0.0
    return Components(m.mean[:p], rows, values, ratio, left)


def check_count(k: float | None, p: int, rows: float, least: int) -> None:
    """Raises: BadData: so many components cannot be had."""
    if rows < least:
        raise BadData(
            f"there are {rows:.0f} rows: n_samples = 1 has no variance", "too few rows", f"{least} rows at least"
        )
    if k is None or (isinstance(k, Real) and 0 < k <= p and (k < 1 or k == int(k))):
        return
    if isinstance(k, str):
        raise BadData(
            f"n_components={k!r} is not done here" if k in ("mle", "auto") else f"n_components={k!r} is no number",
            "a setting of scikit-learn's PCA" if k in ("mle", "auto") else "a typing error",
            "n_components=None for all, 0.95 for that share of the variance; or sklearn.decomposition.PCA",
        )  # fmt: skip
    raise BadData(
        f"{k} components of {p} columns", "more than there are, or neither a count nor a share",
        f"a whole number from 1 to {p}, a share of the variance below 1, or None for all",
    )  # fmt: skip


def _largest(matrix: Floats, count: int) -> tuple[Floats, Floats]:
    """(count,) largest eigenvalues, the first one first, and (count, p) their vectors.

    Few of them are found by bisection and inverse iteration (LAPACK's ``syevx``), in half the time of all.
    """
    p = len(matrix)
    if count * FEW <= p:
        linalg = need("scipy.linalg", "principal components")
        try:
            values, vectors = linalg.eigh(
                matrix, subset_by_index=(p - count, p - 1), driver="evx", check_finite=False
            )  # fmt: skip
            return np.maximum(values[::-1], 0.0), vectors.T[::-1]
        except np.linalg.LinAlgError:  # inverse iteration did not converge
            pass
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(values[::-1], 0.0)[:count], vectors.T[::-1][:count]


@dataclass(frozen=True)
class Discriminant:
    """Linear discriminants: ``scores = X @ coef + intercept``, the largest one wins; only their differences count.

    Attributes:
        classes: labels. coef: (p, classes). intercept: (classes,). means: (classes, p).
        covariance: (p, p) shared one, shrunk.
    """

    classes: list[object]
    coef: Floats
    intercept: Floats
    means: Floats
    covariance: Floats


def discriminant(m: Moments, shrinkage: float = 0.0, priors: Any = None) -> Discriminant:
    """Fisher's discriminant with one shared covariance, from moments with one group a class: that within the classes,
    of all rows over their weight, whatever the priors.

    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed. 2009, p. 106-112; shrinkage
    toward the mean variance (p. 112, and scikit-learn's ``shrinkage``).

    Args:
        m: ``Moments(X, groups=labels)``.
        shrinkage: 0 to 1.
        priors: one a class, in the order of ``m.by_group[0]``; shares of the rows unless given. A class whose rows were
            all removed is left out.

    Raises:
        BadData: fewer than two classes, or a number out of range. A ``FewDigits`` warning: columns depend on each
            other, or nearly so; shrink.
    """
    (labels, parts), p = check_moments(m).by_group, m.p
    if (parts.weight > 0).sum() < 2:
        raise BadData("fewer than two classes", "moments without groups", "Moments(X, groups=labels)")
    if not 0 <= shrinkage <= 1:
        raise BadData(f"shrinkage={shrinkage}", "out of range", "a number from 0 to 1")
    share = parts.weight / parts.weight.sum() if priors is None else np.asarray(priors, dtype=np.float64)
    if share.shape != parts.weight.shape or not ((share >= 0) & (share < np.inf)).all() or not share.any():
        raise BadData(f"priors={priors!r} of {len(labels)} classes", "those of other classes", "a share a class")
    kept = np.flatnonzero(parts.weight > 0)
    labels, parts, share = [labels[i] for i in kept], parts.some(kept), share[kept]
    means = parts.mean[:, :p]
    covariance = parts.scatter[:, :p, :p].sum(axis=0) / parts.weight.sum()
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / p * np.eye(p)
    factor = Factor(covariance)
    tell_digits(factor, p)
    centre = m.total
    apart = ((parts.mean - centre.mean) + (parts.rest - centre.rest))[:, :p]  # an offset would be squared otherwise
    coef = factor.solve(apart.T)
    with np.errstate(divide="ignore"):  # a class whose prior is 0 is never the answer
        intercept = np.log(share) - 0.5 * np.sum(apart.T * coef, axis=0) - centre.mean[0, :p] @ coef
    return Discriminant(labels, coef, intercept, means, covariance)

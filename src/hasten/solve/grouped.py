"""Many ridge models at once: one a group, solved by batched Cholesky, drawn toward the common model if wanted."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from hasten.solve.kernel import Floats, settle
from hasten.solve.linear import EPS, FEW_DIGITS, Factor, Normal, check_moments
from hasten.solve.moments import Moments
from hasten.solve.path import as_alphas
from hasten.solve.problems import FewDigits
from hasten.solve.tikhonov import fitted

BATCH_BYTES = 1 << 20  # matrices factored at a time stay in cache
LEAST = 1e-7  # pivot of a scaled matrix, below which eigenvectors solve it


@dataclass(frozen=True)
class GroupFit:
    """One model a group.

    Attributes:
        labels: of the groups. coef: (groups, p, q). intercept: (groups, q). A group without rows has the common ones.
        common: (p, q) coefficients and (q,) intercept of all rows together.
    """

    labels: list[object]
    coef: Floats
    intercept: Floats
    common: tuple[Floats, Floats]


def solve_groups(m: Moments, alpha: float = 1.0, toward: float = 0.0, fit_intercept: bool = True) -> GroupFit:
    """Ridge for every group at once.

    Args:
        m: ``Moments(X, y, groups=labels)``.
        alpha: as scikit-learn's ``Ridge``, the same for every group; 0 needs every group to have full rank.
        toward: pseudo-rows of the common model in every group: 0 leaves groups alone, large numbers give all the
            common model. A group's model then minimises its own squared errors + ``alpha * |coef|²`` +
            ``toward * |coef - common|²_S`` with S the covariance of all rows: partial pooling (Gelman & Hill, Data
            Analysis Using Regression and Multilevel Models, 2007, p. 252-259), with a known ratio of variances.
    """
    as_alphas([alpha, toward])
    p, (labels, parts) = check_moments(m).p, m.by_group
    common = fitted(m, alpha, fit_intercept=fit_intercept)
    mean, scatter = parts.mean, parts.scatter
    if not fit_intercept:
        scatter = scatter + parts.weight[:, None, None] * mean[:, :, None] * mean[:, None, :]
        settle(scatter, parts.unsure)
        mean = np.zeros_like(mean)
    whole = Normal.from_moments(m, fit_intercept)
    prior = toward * whole.xx / max(whole.weight, 1e-300)
    right = scatter[:, :p, p:] + prior @ common.coef
    if fit_intercept and toward:  # the pseudo-rows have the common mean; so groups' intercepts shrink, too
        mix = parts.weight * toward / (parts.weight + toward)
        off, away = np.split(-whole.away(parts, slice(None)), [p], axis=1)
        away = away[:, None, :]
        scatter = scatter + mix[:, None, None] * np.pad(off[:, :, None] * off[:, None, :], ((0, 0), (0, m.q), (0, m.q)))
        right = right + mix[:, None, None] * off[:, :, None] * away
        mean = (parts.weight[:, None] * mean + toward * np.append(whole.x_mean, whole.y_mean)) / (
            parts.weight[:, None] + toward
        )
    coef = _batched(scatter[:, :p, :p], prior + alpha * np.eye(p), right)
    intercept = mean[:, p:] - np.einsum("gp,gpq->gq", mean[:, :p], coef)
    gone = parts.weight <= 0  # the rows of a group were all removed
    coef[gone], intercept[gone] = common.coef, common.intercept
    return GroupFit(labels, coef, intercept if fit_intercept else np.zeros_like(intercept),
                    (common.coef, common.intercept))  # fmt: skip


def _batched(matrices: Floats, added: Floats, right: Floats) -> Floats:
    """Solutions of ``(matrices + added) x = right`` by Cholesky; one by one where a group is singular.

    A ``FewDigits`` warning tells where a group's condition leaves less than four digits.
    """
    p = matrices.shape[1]
    step = max(1, BATCH_BYTES // (8 * p * p + 1))
    out, worst = np.empty_like(right), 1.0
    for i in range(0, len(matrices), step):
        batch = matrices[i : i + step] + added
        diagonal = np.einsum("gpp->gp", batch)
        scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = batch / scale[:, :, None] / scale[:, None, :]
        try:
            root = np.linalg.cholesky(scaled)
            half = np.linalg.solve(root, right[i : i + step] / scale[:, :, None])
            found = np.linalg.solve(np.swapaxes(root, 1, 2), half)
            least = np.min(np.einsum("gpp->gp", root), initial=1.0)
            if least < LEAST:
                raise np.linalg.LinAlgError
            out[i : i + step], worst = found / scale[:, :, None], max(worst, 1 / least)
        except np.linalg.LinAlgError:
            for j, matrix in enumerate(batch, i):
                factor = Factor(matrix)
                out[j], worst = factor.solve(right[j]), max(worst, factor.condition)
    _tell(worst, p)
    return out


def _tell(condition: float, p: int) -> None:
    error = EPS * max(p, 10) * condition**2
    if error > FEW_DIGITS:
        cause = "columns depend on each other" if condition == np.inf else f"the condition of X is {condition:.0e}"
        warnings.warn(
            f"in a group {cause}, so less than four digits of its coefficients are known. A larger alpha helps, and so "
            "does toward=, which draws them to the common ones.",
            FewDigits, stacklevel=4,
        )  # fmt: skip

"""Backward elimination where X's condition is too large to be squared: from QR triangles, one a fold, of a second pass.

A column is taken out of a triangle by Givens rotations (Golub & Van Loan, Matrix Computations, 4th ed. 2013, 6.5.2),
so all steps together cost about as much as one QR decomposition of as many rows as columns.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.accuracy import host
from hasten.solve.bounds import bound_of
from hasten.solve.dealing import labels_of, parts_of
from hasten.solve.elimination import Elimination
from hasten.solve.kernel import Array, Floats
from hasten.solve.linear import EPS, FEW_DIGITS
from hasten.solve.moments import Moments
from hasten.solve.problems import FewDigits, need
from hasten.solve.source import Source
from hasten.solve.tsqr import LEAST_BLOCK, lengths

FLAT = 10 * EPS  # a column's length around its mean over that around the shift, below which it is constant


@dataclass(frozen=True)
class Steps:
    """An elimination, and the model of every number of columns.

    Attributes:
        elimination: see there; with the coefficients.
        intercepts: (counts, q) of its models, for X and Y less the shift.
    """

    elimination: Elimination
    intercepts: Floats


def fold_triangles(source: Source, m: Moments, fold: Array | None) -> tuple[list[Floats], Floats]:
    """R of [1 | X - shift | Y - shift] of every fold, in one pass; and the shift (p + q,).

    Args:
        m: moments of the same rows. fold: (rows,) fold numbers, or None as ``m.folds`` deals them.
    """
    found: dict[Any, Floats] = {}
    shift, seen, p = m.mean.copy(), 0, m.p
    for block in source.blocks():
        labels = labels_of(block, fold, None, source.rows, m.folds, seen)
        seen += len(block.x)
        for label, pick in parts_of([*labels.values()]):
            part = host(block.taken(pick))
            wide = 1 + len(shift)
            r: Any = found.get(label, np.zeros((wide, wide)))
            step = max(LEAST_BLOCK, 4 * wide)
            for i in range(0, len(part.x), step):
                piece = part.taken(slice(i, i + step))
                new = np.ones((len(piece.x), wide))
                new[:, 1 : 1 + p], new[:, 1 + p :] = piece.x - shift[:p], piece.y - shift[p:]
                if piece.weight is not None:
                    new *= np.sqrt(piece.weight)[:, None]
                r = np.linalg.qr(np.vstack([r, new]), mode="r")
            found[label] = r
    return [r for r in found.values() if r[0, 0] != 0], shift


def kept_scores(
    triangles: list[Floats], shift: Floats, counts: list[int], alpha: float, intercept: bool
) -> tuple[Floats, Steps]:  # fmt: skip
    """As ``elimination.kept_scores``; and the elimination on all rows, with its models.

    Args:
        counts: how many columns are left before the first step, after it, and so on.
    """
    scores = np.empty((len(triangles), len(counts)))
    for k, own in enumerate(triangles):
        others: Any = np.linalg.qr(np.vstack([r for i, r in enumerate(triangles) if i != k]), mode="r")
        steps, _ = _eliminated(others, shift, counts, alpha, intercept)
        scores[k] = _r2(own, steps, shift, counts[0], intercept)
    whole: Any = np.linalg.qr(np.vstack(triangles), mode="r")
    steps, bound = _eliminated(whole, shift, counts, alpha, intercept)
    if bound > FEW_DIGITS:
        told = "columns of X depend on each other" if bound == np.inf else f"figures are off by up to {bound:.0e}"
        warnings.warn(
            f"{told}, so coefficients of nearly one size may change places, and with them the ranking. Drop columns "
            "that are sums of others.",
            FewDigits, stacklevel=4,
        )  # fmt: skip
    return scores, steps


def _eliminated(
    r: Floats, shift: Floats, counts: list[int], alpha: float, intercept: bool
) -> tuple[Steps, float]:  # fmt: skip
    """Drop the least columns step by step; and a bound of the first model's error."""
    first, p = r[0] / r[0, 0], counts[0]
    top, right, away = r[1 : 1 + p, 1 : 1 + p], r[1 : 1 + p, 1 + p :], np.abs(r[0, 1 : 1 + p])
    if not intercept:  # of [X | Y] themselves
        moved = r[:, 1:] + np.outer(r[:, 0], shift)
        again: Any = np.linalg.qr(moved, mode="r")
        top, right, away = again[:p, :p], again[:p, p:], np.zeros(p)
    rest = float(np.linalg.norm(r[1 + p :, 1 + p :]))
    if alpha:
        right = np.vstack([right, np.zeros_like(right)])
        stacked: Any = np.linalg.qr(np.hstack([np.vstack([top, np.sqrt(alpha) * np.eye(p)]), right]), mode="r")
        top, right = stacked[:p, :p], stacked[:p, p:]
    scale = lengths(top)
    scale[scale <= FLAT * away] = 0.0
    left, order, models = np.arange(p), list[int](), list[tuple[Array, Floats]]()
    held = _Held(top, right, scale)
    bound = held.bound(rest)
    for fewer in [*counts[1:], 0]:
        used = scale[left] > 0
        coef = np.zeros((len(left), right.shape[1]))
        coef[used] = held.solve()
        models.append((left.copy(), coef))
        out = np.argsort(np.sum(coef**2, axis=1), kind="stable")[: len(left) - fewer]
        order += left[out].tolist()
        if fewer:
            held.drop([int(used[:at].sum()) for at in out if used[at]])
        left = np.delete(left, out)
    found = Elimination.of(order, counts, models)
    means = first[1:] if intercept else np.zeros(len(shift))
    intercepts = np.array([means[p:] - means[:p][kept] @ coef for kept, coef in found.coefs])
    return Steps(found, intercepts), bound


class _Held:
    """A triangle whose columns leave one by one; minimum norm in scaled columns while they depend on each other."""

    def __init__(self, top: Floats, right: Floats, scale: Floats) -> None:
        self.linalg = need("scipy.linalg", "elimination")
        used = scale > 0
        self.scale = scale[used]
        self.q, self.r = np.linalg.qr(top[:, used] / self.scale, mode="complete")
        self.right = right
        self._look()

    def _look(self) -> None:
        """The condition, and whether columns depend on each other: then the triangle is solved by singular values."""
        n = self.r.shape[1]
        self.parts = np.linalg.svd(self.r[:n], full_matrices=False)
        values = self.parts[1]
        self.kept = values > EPS * max(n, 10) * values.max(initial=0.0)
        self.deficient = not self.kept.all()

    def bound(self, rest: float) -> float:
        """Of the error of all columns' coefficients. Args: rest: the length of the errors."""
        n, values = self.r.shape[1], self.parts[1]
        if self.deficient or not n:
            return np.inf if n else 0.0
        size = float(np.linalg.norm(self.solve() * self.scale[:, None])) * float(values[0])
        return bound_of(n, float(values[0] / values[-1]), rest / max(size, 1e-300))

    def solve(self) -> Floats:
        """(columns left, q)."""
        n = self.r.shape[1]
        image = (self.q.T @ self.right)[:n]
        if self.deficient:
            left, values, back = self.parts
            found = back[self.kept].T @ ((left[:, self.kept].T @ image) / values[self.kept, None])
        else:
            found = self.linalg.solve_triangular(self.r[:n], image, check_finite=False) if n else image
        answer: Floats = found / self.scale[:, None]
        return answer

    def drop(self, columns: list[int]) -> None:
        """Take some of the columns out."""
        for at in sorted(columns, reverse=True):
            if self.r.shape[1] == 1:
                self.r = self.r[:, :0]
            else:
                self.q, self.r = self.linalg.qr_delete(self.q, self.r, at, 1, "col", check_finite=False)
        self.scale = np.delete(self.scale, columns)
        if self.deficient and columns:
            self._look()


def _r2(own: Floats, steps: Steps, shift: Floats, p: int, intercept: bool) -> Floats:
    """(steps,) coefficients of determination, mean over targets, on rows known by their triangle."""
    q = len(shift) - p
    around = np.sum(own[1:, 1 + p :] ** 2, axis=0)
    found = np.empty(len(steps.intercepts))
    for i, (kept, coef) in enumerate(steps.elimination.coefs):
        weights = np.zeros((own.shape[1], q))
        weights[1 + kept], weights[1 + p :] = -coef, np.eye(q)
        weights[0] = -steps.intercepts[i] if intercept else shift[p:] - shift[kept] @ coef
        error = np.sum((own @ weights) ** 2, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[i] = np.where(around > 0, 1 - error / around, np.where(error > 0, 0.0, 1.0)).mean()
    return found

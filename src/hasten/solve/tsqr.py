"""A QR decomposition of a stream of rows: the triangle of all rows so far, and one block more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.kernel import Floats, heaviest, shift_of
from hasten.solve.linear import EPS
from hasten.solve.problems import no_rows, no_target
from hasten.solve.source import Source

TINY = 1e-300
LEAST_BLOCK = 2048  # rows; and at least four times the columns, so that carrying the triangle costs little


@dataclass(frozen=True)
class Solution:
    """A solution from the triangle.

    Attributes:
        coef: (p, q).
        condition, rank: of the triangle with its columns scaled to one length; infinite where they are dependent.
        residual, size: norms of the errors and of the fitted values, for the error bound.
        growth: lengths of the columns around the shift over those around the mean, at most: what is rounded is the
            former.
        triangle: (p, p) scaled, with the penalty; scale: (p, 1) lengths of its columns before.
    """

    coef: Floats
    condition: float
    rank: int
    residual: float
    size: float
    growth: float
    triangle: Floats
    scale: Floats

    def correction(self, gradient: Floats) -> Floats:
        """(p, q) solution of the normal equations for a right-hand side, through the triangle; 0 for constant columns,
        which have no length in it."""
        used = self.triangle.any(axis=0)
        scale, found = self.scale[used], np.zeros_like(gradient)
        inner: Any = self.triangle if used.all() else np.linalg.qr(self.triangle[:, used], mode="r")
        found[used] = np.linalg.solve(inner, np.linalg.solve(inner.T, gradient[used] / scale)) / scale
        return found


@dataclass(frozen=True)
class Triangle:
    """R of [1 | X - shift | Y - shift].

    Attributes:
        r: (1 + p + q, 1 + p + q) upper triangular; the first column belongs to the intercept.
        shift: (p + q,).
    """

    r: Floats
    shift: Floats
    p: int
    names: list[str]
    intercept: bool

    def solve(self, alpha: Any = 0.0) -> Solution:
        """The ridge solution; minimum norm in scaled columns where they depend on each other."""
        p = self.p
        head = slice(1, 1 + p)
        top, right = self.r[head, head], self.r[head, 1 + p :]
        used = lengths(top) > 0
        penalty = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (p,))
        if penalty.any():
            stacked = np.vstack([np.hstack([top, right]), np.hstack([np.diag(np.sqrt(penalty)), np.zeros_like(right)])])
            again: Any = np.linalg.qr(stacked, mode="r")
            top, right = again[:p, :p], again[:p, p:]
        scale: Any = lengths(top)
        scale[scale == 0] = 1.0
        u, s, vt = np.linalg.svd(top / scale)
        kept = s > EPS * max(p, 10) * max(s[0] if p else 0.0, 1e-300)
        rank = int(kept.sum())
        deficient = rank < int(used.sum())
        if deficient or not used.all():
            inverse = np.where(kept, 1 / np.where(kept, s, 1.0), 0.0)
            scaled = vt.T @ (inverse[:, None] * (u.T @ right))
        else:
            scaled = np.linalg.solve(top / scale, right)
        coef = np.where(used[:, None], scaled / scale[:, None], 0.0)
        condition = np.inf if deficient else float(s[0] / s[kept][-1]) if rank else 1.0
        rest = float(np.linalg.norm(self.r[1 + p :, 1 + p :]) + np.linalg.norm(top @ coef - right))
        size = float(np.linalg.norm(scaled) * (s[0] if p else 1.0))
        return Solution(coef, condition, rank, rest, size, self._growth(scale, rest, size), top / scale, scale[:, None])

    def _growth(self, scale: Floats, rest: float, size: float) -> float:
        away = np.abs(self.r[0, 1:]) / np.append(scale, np.full(self.r.shape[1] - 1 - self.p, max(rest, size, TINY)))
        return float(np.sqrt(1 + np.max(away, initial=0.0, where=away < np.inf) ** 2))

    @property
    def weight(self) -> float:
        """Sum of weights, whose root is the length of the first column; NaN without an intercept."""
        return float(self.r[0, 0] ** 2) if self.intercept else float("nan")

    @property
    def spread(self) -> Floats:
        """(p,) standard deviations of the columns, with an intercept."""
        found: Floats = lengths(self.r[1 : 1 + self.p, 1 : 1 + self.p]) / abs(self.r[0, 0])
        return found

    @property
    def x_mean(self) -> Floats:
        """(p,) means; zeros without an intercept."""
        return self._means[: self.p]

    @property
    def y_mean(self) -> Floats:
        """(q,) means; zeros without an intercept."""
        return self._means[self.p :]

    @property
    def _means(self) -> Floats:
        return self.shift + self.r[0, 1:] / self.r[0, 0] if self.intercept else np.zeros(len(self.shift))

    def intercept_of(self, coef: Floats) -> Floats:
        """(q,) for coefficients (p, q)."""
        q = self.r.shape[1] - 1 - self.p
        if not self.intercept:
            return np.zeros(q)
        first = (self.r[0, 1 + self.p :] - self.r[0, 1 : 1 + self.p] @ coef) / self.r[0, 0]
        found: Floats = first + self.shift[self.p :] - self.shift[: self.p] @ coef
        return found


def lengths(columns: Floats) -> Floats:
    """(columns,) Euclidean lengths, also of columns whose squares are too small for float64."""
    largest = np.abs(columns).max(axis=0, initial=0.0)
    found: Floats = largest * np.linalg.norm(columns / np.where(largest > 0, largest, 1.0), axis=0)
    return found


def decompose(source: Source, intercept: bool = True) -> Triangle:
    """One pass over ``source``.

    Raises:
        BadData: bad values, no rows, or texts.
    """
    from hasten.solve.accuracy import host

    r: Any = None
    shift = np.zeros(0)
    p, names = 0, list[str]()
    for block in source.blocks():
        block = host(block)
        block.check_weight()
        if block.y is None:
            raise no_target()
        if r is None:
            p, names = block.x.shape[1], block.names
            wide = 1 + p + block.y.shape[1]
            r = np.zeros((wide, wide))
            few = heaviest(block.weight, LEAST_BLOCK)
            shift = np.zeros(wide - 1)
            if intercept and len(block.x[few]):
                shift = shift_of(block.x[few], block.y[few], None if block.weight is None else block.weight[few])
        step = max(LEAST_BLOCK, 4 * len(r))
        for i in range(0, len(block.x), step):
            piece = block.taken(slice(i, i + step))
            rows = np.empty((len(r) + len(piece.x), len(r)))
            rows[: len(r)] = r
            new = rows[len(r) :]
            new[:, 0] = 1.0 if intercept else 0.0
            new[:, 1 : 1 + p] = piece.x - shift[:p]
            new[:, 1 + p :] = piece.y - shift[p:]
            if piece.weight is not None:
                new *= np.sqrt(piece.weight)[:, None]
            if not np.isfinite(new.sum()):
                piece.raise_where(names, piece.targets)
            r = np.linalg.qr(rows, mode="r")
    if r is None or (intercept and r[0, 0] == 0):
        raise no_rows()
    return Triangle(r, shift, p, names, intercept)

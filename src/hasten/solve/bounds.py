"""First-order bounds of what rounding does to coefficients, relative to their size in columns of one length."""

from __future__ import annotations

import numpy as np

from hasten.solve.kernel import Floats
from hasten.solve.linear import EPS, Factor, Normal
from hasten.solve.moments import Moments


def bound_of(p: int, condition: float, tangent: float) -> float:
    """First-order error of a backward stable method: EPS p cond (2 + (cond + 1) tangent)."""
    if condition == np.inf:
        return condition
    return EPS * max(p, 10) * condition * (2 + (condition + 1) * tangent)


def tangent_of(normal: Normal, factor: Factor, coef: Floats) -> float:
    """|r| / (|A| |x|), of the target of which it is largest."""
    lengths = np.linalg.norm(coef * factor.scale[:, None], axis=0) * np.sqrt(max(factor.values[-1], 0.0))
    return float(np.max(np.sqrt(normal.residual(coef)) / np.maximum(lengths, 1e-300), initial=0.0))


def fit_bound(normal: Normal, factor: Factor, coef: Floats) -> float:
    """Of a backward stable method, for these equations and their solution."""
    if not factor.rank:
        return 0.0  # of constants, whose coefficients are 0
    return bound_of(len(coef), factor.condition, tangent_of(normal, factor, coef))


def gram_bound(normal: Normal, factor: Factor, coef: Floats, unit: float = EPS) -> float:
    """Of normal equations that are not refined: the square of the condition on top. Args: unit: of rounding."""
    own = unit * max(len(coef), 10) * factor.condition**2 if factor.rank or factor.deficient else 0.0
    return fit_bound(normal, factor, coef) + own


def shift_growth(m: Moments, normal: Normal, factor: Factor) -> float:
    """By how much that grows as sums of squares are rounded by their size around the shift, not around the mean."""
    squares = np.append(factor.scale[: len(m.encoder.numeric)] ** 2, np.diagonal(normal.yy))
    return 1 + float(np.max(m.shifted / np.maximum(squares, 1e-300), initial=0.0, where=squares > 0))

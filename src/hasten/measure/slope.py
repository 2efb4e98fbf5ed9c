"""A robust slope with its interval."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np

from hasten.core.interval import Interval

MOST_POINTS = 300  # pairs grow with the square; more points are binned by their median first
LEAST_BLOCKS = 6  # of consecutive values, whose means are compared
TINY = 1e-9  # of the values: rounding


def binned(values: Sequence[float], bins: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Positions and medians of at most ``bins`` consecutive bins of ``values``."""
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    if n <= bins:
        return np.arange(n, dtype=np.float64), array
    edges = np.linspace(0, n, bins + 1).astype(int)
    spans = list(itertools.pairwise(edges))
    return (
        np.array([(a + b - 1) / 2 for a, b in spans]),
        np.array([np.median(array[a:b]) for a, b in spans]),
    )


def theil_sen(values: Sequence[float], unit: str = "s", level: float = 0.95) -> Interval:
    """Median of all pairwise slopes per position, with Sen's interval.

    Source: Sen, P. K. (1968), Estimates of the regression coefficient based on Kendall's tau, JASA 63.
    Long series are binned by medians first. Neighbours that are alike (a load that comes and goes) say less than as
    many independent ones, and the interval is as much wider (see :func:`inflation`).
    """
    x, y = binned(values)
    n = len(x)
    if n < 3:
        return Interval(math.nan, math.nan, math.nan, unit, level, n)
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))
    value = float(np.median(slopes))
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    reach = z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18 * inflation(y - value * x)) / 2
    m = len(slopes)
    low = slopes[max(0, math.floor(m / 2 - reach))]
    high = slopes[min(m - 1, math.ceil(m / 2 + reach))]
    return Interval(value, float(low), float(high), unit, level, len(values))


def inflation(noise: np.ndarray) -> float:
    """By how much the variance of a mean of consecutive values is larger than that of independent ones, at least 1: the
    most that blocks of 2, 4, ... values show. Outliers are drawn in first."""
    centred = noise - np.median(noise)
    reach = 3 * float(np.median(np.abs(centred)))
    if reach <= TINY * float(np.abs(noise).max(initial=0.0)):
        return 1.0
    drawn = np.clip(centred, -reach, reach)
    most, size = 1.0, 2
    while len(drawn) >= LEAST_BLOCKS * size:
        blocks = drawn[: len(drawn) // size * size].reshape(-1, size).mean(1)
        most = max(most, float(size * blocks.var(ddof=2) / drawn.var()))
        size *= 2
    return most

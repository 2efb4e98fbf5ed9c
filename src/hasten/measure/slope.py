"""A robust slope with its interval."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np

from hasten.core.interval import Interval

MOST_POINTS = 300  # pairs grow with the square; more points are binned by their median first


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
    Long series are binned by medians first.
    """
    x, y = binned(values)
    n = len(x)
    if n < 3:
        return Interval(math.nan, math.nan, math.nan, unit, level, n)
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    reach = z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18) / 2
    m = len(slopes)
    low = slopes[max(0, math.floor(m / 2 - reach))]
    high = slopes[min(m - 1, math.ceil(m / 2 + reach))]
    return Interval(float(np.median(slopes)), float(low), float(high), unit, level, len(values))

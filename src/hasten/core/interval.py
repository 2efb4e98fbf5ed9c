"""A number and how well it is known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval.

    Attributes:
        value: the estimate, in ``unit``.
        low, high: the interval's ends, in ``unit``; ``low <= value <= high``.
        unit: ``"s"``, ``"B"``, ``"ratio"``, ``"1"`` … Seconds and bytes inside; only reports convert.
        level: coverage of the interval.
        n: how many independent measurements stand behind it.
    """

    value: float
    low: float
    high: float
    unit: str = "s"
    level: float = 0.95
    n: int = 0

    def __post_init__(self) -> None:
        if not (self.low <= self.value <= self.high or math.isnan(self.value)):
            raise ValueError(f"an interval needs low <= value <= high, got {self.low}, {self.value}, {self.high}")

    @property
    def inverse(self) -> Interval:
        """Of the reciprocal; all values must be positive."""
        return replace(self, value=1 / self.value, low=1 / self.high, high=1 / self.low)

    @classmethod
    def exact(cls, value: float, unit: str = "s") -> Interval:
        """A number known without error (a count, a constant)."""
        return cls(value, value, value, unit, 1.0, 1)

    @classmethod
    def of_mean(cls, samples: Sequence[float], unit: str = "s", level: float = 0.95, batches: int = 20) -> Interval:
        """Mean with an interval from means of consecutive batches.

        Steps of one run are not independent (neighbours share the machine's mood), so the interval comes from the
        spread of up to ``batches`` consecutive batch means (method of batch means; Law, Simulation Modeling and
        Analysis, ch. 9).
        """
        n = len(samples)
        if n == 0:
            return cls(math.nan, math.nan, math.nan, unit, level, 0)
        mean = math.fsum(samples) / n
        k = min(batches, n)
        if k < 3:
            return cls(mean, min(*samples, mean), max(*samples, mean), unit, level, n)
        means = [math.fsum(samples[i * n // k : (i + 1) * n // k]) / ((i + 1) * n // k - i * n // k) for i in range(k)]
        half = student_t(k - 1, level) * statistics.stdev(means) / math.sqrt(k)
        return cls(mean, mean - half, mean + half, unit, level, n)

    @classmethod
    def of_median(cls, samples: Sequence[float], unit: str = "s", level: float = 0.95) -> Interval:
        """Median with its distribution-free interval from order statistics."""
        n = len(samples)
        if n == 0:
            return cls(math.nan, math.nan, math.nan, unit, level, 0)
        ordered = sorted(samples)
        z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
        reach = z * math.sqrt(n) / 2
        low = max(0, math.floor(n / 2 - reach))
        high = min(n - 1, math.ceil(n / 2 + reach) - 1) if n > 1 else 0
        mid = statistics.median(ordered)
        return cls(mid, min(ordered[low], mid), max(ordered[max(high, low)], mid), unit, level, n)

    @property
    def known(self) -> bool:
        """False where nothing was measured (reports show ``–``)."""
        return not math.isnan(self.value)

    def excludes(self, x: float) -> bool:
        """True when ``x`` lies outside the interval."""
        return x < self.low or x > self.high

    def scaled(self, factor: float, unit: str | None = None) -> Interval:
        """The interval of ``factor`` (> 0) times the value."""
        return Interval(
            self.value * factor, self.low * factor, self.high * factor, unit or self.unit, self.level, self.n
        )


def student_t(dof: int, level: float) -> float:
    """Two-sided quantile of Student's t (Hill 1970, CACM algorithm 396; error below 1e-3 for dof >= 2)."""
    p = 1 - level
    if dof == 1:
        return 1 / math.tan(p * math.pi / 2)
    if dof == 2:
        return math.sqrt(2 / (p * (2 - p)) - 2)
    a = 1 / (dof - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * dof
    y = (d * p) ** (2 / dof)
    if y > 0.05 + a:
        x = statistics.NormalDist().inv_cdf(p / 2)
        y = x**2
        if dof < 5:
            c += 0.3 * (dof - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = a * y**2
        y = math.expm1(y)
    else:
        y = ((1 / (((dof + 6) / (dof * y) - 0.089 * d - 0.822) * (dof + 2) * 3) + 0.5 / (dof + 4)) * y - 1) * (
            dof + 1
        ) / (dof + 2) + 1 / y
    return math.sqrt(dof * y)

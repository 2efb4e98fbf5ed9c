"""Paired, randomised, sequential comparison of two ways to run a step.

Within each pair a coin decides which way goes first. If both ways take the same time, the sign of a pair's log-ratio
is that coin, whatever the machine does meanwhile, so the signed-rank test is exact under any noise, busy or quiet,
independent or not. Looks at the growing data share one error budget (Bonferroni), so looking often cannot manufacture
a difference. The largest share is spent where it saves most: on the first look, which ten wins out of ten pass.
"""

from __future__ import annotations

import functools
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import numpy as np

from hasten.core.interval import Interval

LOOKS = (10, 13, 17, 24, 34, 48, 68, 96, 136, 192, 272)  # pairs after which the test is looked at
ALL_WON = 2.0 ** -LOOKS[0]  # probability that equal ways win the first look's pairs all
FASTER_AT_LOOK, SLOWER_AT_LOOK = 1.25e-4, 4e-5  # … and that they pass for faster, or slower, at a later one
FALSE_CLAIMS = ALL_WON + (len(LOOKS) - 1) * (FASTER_AT_LOOK + SLOWER_AT_LOOK)  # of a trial: half of what is promised
CHILDREN_DIFFER = 0.01  # two copies of a process may differ by this: their memory lies elsewhere
EQUAL = 0.01  # an interval within ±1 % says "no difference"
TURNS_LOOKS = (5, *LOOKS[2:])  # of either of the two trials that children in turns need, which must agree …
TURNS_LOOKS_LONG = (4, 12, 17)  # … where steps are long and few pairs must do …
TURNS_AT_LOOK = 1e-3  # … so that each may err more often
FALSE_CLAIMS_IN_TURNS = max(
    (2.0 ** -looks[0] + 2 * (len(looks) - 1) * TURNS_AT_LOOK) ** 2 for looks in (TURNS_LOOKS, TURNS_LOOKS_LONG)
)
HOPELESS = 24  # pairs from which on a trial is given up that its time will not bring to a claim (none is made by that)
FUTILE = (6, 9)  # pairs after which a trial without any sign of a gain is given up (no claim is made by that)
REPORT_LEVEL = 0.99
FEWEST, MOST_PAIRED = 6, 96  # pairs of steps from which is told what they take without a part of them
WITHOUT_LEVEL = 0.9  # of what is told of that: predictions are made at it
LEAST_REST = 0.01  # of a step that is left without a part of it


class Outcome(StrEnum):
    FASTER = "faster"
    SLOWER = "slower"
    SAME = "no difference"
    NO_GAIN = "no gain"
    OPEN = "cannot tell"


@functools.cache
def _rank_counts(n: int) -> tuple[int, ...]:
    """Number of sign patterns of 1..n with each positive-rank sum."""
    counts = [1]
    for rank in range(1, n + 1):
        longer = counts + [0] * rank
        for total, count in enumerate(counts):
            longer[total + rank] += count
        counts = longer
    return tuple(counts)


@functools.cache
def _critical_rank(n: int, alpha: float) -> int:
    """Largest k with P(W <= k) <= alpha / 2 under the null; -1 if there is none (Wilcoxon signed-rank)."""
    if n > 60:
        mean, sd = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(mean + statistics.NormalDist().inv_cdf(alpha / 2) * sd - 0.5)
    counts = _rank_counts(n)
    limit, total = alpha / 2 * 2**n, 0
    for k, count in enumerate(counts):
        total += count
        if total > limit:
            return k - 1
    return len(counts) - 1


def hodges_lehmann(log_ratios: list[float], level: float) -> tuple[float, float, float]:
    """Estimate and interval of a symmetric centre: median and order statistics of the Walsh averages.

    Source: Hodges & Lehmann (1963); Hollander & Wolfe, Nonparametric Statistical Methods, ch. 3. The interval is
    infinite where ``n`` is too small for the level.
    """
    x = np.asarray(log_ratios, dtype=np.float64)
    n = len(x)
    i, j = np.triu_indices(n)
    walsh = np.sort((x[i] + x[j]) / 2)
    k = _critical_rank(n, 1 - level)
    centre = float(np.median(walsh))
    if k < 0:
        return centre, -math.inf, math.inf
    return centre, float(walsh[k]), float(walsh[len(walsh) - 1 - k])


def without(steps: Sequence[tuple[float, float]]) -> Interval | None:
    """Speed-up of a step when a part of it vanishes, as a trial would tell it: from pairs of neighbouring steps, one as
    it is and one without its part, by turns. None of fewer than :data:`FEWEST` pairs.

    Args:
        steps: of each the time, and that of the part, in the order in which they were taken.
    """
    last = steps[-2 * MOST_PAIRED :]
    logs = []
    for number, (a, b) in enumerate(zip(last[::2], last[1::2], strict=False)):
        whole, lighter = (a, b) if number % 2 == 0 else (b, a)
        logs.append(math.log(max(whole[0], 1e-12) / max(lighter[0] - lighter[1], LEAST_REST * lighter[0], 1e-12)))
    if len(logs) < FEWEST:
        return None
    centre, low, high = hodges_lehmann(logs, WITHOUT_LEVEL)
    low, high = max(low, min(logs)), min(high, max(logs))
    return Interval(math.exp(centre), math.exp(low), math.exp(high), "ratio", WITHOUT_LEVEL, len(logs))


@dataclass
class Pairs:
    """Log-ratios without/with of one trial, and what may be said of them so far.

    Attributes:
        wall, cpu: log(time without / time with) per pair; above 0 the remedy is faster.
        margin: how much (1 is 100 %) a claimed difference must exceed: 0 where a coin decides all that two ways do not
            share, more where they also differ in something that no coin decides, as two processes do.
        hoped: the largest speed-up that is expected.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    looks: tuple[int, ...] = LOOKS
    margin: float = 0.0
    hoped: float = math.inf
    least: ClassVar[int] = 6  # pairs below which no ratio is told
    faster_at_look: ClassVar[float] = FASTER_AT_LOOK
    slower_at_look: ClassVar[float] = SLOWER_AT_LOOK
    mean_without: float = 0.0  # wall seconds
    _looked: int = 0
    outcome: Outcome = Outcome.OPEN

    def add(self, without: float, with_: float, cpu_without: float = 0.0, cpu_with: float = 0.0) -> None:
        """One pair of times (seconds, both > 0)."""
        self.wall.append(math.log(without / with_))
        self.mean_without += (without - self.mean_without) / len(self.wall)
        if cpu_without > 0 and cpu_with > 0:
            self.cpu.append(math.log(cpu_without / cpu_with))

    def look(self) -> Outcome:
        """Look if a look is due; every outcome but OPEN is final."""
        if self.outcome is Outcome.OPEN and len(self.wall) in FUTILE and max(self.wall) < 0:
            self.outcome = Outcome.NO_GAIN
        while self.outcome is Outcome.OPEN and self._looked < len(self.looks):
            if len(self.wall) < self.looks[self._looked]:
                break
            self._looked += 1
            self.outcome = self._test(self.wall[: self.looks[self._looked - 1]])
        return self.outcome

    def _test(self, logs: list[float]) -> Outcome:
        margin = math.log1p(self.margin)
        if self._looked == 1 and len(self.looks) > 1:
            if min(logs) > margin:
                return Outcome.FASTER
        elif hodges_lehmann(logs, 1 - 2 * self.faster_at_look)[1] > margin:
            return Outcome.FASTER
        elif hodges_lehmann(logs, 1 - 2 * self.slower_at_look)[2] < -margin:
            return Outcome.SLOWER
        _, low, high = hodges_lehmann(logs, REPORT_LEVEL)
        if low > math.log(1 - EQUAL) and high < math.log(1 + EQUAL):
            return Outcome.SAME
        if high < math.log(1 + EQUAL):
            return Outcome.NO_GAIN
        return Outcome.OPEN

    @property
    def exhausted(self) -> bool:
        """True when no further look is planned."""
        return self.outcome is not Outcome.OPEN or self._looked >= len(self.looks)

    def hopeless(self, spent: float) -> bool:
        """Whether noise as large as so far leaves no room for a claim in the time that is left.

        An interval shrinks with the root of the number of pairs. Asked right after a look; at other times the answer
        is no. Where the pairs promise more than was hoped for, that counts.

        Args:
            spent: part of the trial's time that is over.
        """
        n = len(self.wall)
        if self.exhausted or n < HOPELESS or n != self.looks[self._looked - 1]:
            return False
        centre, low, _ = hodges_lehmann(self.wall, 1 - 2 * self.faster_at_look)
        times = max(1.0, min(self.looks[-1] / n, 1 / max(spent, 1e-9)))
        return max(centre, math.log(self.hoped)) - (centre - low) / math.sqrt(times) < math.log1p(self.margin)

    def ratio(self, level: float = REPORT_LEVEL) -> Interval | None:
        """Speed-up with its interval; None without pairs."""
        return _ratio(self.wall, level)

    def cpu_ratio(self, level: float = REPORT_LEVEL) -> Interval | None:
        """The same in CPU time."""
        return _ratio(self.cpu, level)


@dataclass
class TurnPairs(Pairs):
    """Pairs of two children that take turns; a claim needs two such trials, each with children of its own.

    Attributes:
        faults: minor page faults of a step without, one mean a pair.
    """

    faults: list[float] = field(default_factory=list)
    looks: tuple[int, ...] = TURNS_LOOKS
    margin: float = CHILDREN_DIFFER
    faster_at_look: ClassVar[float] = TURNS_AT_LOOK
    slower_at_look: ClassVar[float] = TURNS_AT_LOOK


def _ratio(logs: list[float], level: float) -> Interval | None:
    if not logs:
        return None
    level = min(level, 1 - 2.0 ** (1 - len(logs)) - 1e-9)  # few pairs cannot carry a higher one
    centre, low, high = hodges_lehmann(logs, level)
    low, high = max(low, math.log(1e-3)), min(high, math.log(1e3))
    return Interval(
        math.exp(centre), math.exp(min(low, centre)), math.exp(max(high, centre)), "ratio", level, len(logs)
    )


def coin_flips() -> Iterator[bool]:
    """An endless fair coin that leaves the user's random states alone."""
    source = random.SystemRandom()
    while True:
        yield bool(source.getrandbits(1))

"""Remedies with a start of their own (compiling), and when a job is long enough to begin with them.

A job of known length is asked whether its rest repays the start. One of unknown length may end at any time, so it
waits: it is expected to go on for as long as it has gone on already, and what it has gained by the other remedies must
pay for the start if it does not. A speed-up that is not known, of a plan that was written by hand, is taken for as
large as can be.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator

from hasten.core.interval import Interval
from hasten.core.plan import Step
from hasten.core.remedy import Remedy
from hasten.seams.watch import Watch

FIRST, LEAST_USUAL = 3, 8  # steps after a start that may be longer, and others that they are compared with
IMPORT_SECONDS = 2.0  # of torch, on the machines where starts were measured, when these were quiet
LEAST_SPEED = 0.98  # of the script as it is, below which a job of unknown length must not fall, whenever it ends


def repaid(start_seconds: float, ratio: Interval | None, seconds: float) -> bool:
    """Whether a remedy's start costs no more than it gains in a job that takes ``seconds`` with it on; where its
    speed-up is not known they are those without it, all of which it may gain."""
    return seconds * (ratio.value - 1 if ratio is not None else 1) >= start_seconds


def slowness(watch: Watch) -> float:
    """How many times as long a start takes here and now as where it was measured: about as importing torch did."""
    return max(1.0, (watch.torch_imported - watch.torch_started) / 1e9 / IMPORT_SECONDS)


def due(start_seconds: float, ratio: Interval | None, gained: float = math.inf) -> float:
    """Seconds after which a job of unknown length begins with a remedy.

    Args:
        gained: speed-up so far by other remedies; what it has saved is the stake. Infinite where nothing is at stake.
    """
    if ratio is not None and ratio.value <= 1:
        return math.inf
    expected = start_seconds * (ratio.value / (ratio.value - 1) if ratio is not None else 1)
    return max(expected, start_seconds * LEAST_SPEED / (gained - LEAST_SPEED))


def gain(steps: Iterable[tuple[Step, Remedy]]) -> float:
    """The speed-up by remedies from the first pass over the data on, as far as their trials make it sure."""
    lows = [s.ratio.low for s, r in steps if s.ratio is not None and not r.later_passes]
    return math.prod(low for low in lows if low > 1)


def told(start_seconds: float, after: float) -> str:
    """When a remedy starts in a job of unknown length, and why."""
    if after == math.inf:
        return "does not start in a job of unknown length: what it gains does not repay its start"
    why = "a job of unknown length is expected to repay its start of"
    return f"starts after {after:.0f} s of training: {why} {start_seconds:.0f} s from then on"


def starts(steps: list[tuple[Step, Remedy]], slow: float) -> Iterator[str]:
    """When each remedy of a plan that has a start begins in a replay of unknown length.

    Args:
        slow: :func:`slowness` of this machine now.
    """
    gained = gain((s, r) for s, r in steps if not r.start_seconds)
    for step, remedy in steps:
        if start := slow * remedy.start_seconds:
            yield f"{remedy} {told(start, due(start, step.ratio, gained))}"


class Beginning:
    """What a start takes that has just begun: until it was made, and by how much the first steps are longer."""

    def __init__(self, watch: Watch, seconds: float) -> None:
        self.watch = watch
        self.at = watch.steps
        self.seconds = seconds

    def taken(self) -> float | None:
        """Seconds; None as long as too few steps were made since."""
        fold = self.watch.fold
        walls = [wall * fold for wall in self.watch.walls(self.at // fold)]
        if len(walls) < FIRST + LEAST_USUAL:
            return None
        usual = statistics.median(walls[FIRST:])
        return self.seconds + sum(max(0.0, wall - usual) for wall in walls[:FIRST])


class Waiting:
    """Remedies that start in this process once it has trained for long enough; looked at between two steps."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._waiting: list[tuple[float, Step]] = []

    def add(self, after: float, step: Step) -> None:
        if after < math.inf:
            self._waiting.append((after, step))

    def ready(self) -> tuple[Step, ...]:
        """Those whose time has come; they wait no longer."""
        passed = self.passed
        out = tuple(step for after, step in self._waiting if after <= passed)
        self._waiting = [(after, step) for after, step in self._waiting if after > passed]
        return out

    def call_again(self) -> None:
        """Have the agent called when the next one's time has come."""
        if not self._waiting or not self.watch.steps:
            return
        passed = self.passed
        left = min(after for after, _ in self._waiting) - passed
        steps = math.ceil(left / max(passed / self.watch.steps, 1e-9))
        self.watch.next_call = min(self.watch.next_call, self.watch.steps + max(1, steps))

    @property
    def passed(self) -> float:
        """Seconds since training began, trials included."""
        return (self.watch.clock.now() - (self.watch.first_fetch or self.watch.first_step)) / 1e9

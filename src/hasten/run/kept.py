"""What was kept, and whether it is worth its start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hasten.core.interval import Interval
from hasten.core.plan import Step
from hasten.core.remedy import Remedy
from hasten.run.trial import Measured


@dataclass
class Kept:
    """A remedy that won, with its evidence.

    Attributes:
        alone: whether nothing else was on when it was measured.
    """

    remedy: Remedy
    rule: str
    measured: Measured
    proof: str
    alone: bool = False

    def step(self) -> Step:
        r = self.remedy
        return Step(r.name, r.settings(), r.fidelity.value, self.rule, self.measured.ratio, self.proof)


def postponed(kept: list[Kept], seconds: float) -> list[Kept]:
    """Those of ``kept`` whose start costs more than they would still gain.

    Args:
        seconds: what the rest of this job takes with everything on; infinite where unknown.
    """
    return [k for k in kept if not repaid(k.remedy.start_seconds, k.measured.ratio, seconds)]


def repaid(start_seconds: float, ratio: Interval | None, seconds: float) -> bool:
    """Whether a remedy's start costs no more than it gains in a job that takes ``seconds`` with it on; where its
    speed-up is not known it does."""
    return ratio is None or seconds * (ratio.value - 1) >= start_seconds


def payback(cost: float, overall: Interval | None) -> float:
    """Training seconds (with the plan on) after which the trials' cost is repaid."""
    if overall is None or not overall.value > 1:
        return math.inf
    return cost / (overall.value - 1)


def remedies_of(steps: tuple[Step, ...], types: dict[str, Any]) -> list[Remedy]:
    """The remedies of a plan, in order."""
    return [types[s.remedy](**s.settings) for s in steps]

"""What was kept, and whether it is worth its start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hasten.core.interval import Interval
from hasten.core.plan import Step
from hasten.core.remedy import Remedy
from hasten.run.room import Measured


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


def payback(cost: float, overall: Interval | None) -> float:
    """Training seconds (with the plan on) after which the trials' cost is repaid."""
    if overall is None or not overall.value > 1:
        return math.inf
    return cost / (overall.value - 1)


def remedies_of(steps: tuple[Step, ...], types: dict[str, Any]) -> list[Remedy]:
    """The remedies of a plan, in order."""
    return [types[s.remedy](**s.settings) for s in steps]

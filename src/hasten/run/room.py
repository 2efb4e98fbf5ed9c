"""Where trials run, and what one finds: forked children (:mod:`hasten.run.trial`) or processes begun anew
(:mod:`hasten.run.processes`)."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

from hasten.core.interval import Interval
from hasten.core.remedy import Remedy
from hasten.measure.interleave import Outcome, Pairs, TurnPairs
from hasten.run import stepwise

Found = TypeVar("Found", bound=Pairs)


@dataclass
class Measured:
    """What a trial found.

    Attributes:
        share: of a step, what was timed; ratios are those of the whole step.
    """

    pairs: Pairs
    method: str
    seconds: float
    why: str = ""
    share: float = 1.0

    @property
    def outcome(self) -> Outcome:
        return self.pairs.outcome

    @property
    def ratio(self) -> Interval | None:
        return self._of_step(self.pairs.ratio()) if len(self.pairs.wall) >= self.pairs.least else None

    @property
    def cpu_ratio(self) -> Interval | None:
        return self._of_step(self.pairs.cpu_ratio()) if len(self.pairs.cpu) >= self.pairs.least else None

    @property
    def faults(self) -> float:
        """Minor page faults of a step without, the median; NaN where they were not counted."""
        counted = self.pairs.faults if isinstance(self.pairs, TurnPairs) else []
        return statistics.median(counted) if counted else math.nan

    def _of_step(self, ratio: Interval | None) -> Interval | None:
        if ratio is None or self.share >= 1:
            return ratio
        value, low, high = (1 / (1 - self.share + self.share / r) for r in (ratio.value, ratio.low, ratio.high))
        return dataclasses.replace(ratio, value=value, low=low, high=high)


@dataclass(frozen=True)
class Asked:
    """One comparison: steps with ``with_`` against steps with ``without``, for at most ``seconds``."""

    without: list[Remedy]
    with_: list[Remedy]
    seconds: float
    hoped: float
    before: Pairs | None

    @property
    def ways(self) -> tuple[list[Remedy], list[Remedy], list[Remedy]]:
        """What is on all the time, what is on without only, what is on with only."""
        return stepwise.split(self.without, self.with_)

    def so_far(self, new: Found) -> Found:
        """The pairs of this comparison so far, or else ``new``."""
        pairs = self.before if isinstance(self.before, type(new)) else new
        pairs.hoped = self.hoped
        return pairs


class Room(ABC):
    """Compares steps of the script with remedies and without."""

    def compare(
        self,
        without: list[Remedy],
        with_: list[Remedy],
        seconds: float,
        hoped: float = math.inf,
        before: Pairs | None = None,
    ) -> Measured:
        """Steps with ``with_`` against steps with ``without``, for at most ``seconds``.

        Args:
            hoped: the largest speed-up that is expected; a trial that cannot tell so much is ended early.
            before: pairs of the same comparison so far, which is gone on with: all looks share one error.
        """
        start = time.monotonic()
        measured = self._measured(Asked(without, with_, seconds, hoped, before))
        return dataclasses.replace(measured, seconds=time.monotonic() - start)

    @abstractmethod
    def _measured(self, asked: Asked) -> Measured:
        """The comparison; its seconds are taken by :meth:`compare`."""

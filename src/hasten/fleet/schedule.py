"""Which model comes next. No barrier: a worker takes the next job the moment it has finished one."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from hasten.fleet.recipe import Recipe
from hasten.fleet.tasks import Job


@dataclass
class Pace:
    """What models of one kind have cost so far."""

    seconds: float = 0.0
    steps: int = 0  # taken
    planned: int = 0  # would have been taken without early stopping

    def expected(self, steps: int, other: float) -> float:
        """Seconds that ``steps`` planned steps will take; ``other`` per step where nothing was measured."""
        return steps * (self.seconds / self.planned if self.planned else other)


class Queue:
    """Jobs, longest first, estimated anew from what was measured.

    Within one kind (one module, one batch size) the order by rows does not change; which kind comes next depends on
    what its steps have cost, early stops included. Longest first keeps the end of a run short (Graham 1969: at most
    4/3 of the best possible).

    Args:
        kinds: the kind of each job.
        shortest: short ones first, so that many keys are done early; the end is then longer.
    """

    def __init__(self, jobs: Sequence[Job], kinds: Sequence[Hashable], recipe: Recipe, shortest: bool = False) -> None:
        self.recipe, self.shortest = recipe, shortest
        self.lanes: dict[Hashable, list[Job]] = {}
        self.paces: dict[Hashable, Pace] = {}
        self.first: set[int] = set()
        self.kind_of = {job.index: kind for job, kind in zip(jobs, kinds, strict=True)}
        for job, kind in zip(jobs, kinds, strict=True):
            self.lanes.setdefault(kind, []).append(job)
            self.paces.setdefault(kind, Pace())
        for lane in self.lanes.values():  # popped from the end
            lane.sort(key=lambda j: (self._steps(j), -j.index), reverse=shortest)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    def before_others(self, indices: set[int]) -> None:
        """Let these jobs (which were in flight when a run was killed) come first, whatever their length."""
        for lane in self.lanes.values():
            lane.sort(key=lambda job: job.index in indices)
        self.first = set(indices)

    def pop(self, kind: Hashable = None) -> Job | None:
        """The next job (of one kind, if given); None when there is none."""
        with self._lock:
            lanes = [k for k, lane in self.lanes.items() if lane and (kind is None or k == kind)]
            if not lanes:
                return None
            begun = [k for k in lanes if self.lanes[k][-1].index in self.first]
            lanes = begun or lanes
            choose = min if self.shortest else max
            return self.lanes[choose(lanes, key=lambda k: self._expected(k, self.lanes[k][-1]))].pop()

    def put_back(self, job: Job) -> None:
        """Let a job that was popped come next again, among those of its kind."""
        with self._lock:
            self.lanes[self.kind_of[job.index]].append(job)

    def coming(self, job: Job, count: int) -> list[Job]:
        """Up to ``count`` jobs of the same kind that come next."""
        with self._lock:
            lane = self.lanes[self.kind_of[job.index]]
            return lane[: -count - 1 : -1] if count > 0 else []

    def done(self, job: Job, steps: int, seconds: float) -> None:
        """Book what a job has cost."""
        with self._lock:
            pace = self.paces[self.kind_of[job.index]]
            pace.seconds += seconds
            pace.steps += steps
            pace.planned += self._steps(job)

    def left(self) -> float:
        """Seconds of work on one core that the waiting jobs will take; NaN while nothing was measured."""
        with self._lock:
            known = [p for p in self.paces.values() if p.planned]
            if not known:
                return float("nan")
            return sum(self._expected(k, job) for k, lane in self.lanes.items() for job in lane)

    def _steps(self, job: Job) -> int:
        return job.steps(self.recipe.batch_size) * self.recipe.epochs

    def _expected(self, kind: Hashable, job: Job) -> float:
        known = [p.seconds / p.planned for p in self.paces.values() if p.planned]
        return self.paces[kind].expected(self._steps(job), sum(known) / len(known) if known else 1.0)


def lower_bound(seconds: Sequence[float], workers: int) -> float:
    """No schedule is shorter than the work spread evenly, nor than the longest job. Seconds."""
    return max(sum(seconds) / workers, max(seconds)) if seconds else 0.0

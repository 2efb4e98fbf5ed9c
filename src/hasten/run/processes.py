"""Trials where the running process must not be forked: the same script again, in throw-away processes.

Each process runs the user's own command from its start with its writes led nowhere, and is gone when it is of no more
use. What can be switched on and off between two steps is tried in one process, step by step, as in a forked child;
what holds from the start of a process, or of a loader's workers, in two processes in turns. Every process is given the
same seeds (:mod:`hasten.seams.thrown`); where a script differs from itself all the same, nothing can be proved and
nothing is kept.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hasten.core.interval import Interval, student_t
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam
from hasten.core.trace import Trace
from hasten.measure.interleave import LOOKS, REPORT_LEVEL, Outcome, Pairs, coin_flips
from hasten.run import stepwise
from hasten.run.fidelity import DRAWS, LEAST_JUDGED, SEEDS, Finding, compare, curves, weights
from hasten.run.room import Asked, Measured, Room
from hasten.run.stepwise import SHORT, SILENT_AT_END, SILENT_SECONDS, TIME_UP
from hasten.seams.child import warm_steps
from hasten.seams.state import Layout
from hasten.seams.thrown import SEED, Command, await_end

METHOD = "throw-away processes, in turns"
STEPWISE = "a throw-away process, step by step"
LEAST_PAIRS, MOST_PAIRS = 4, 10
LEVEL = 1 - 0.004 / (MOST_PAIRS - LEAST_PAIRS + 1)  # every look has its share of the error; the promise is 1 in 200
WARM_STEPS = 6
TIMED_STEPS = 40  # whose median is taken, or …
TIMED_SECONDS, FEWEST_TIMED = 2.0, 10  # … these where steps are long
ENDED = "a process ended before it could be timed"


class Over(Exception):
    """The script took its last step before a process had taken those that were ordered."""


@dataclass
class ProcessPairs(Pairs):
    """Few pairs, each a ratio of two medians: judged once at the end by Student's t on the log-ratios."""

    least: ClassVar[int] = LEAST_PAIRS

    def look(self) -> Outcome:
        if self.outcome is Outcome.OPEN and len(self.wall) >= LEAST_PAIRS:
            ratio = self.ratio(LEVEL)
            if ratio is not None and (ratio.low > 1 or len(self.wall) >= MOST_PAIRS):
                self.outcome = Outcome.FASTER if ratio.low > 1 else Outcome.NO_GAIN
            elif ratio is not None and ratio.high < 1:
                self.outcome = Outcome.SLOWER
            elif max(self.wall) < 0:
                self.outcome = Outcome.NO_GAIN
        return self.outcome

    @property
    def exhausted(self) -> bool:
        return self.outcome is not Outcome.OPEN

    def ratio(self, level: float = REPORT_LEVEL) -> Interval | None:
        return _student(self.wall, level)

    def cpu_ratio(self, level: float = REPORT_LEVEL) -> Interval | None:
        return _student(self.cpu, level)


def _student(logs: list[float], level: float) -> Interval | None:
    if len(logs) < LEAST_PAIRS:
        return None
    mean = statistics.fmean(logs)
    half = student_t(len(logs) - 1, level) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half), "ratio", level, len(logs))


@dataclass
class ProcessRoom(Room):
    """Runs the script's own command again, from where it was started.

    Args:
        command: how the script is begun anew.
        step_seconds: mean duration of a step now.
        workers: whether worker processes feed the training: what they do is settled when they are started.
        expected: steps that the script takes in all, where known.
    """

    command: Command
    step_seconds: float
    workers: bool = False
    expected: int = -1

    def unsuited(self, remedy: Remedy, base: list[Remedy]) -> str:
        """Nothing else can be asked beforehand; a process in which it cannot be applied says so by its result."""
        if self.command.why_not:
            return self.command.why_not
        if remedy.grain is Grain.CALL:
            return "evaluations are repeated in forked copies only"
        compiles = remedy.seam is Seam.LAUNCH and any(r.one_off_seconds for r in base)
        return "every process would compile anew" if compiles else ""

    def _stepwise(self, changed: list[Remedy], common: Sequence[Remedy]) -> bool:
        calls = any(r.grain is Grain.CALL for r in changed)
        return stepwise.switchable(changed, common, self.workers) and not calls

    @property
    def _patience(self) -> float:
        """Seconds that a process may be silent."""
        return SILENT_SECONDS + 40 * self.step_seconds

    @property
    def _timed(self) -> int:
        """Steps of a process that are timed."""
        return min(TIMED_STEPS, max(FEWEST_TIMED, math.ceil(TIMED_SECONDS / max(self.step_seconds, 1e-6))))

    def least_seconds(self, remedy: Remedy, base: Sequence[Remedy] = ()) -> float:
        """What the shortest trial that can end in a claim takes, on top of ``base``."""
        starts = sum(r.start_seconds for r in base)
        if self._stepwise([remedy], base):
            settle = stepwise.settle_of([remedy], self.step_seconds)
            steps = WARM_STEPS + warm_steps(self.step_seconds) + 2 * LOOKS[0] * (1 + settle)
            return self.command.start_seconds + steps * self.step_seconds + starts
        once = self.command.start_seconds + (WARM_STEPS + self._timed) * self.step_seconds + remedy.one_off_seconds
        return 2 * LEAST_PAIRS * (once + starts)

    def _measured(self, asked: Asked) -> Measured:
        common, off, on = asked.ways
        if self._stepwise([*off, *on], common):
            pairs = asked.so_far(Pairs())
            return Measured(pairs, STEPWISE, 0.0, self._by_turns(asked, pairs))
        few = asked.so_far(ProcessPairs())
        return Measured(few, METHOD, 0.0, self._in_pairs(asked.without, asked.with_, few, asked.seconds))

    def _by_turns(self, asked: Asked, pairs: Pairs) -> str:
        """One process, in which the remedies are switched on and off."""
        common, off, on = asked.ways
        order = {
            "remedies": _named([*common, *off]),
            "warm": WARM_STEPS,
            "off": len(off),
            "on": _named(on),
            "settle": stepwise.settle_of([*off, *on], self.step_seconds),
            "unit": stepwise.unit_of(self.step_seconds),
        }
        first = self.command.limit(WARM_STEPS * self.step_seconds)
        timed = max(asked.seconds - self.command.start_seconds, 2 * LOOKS[0] * self.step_seconds)
        with self.command.begun(order, _environment([*common, *off])) as (child, folder):
            why = stepwise.listen(child, pairs, timed, self._patience, first)
            unsuited = _result(folder).get("unsuited", "")
        return unsuited or (ENDED if why == stepwise.TOO_EARLY else why)

    def _in_pairs(self, without: list[Remedy], with_: list[Remedy], pairs: Pairs, seconds: float) -> str:
        """Processes with and without, in coin-flip order; so few that none is spared, whatever gain is hoped for."""
        end = time.monotonic() + seconds
        for heads in coin_flips():
            if time.monotonic() > end:
                break
            times: dict[bool, dict[str, Any] | None] = {}
            try:
                for on in (False, True) if heads else (True, False):
                    times[on] = self.once(with_ if on else without, WARM_STEPS, self._timed, until=end)
            except Over:
                return SHORT
            a, b = times[False], times[True]
            if a is None or b is None:
                return TIME_UP if time.monotonic() >= end else ENDED
            if b["unsuited"]:
                return str(b["unsuited"])
            pairs.add(a["wall"], b["wall"], a["cpu"], b["cpu"])
            pairs.look()
            if pairs.exhausted:
                return ""
        return TIME_UP

    def again(self, trace: Trace, remedies: list[Remedy], seconds: float) -> None:
        """Nothing is looked at again here: a process more is too dear for that."""

    def once(
        self,
        remedies: list[Remedy],
        warm: int,
        steps: int,
        moved_by: int | None = None,
        seed: int | None = None,
        until: float = math.inf,
    ) -> dict[str, Any] | None:
        """One throw-away process: median step times, losses, digest, weights; None if it ended early.

        Args:
            warm: steps before those that are timed; without any, losses are noted and not only times.
            moved_by: move every weight after the first step, by this draw of units in the last place.
            seed: draw other random numbers than the other processes, from the first step on, too, where the script sets
                a seed itself.
            until: it is ended then (``time.monotonic``).

        Raises:
            Over: the script takes fewer steps.
        """
        order = {
            "remedies": _named(remedies),
            "warm": warm,
            "steps": steps,
            "moved_by": moved_by,
            "seed": SEED if seed is None else seed,
            "expected": self.expected,
        }
        limit = self.command.limit((warm + steps) * self.step_seconds)
        with self.command.begun(order, _environment(remedies)) as (child, folder):
            await_end(child, min(limit, until - time.monotonic()), SILENT_AT_END * self._patience)
            result = _result(folder)
            if "wall" not in result:
                if child.is_over(0.0):
                    raise Over
                return None
            result["layout"] = Layout(**result["layout"])
            for name in ("weights", "moved"):
                result[name + "_array"] = weights(os.path.join(folder, name), result["layout"])
            return result


def _named(remedies: list[Remedy]) -> list[Any]:
    return [[r.name, r.settings()] for r in remedies]


def _environment(remedies: list[Remedy]) -> dict[str, str]:
    return {name: value for r in remedies for name, value in r.environment().items()}


def _result(folder: str) -> dict[str, Any]:
    try:
        with open(os.path.join(folder, "result.json"), encoding="utf-8") as file:
            return json.load(file)  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}


@dataclass
class ProcessJudge:
    """Compares the script with remedies to the script as it is, both from their start."""

    room: ProcessRoom
    steps: int = 20
    _base: dict[str, Any] | None = None
    _again: dict[str, Any] | None = None
    _start: dict[str, Any] | None = None
    _moved: list[dict[str, Any]] = field(default_factory=list)
    _until: float = math.inf

    def least_seconds(self, remedy: Remedy, base: Sequence[Remedy] = ()) -> float:
        """What comparing weights takes."""
        children = 2 if remedy.fidelity is Fidelity.IDENTICAL else 4
        return children * (self.room.command.start_seconds + self.steps * self.room.step_seconds)

    def judge(self, remedies: list[Remedy], until: float = math.inf) -> Finding:
        """Compare the script with ``remedies`` to the script as it is.

        Args:
            until: no process goes on beyond this (``time.monotonic``).
        """
        self._until = until
        try:
            return self._compared(remedies).or_late(until)
        except Over:
            return Finding(None, f"the script ended before {self.steps} steps of it could be compared")

    def _once(self, remedies: list[Remedy], steps: int, **how: Any) -> dict[str, Any] | None:
        return self.room.once(remedies, 0, steps, until=self._until, **how)

    def _compared(self, remedies: list[Remedy]) -> Finding:
        self._base = self._base or self._once([], self.steps)
        self._again = self._again or self._once([], self.steps)
        other = self._once(remedies, self.steps)
        base, again = self._base, self._again
        if base is None or again is None or other is None:
            return Finding(None, "a process ended before the comparison")
        if any(base[k] != again[k] for k in ("weights", "optimizer")):
            return Finding(None, "the script differs from itself when run twice, also with one seed for both")
        steady = [k for k in ("weights", "optimizer", "random") if base[k] == again[k]]  # an unseeded source may differ
        if all(base[k] == other[k] for k in steady):
            return Finding(True, f"identical after the first {self.steps} steps, to the bit", 0.0)
        promise = max((r.fidelity for r in remedies), key=lambda f: f.rank)
        if promise is Fidelity.IDENTICAL:
            return Finding(False, f"promised the same bits, but after {self.steps} steps the state differs")
        if promise is Fidelity.APPROXIMATE:
            seeded = [self._once([], self.steps, seed=SEED + k) for k in range(1, SEEDS + 1)]
            return curves(base["losses"], other["losses"], [s["losses"] if s else [] for s in seeded])
        return self._distance(base, other)

    def _distance(self, base: dict[str, Any], other: dict[str, Any]) -> Finding:
        self._start = self._start or self._once([], 1)
        found = Finding(None, "a process ended before the comparison")
        for draw in range(DRAWS) if self._start is not None else ():
            if draw == len(self._moved):
                moved = self._once([], self.steps, moved_by=draw)
                if moved is None:
                    return Finding(None, "a process ended before the comparison")
                self._moved.append(moved)
            found = self._close(base, other, self._moved[: draw + 1])
            if found.kept is not False:
                break
        return found

    def _close(self, base: dict[str, Any], other: dict[str, Any], yardsticks: list[dict[str, Any]]) -> Finding:
        """Whether the updates are as close as rounding explains."""
        runs = [(x["moved_array"], x["weights_array"]) for x in yardsticks]
        first, a, b = (x["weights_array"] if x is not None else None for x in (self._start, base, other))
        if a is None or any(x is None or len(x) != len(a) for x in (first, b, *(x for pair in runs for x in pair))):
            return Finding(None, "the processes have other weights or buffers, so nothing can be compared")
        found = compare(first, a, b, runs, base["layout"], self.steps)  # type: ignore[arg-type]
        if found.kept and found.judged < LEAST_JUDGED:
            return Finding(None, "rounding alone changes the updates of most weights: nothing can be compared")
        return Finding(found.kept, found.words(), found.distance)

"""Trials where the running process must not be forked: the same script again, in throw-away processes, in turns.

Each process runs the user's own command from its start with its writes led nowhere, remedies on from the first step,
for as many steps as are compared; then it is gone. This needs a script that gives the same result when run twice (a
seed); where it does not, nothing can be proved and nothing is kept.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hasten.core.interval import Interval, student_t
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam
from hasten.core.trace import Trace
from hasten.measure.interleave import REPORT_LEVEL, Outcome, Pairs, coin_flips
from hasten.run.fidelity import LEAST_JUDGED, Finding, compare, weights
from hasten.run.trial import TIME_UP, Measured
from hasten.seams.isolate import folder_in
from hasten.seams.state import Layout

METHOD = "throw-away processes, in turns"
LEAST_PAIRS, MOST_PAIRS = 4, 10
LEVEL = 1 - 0.004 / (MOST_PAIRS - LEAST_PAIRS + 1)  # every look has its share of the error; the promise is 1 in 200
WARM_STEPS = 6
TIMED_STEPS = 40
START_SECONDS = 60.0  # a process may take this long to reach its first step, beyond what the script itself took


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
class ProcessRoom:
    """Runs the script's own command again, from where it was started.

    Args:
        cwd: the folder the script was started in.
        step_seconds: mean duration of a step now.
        start_seconds: what the script took until its first step.
        folder: the session's, with which all goes that they leave, however the script ends.
    """

    cwd: str
    step_seconds: float
    start_seconds: float
    command: list[str] = field(default_factory=lambda: list(sys.orig_argv))
    folder: str = ""

    def unsuited(self, remedy: Remedy, base: list[Remedy]) -> str:
        """Nothing else can be asked beforehand; a process in which it cannot be applied says so by its result."""
        if remedy.grain is Grain.CALL:
            return "evaluations are repeated in forked copies only"
        compiles = remedy.seam is Seam.LAUNCH and any(r.one_off_seconds for r in base)
        return "every process would compile anew" if compiles else ""

    def least_seconds(self, remedy: Remedy) -> float:
        """What the shortest trial that can end in a claim takes."""
        once = self.start_seconds + (WARM_STEPS + TIMED_STEPS) * self.step_seconds + remedy.one_off_seconds
        return 2 * LEAST_PAIRS * once

    def compare(self, without: list[Remedy], with_: list[Remedy], seconds: float, hoped: float = math.inf) -> Measured:
        """Processes with ``with_`` against processes with ``without``, in coin-flip order, for at most ``seconds``;
        they are so few that none is spared, whatever gain is hoped for."""
        start = time.monotonic()
        pairs = ProcessPairs()
        why = TIME_UP
        for heads in coin_flips():
            if time.monotonic() - start > seconds and len(pairs.wall) >= LEAST_PAIRS:
                break
            if time.monotonic() - start > 3 * seconds:
                break
            times: dict[bool, dict[str, Any] | None] = {}
            for on in (False, True) if heads else (True, False):
                times[on] = self.once(with_ if on else without, WARM_STEPS, TIMED_STEPS)
            a, b = times[False], times[True]
            if a is None or b is None:
                why = "a process ended before it could be timed"
                break
            if b["unsuited"]:
                why = b["unsuited"]
                break
            pairs.add(a["wall"], b["wall"], a["cpu"], b["cpu"])
            pairs.look()
            if pairs.exhausted:
                why = ""
                break
        return Measured(pairs, METHOD, time.monotonic() - start, why)

    def again(self, trace: Trace, remedies: list[Remedy]) -> None:
        """Nothing is looked at again here: a process more is too dear for that."""

    def once(self, remedies: list[Remedy], warm: int, steps: int, perturb: bool = False) -> dict[str, Any] | None:
        """One throw-away process: median step times, digest, weights; None if it ended early."""
        with _folder(self.folder) as folder:
            order = {
                "remedies": [[r.name, r.settings()] for r in remedies],
                "warm": warm,
                "steps": steps,
                "perturb": perturb,
            }
            path = os.path.join(folder, "order.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(order, file)
            env = {**os.environ, "HASTEN_TRIAL": path, "HASTEN_CACHE_DIR": folder}
            for remedy in remedies:
                env |= remedy.environment()
            limit = 2 * self.start_seconds + START_SECONDS + 5 * (warm + steps) * self.step_seconds
            process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("HASTEN_DEBUG") else subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                pass
            finally:
                _kill_group(process)
            try:
                with open(os.path.join(folder, "result.json"), encoding="utf-8") as file:
                    result: dict[str, Any] = json.load(file)
                result["layout"] = Layout(**result["layout"])
                result["weights_array"] = weights(os.path.join(folder, "weights"), result["layout"])
                return result
            except (OSError, ValueError):
                return None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    import signal

    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


@contextmanager
def _folder(base: str) -> Iterator[str]:
    folder = folder_in(base, "trial-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class ProcessJudge:
    """Compares the script with remedies to the script as it is, both from their start."""

    room: ProcessRoom
    steps: int = 20
    _base: dict[str, Any] | None = None
    _again: dict[str, Any] | None = None

    def least_seconds(self, remedy: Remedy) -> float:
        """What comparing weights takes."""
        children = 2 if remedy.fidelity is Fidelity.IDENTICAL else 4
        return children * (self.room.start_seconds + self.steps * self.room.step_seconds)

    def judge(self, remedies: list[Remedy]) -> Finding:
        self._base = self._base or self.room.once([], 0, self.steps)
        self._again = self._again or self.room.once([], 0, self.steps)
        other = self.room.once(remedies, 0, self.steps)
        base, again = self._base, self._again
        if base is None or again is None or other is None:
            return Finding(None, "a process ended before the comparison")
        if any(base[k] != again[k] for k in ("weights", "optimizer")):
            return Finding(None, "the script differs from itself when run twice (no seed?), so nothing can be compared")
        steady = [k for k in ("weights", "optimizer", "random") if base[k] == again[k]]  # an unseeded source may differ
        if all(base[k] == other[k] for k in steady):
            return Finding(True, f"identical after the first {self.steps} steps, to the bit", 0.0)
        promise = max((r.fidelity for r in remedies), key=lambda f: f.rank)
        if promise is Fidelity.IDENTICAL:
            return Finding(False, f"promised the same bits, but after {self.steps} steps the state differs")
        if promise is Fidelity.APPROXIMATE:
            return Finding(None, "the noise between seeds cannot be measured between processes")
        return self._distance(base, other)

    def _distance(self, base: dict[str, Any], other: dict[str, Any]) -> Finding:
        start, moved = self.room.once([], 0, 1), self.room.once([], 0, self.steps, perturb=True)
        if start is None or moved is None:
            return Finding(None, "a process ended before the comparison")
        first, a, b, c = (x["weights_array"] for x in (start, base, other, moved))
        if any(x is None or len(x) != len(a) for x in (first, a, b, c)):
            return Finding(None, "the processes have other weights or buffers, so nothing can be compared")
        found = compare(first, a, b, c, base["layout"], self.steps)
        if found.kept and found.judged < LEAST_JUDGED:
            return Finding(None, "rounding alone changes the updates of most weights: nothing can be compared")
        return Finding(found.kept, found.words(), found.distance)

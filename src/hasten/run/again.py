"""A second look at the script, with remedies on: what they have left, and what they have brought about."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

from hasten.core.codec import decode, encode
from hasten.core.facts import LoaderFacts
from hasten.core.interval import Interval
from hasten.core.trace import PHASES, Phase, Trace
from hasten.seams.child import LONG_STEP
from hasten.seams.facts import loader_facts
from hasten.seams.fork import DONE, Sender
from hasten.seams.watch import Watch

STEPS, STEPS_LONG = 8, 2  # steps that are looked at


class Looking:
    """Runs a few steps in a child and writes what each took: seconds, the kernel's seconds, page faults, phases.

    Args:
        path: file that receives the JSON.
        warm: steps before, not looked at.
        prepare: called before each step; what it takes is not counted.
    """

    def __init__(
        self, sender: Sender, watch: Watch, path: str, warm: int, step_seconds: float, prepare: Callable[[], None]
    ) -> None:
        self.sender = sender
        self.watch = watch
        self.path = path
        self.warm = warm
        self.left = STEPS if step_seconds < LONG_STEP else STEPS_LONG
        self.prepare = prepare
        self.rows: list[list[float]] = []
        self._start()

    def _start(self) -> None:
        self.prepare()
        self.used = resource.getrusage(resource.RUSAGE_SELF)
        self.watch.clock.pause_until(self.watch.clock.now())
        self.wall = time.perf_counter()

    def beat(self) -> None:
        """A step ended in the child."""
        wall, used = time.perf_counter() - self.wall, resource.getrusage(resource.RUSAGE_SELF)
        spent = self.watch.clock.cut(self.watch.clock.now())
        if self.warm:
            self.warm -= 1
        else:
            system, faults = used.ru_stime - self.used.ru_stime, used.ru_minflt - self.used.ru_minflt
            self.rows.append([wall, system, faults, *(ns / 1e9 for ns in spent)])
            self.left -= 1
        if not self.left:
            self._tell()
        self._start()

    def _tell(self) -> None:
        medians = [statistics.median(column) for column in zip(*self.rows, strict=True)]
        loaders = [encode(loader_facts(r)) for r in self.watch.loaders.values() if r.batches]
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump({"medians": medians, "loaders": loaders}, file)
        self.sender.row(DONE)
        self.sender.leave()


def seen_again(trace: Trace, path: str, fetched: bool) -> Trace | None:
    """The trace with what a child wrote to ``path`` in place of what was measured before; None if it wrote nothing.

    Args:
        fetched: whether the child fetched its batches itself; what fetching takes stays as it was if not.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
        os.unlink(path)
    except (OSError, ValueError):
        return None
    wall, system, faults, *spent = found["medians"]
    seconds = dict(zip(PHASES, spent, strict=True))
    if not fetched:
        wall += trace.phase("fetch") - seconds["fetch"]
        seconds["fetch"] = trace.phase("fetch")
    return dataclasses.replace(
        trace,
        step=Interval.exact(wall),
        step_median=wall,
        phases=tuple(_as_now(p, seconds[p.name]) for p in trace.phases),
        loaders=tuple(
            dataclasses.replace(now, probe=before.probe)
            for before, now in zip(trace.loaders, (decode(LoaderFacts, x) for x in found["loaders"]), strict=False)
        ),
        usage=dataclasses.replace(trace.usage, system_seconds=system, minor_faults=faults),
    )


def _as_now(phase: Phase, seconds: float) -> Phase:
    """The phase with what it takes now; its parts, which were not looked at again, keep their shares of it."""
    before = phase.seconds.value
    parts = phase.children if before > 0 and seconds > 0 else ()
    shared = tuple(_as_now(c, c.seconds.value * seconds / before) for c in parts)
    return dataclasses.replace(phase, seconds=Interval.exact(seconds), children=shared, vanished=None)  # of medians

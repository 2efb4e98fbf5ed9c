"""When to look closely: the first steps warm up, then a window with lines and samples, then only the heartbeat."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hasten.core.facts import Place, Usage
from hasten.measure.machine import cores
from hasten.seams import checkpoint, schedule
from hasten.seams.forward import ForwardSeam
from hasten.seams.locate import framework_around, user_frame
from hasten.seams.opens import Opens
from hasten.seams.record import may_wait
from hasten.seams.reducer import Reducer
from hasten.seams.samples import SampleKey
from hasten.seams.steps import waited_ns
from hasten.seams.watch import Watch

WARM = 3  # steps before the window: imports, first allocations, discovery of modules
LEAST_STEPS = 12  # a window has at least this many steps …
LEAST_SECONDS = 2.0  # … and seconds,
REPLAY_SECONDS = 0.2  # (this long where a plan is replayed: nothing is decided then)
SHORT_JOB = 0.5  # or, where that is sooner, this part of all steps that are expected,
MOST_SECONDS = 10.0  # unless it takes longer than this; twice that while an epoch ends that loader workers feed
HERTZ = 200.0  # stack samples per second inside the window
HERTZ_AFTER = 40.0  # and after it, for growth and for phases between epochs


@dataclass
class _Mark:
    wall: float
    usage: resource.struct_rusage
    machine_busy: float
    children: float
    waited: float

    @classmethod
    def now(cls) -> _Mark:
        usage, waited = resource.getrusage(resource.RUSAGE_SELF), waited_ns()
        return cls(
            time.perf_counter(), usage, machine_busy(), children_cpu(), math.nan if waited is None else waited / 1e9
        )  # fmt: skip


def children_cpu() -> float:
    """CPU seconds of this process's children: of those that have ended, and of loaders' workers that run."""
    from multiprocessing import process

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(_cpu_of(p.pid) for p in list(getattr(process, "_children", ())))


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and its own children; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0


def machine_busy() -> float:
    """CPU seconds all processes have used of the cores that this one may use; 0 where unknown."""
    ours = {f"cpu{n}" for n in os.sched_getaffinity(0)}
    try:
        with open("/proc/stat", encoding="ascii") as file:
            rows = [[int(x) for x in fields] for name, *fields in map(str.split, file) if name in ours]
        return sum(sum(row[:8]) - row[3] - row[4] for row in rows) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


class Window:
    """Opens after the warm-up, closes when enough was seen, then calls ``then`` at a step's end.

    Args:
        sample: whether lines are looked at.
        limit: steps after which the script will be stopped.

    Attributes:
        usage: per-step use of the machine inside the window.
        opens: files opened inside the window.
        early, late: samples by line in the window, and since the last doubling of the number of steps.
    """

    def __init__(
        self,
        watch: Watch,
        forward: ForwardSeam,
        then: Callable[[int], None],
        sample: bool = True,
        limit: float = math.inf,
    ) -> None:
        self.watch = watch
        self.forward = forward
        self.then = then
        self.sample = sample
        self.limit = limit
        self.usage = Usage()
        self.samples: dict[SampleKey, float] = {}
        self.early: tuple[int, dict[SampleKey, float]] = (0, {})
        self.late: tuple[int, dict[SampleKey, float]] = (0, {})
        self.opened_at = 0
        self.closed_at = 0
        self.opens = Opens(watch)
        self.reducer = Reducer(watch)
        self._mark: _Mark | None = None
        self._half = math.inf  # step at which half of a short job is over, where its length is known
        self._late_start = 0
        watch.at_step = self.step
        watch.next_call = 1

    def note(self) -> None:
        from hasten.seams.facts import note_facts

        note_facts(self.watch)
        checkpoint.libraries(self.watch, self.forward.patches)
        self.watch.framework = self.watch.framework or framework_around(sys._getframe())

    @property
    def open(self) -> bool:
        return self._mark is not None and not self.closed_at

    def step(self, now: int) -> None:
        """A step has ended."""
        watch = self.watch
        if not watch.first_step:
            watch.first_step = now
            watch.first_round = (schedule.rounds(sys._getframe())[0], watch.steps)
            self.note()
        if self.closed_at:
            self.then(now)
            return
        if self._mark is None:
            if watch.steps < WARM:
                return
            self._open()
            return
        if watch.clock.device is not None:
            watch.clock.device.read()
        self.reducer.read()
        elapsed = time.perf_counter() - self._mark.wall
        steps = watch.steps - self.opened_at
        enough = elapsed >= (LEAST_SECONDS if self.sample else REPLAY_SECONDS) or watch.steps >= self._half
        if (steps >= LEAST_STEPS and enough) or elapsed >= MOST_SECONDS:
            if self.sample and elapsed < 2 * MOST_SECONDS and may_wait(watch):
                return
            self.close()
            self.then(now)

    def _open(self) -> None:
        self.note()
        self.forward.settle()
        self.opened_at = self.watch.steps
        self.watch.clock.places.clear()
        if self.sample:
            self.watch.clock.locate = user_frame
            self.watch.sampler.start(HERTZ)
            self.opens.start()
            self.reducer.start()
        self._watch_device()
        steps, _ = schedule.expected(self.watch)
        self._half = SHORT_JOB * min(steps if steps > 0 else math.inf, self.limit)
        self._mark = _Mark.now()

    def _watch_device(self) -> None:
        """On CUDA, let events in the stream tell the device's time by phase."""
        import torch

        if torch.cuda.is_available() and torch.cuda.is_initialized():
            from hasten.measure.device import DeviceClock, DeviceTimes

            DeviceClock.take_over(self.watch.clock, DeviceTimes(lambda: torch.cuda.Event(enable_timing=True)))

    def close(self) -> None:
        """Leave the window; safe to call at any time, also when it never opened."""
        watch = self.watch
        self.forward.settle()
        watch.inputs.settle()
        if self._mark is None or self.closed_at:
            self.collect()
            return
        watch.clock.locate = None
        self.opens.stop()
        self.reducer.stop()
        self.closed_at = watch.steps
        steps = max(1, self.closed_at - self.opened_at)
        if watch.clock.device is not None:
            watch.clock.device.read()
            watch.clock.release()
        self.usage = _usage(self._mark, _Mark.now(), steps, watch.sampler.faulting())
        taken = watch.sampler.take()
        self.early = (steps, taken)
        self._add(taken)
        self._late_start = watch.steps
        if self.sample:
            watch.sampler.start(HERTZ_AFTER)

    def collect(self) -> None:
        """Take the samples since the last call; the latest span becomes ``late``."""
        watch = self.watch
        taken = watch.sampler.take()
        self._add(taken)
        if watch.steps > self._late_start:
            self.late = (watch.steps - self._late_start, taken)
        self._late_start = watch.steps

    def _add(self, taken: dict[SampleKey, float]) -> None:
        for key, seconds in taken.items():
            self.samples[key] = self.samples.get(key, 0.0) + seconds


def _usage(a: _Mark, b: _Mark, steps: int, faulting: tuple[float, Place | None]) -> Usage:
    from hasten.measure.machine import resident_bytes

    user = b.usage.ru_utime - a.usage.ru_utime
    system = b.usage.ru_stime - a.usage.ru_stime
    wall = max(b.wall - a.wall, 1e-9)
    others = max(0.0, (b.machine_busy - a.machine_busy - user - system) / wall)
    return Usage(
        cpu_seconds=(user + system) / steps,
        system_seconds=system / steps,
        minor_faults=(b.usage.ru_minflt - a.usage.ru_minflt) / steps,
        major_faults=(b.usage.ru_majflt - a.usage.ru_majflt) / steps,
        resident_bytes=float(resident_bytes()),
        other_load=min(others, float(cores())),
        wall_seconds=wall / steps,
        worker_cpu_seconds=max(0.0, b.children - a.children) / steps,
        model_faults=faulting[0],
        faults_place=faulting[1],
        waited_seconds=(b.waited - a.waited) / steps,
    )


def rest(window: Any) -> None:
    """After the window: nothing is called until a doubling of the steps."""
    window.watch.next_call = max(window.watch.steps + 1, 2 * window.watch.steps)

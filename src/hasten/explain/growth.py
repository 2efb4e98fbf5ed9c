"""Does a step take longer, or hold more memory, the longer the training runs? And which line?"""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np

from hasten.core.facts import Place
from hasten.core.interval import Interval
from hasten.core.trace import Growth
from hasten.explain.keepers import KeeperWatch
from hasten.measure import machine
from hasten.measure.slope import theil_sen
from hasten.seams.facts import loader_facts
from hasten.seams.locate import place_of_line
from hasten.seams.samples import SampleKey
from hasten.seams.watch import Watch
from hasten.seams.window import HERTZ_AFTER, WARM, Window

Profile = dict[SampleKey, float]

LEAST_RECORDS = 60  # fewer steps say nothing about growth
MATTERS = 0.10  # growth over the run, as a share of the step at its start, below which it is not reported
LEAST_BYTES = 8 << 20  # memory growth over the run below which it is not reported
BYTES_PER_STEP = 4096.0
WORKS = 0.5  # part of the growth that must be work of the training thread, not waiting for a core
CONTENTION = 0.5  # growth of its processor time, as a share, above what others' use of the caches brings about
WAITS_MORE = (1.1, 0.02)  # times as much of its time waiting for a core, plus so much: then others have come
READINGS = 12  # of what is allocated, in as many steps in a row
LEAST_SPANS = 6  # readings of its processor time, less one
CULPRIT = 0.5  # part of the growth that one line must explain
SIGMAS = 3.0  # times the sampling noise that a line must have grown by


class GrowthWatch:
    """Looks, between two steps, for variables that keep graphs alive."""

    def __init__(self, watch: Watch, window: Window) -> None:
        self.watch = watch
        self.keepers = KeeperWatch()
        self.look()

    @property
    def undecided(self) -> bool:
        """Whether the next step is to be looked at, too."""
        return self.keepers.undecided or 0 < len(self.watch.allocated) < READINGS

    def look(self) -> None:
        self.keepers.look(sys._getframe())
        self.watch.keeper = self.keepers.found
        self.watch.keeper_begun_anew = self.keepers.longest.get(self.keepers.found[0], 0) if self.keepers.found else 0
        if self.keepers.found is not None and len(self.watch.allocated) < READINGS:
            self.watch.allocated.append(_allocated())


def _allocated() -> int:
    import torch

    on_device = torch.cuda.is_available() and torch.cuda.is_initialized()
    return machine.allocated_bytes() + (torch.cuda.memory_allocated() if on_device else 0)


def growth(watch: Watch, window: Window) -> Growth:
    """Slopes with intervals; the line and variable if something grows."""
    walls = watch.walls(WARM)
    if len(walls) < LEAST_RECORDS:
        return Growth()
    slope = theil_sen(walls).scaled(1.0 / watch.fold)
    steps = len(walls) * watch.fold
    start = float(np.median(walls[: max(10, len(walls) // 10)]))
    relative = slope.value * steps / start if start > 0 else math.nan
    certain = slope.low * steps / start if start > 0 else 0.0
    memory = _memory_slope(watch)
    leaks = memory is not None and memory.low > BYTES_PER_STEP and memory.low * steps > LEAST_BYTES
    growing = certain > MATTERS and _works_more(watch.processor, slope.value)
    place, seconds = grown_line(window.early, window.late) if growing else (None, math.nan)
    grows = place is not None
    kept, epoch = _kept(watch), 0
    if not (leaks or grows):
        epoch = _epoch(watch)
        if kept is None or kept.low < BYTES_PER_STEP or kept.low * epoch < LEAST_BYTES:
            return Growth(slope, memory, relative, kept=kept)
    variable, where = watch.keeper or ("", None)
    return Growth(slope, memory, relative, grows, leaks, place, seconds, variable, where, kept, epoch)


def _kept(watch: Watch) -> Interval | None:
    """Bytes that stay allocated, per step, while a variable gathers graphs."""
    readings = watch.allocated
    return theil_sen(readings, "B") if len(readings) >= READINGS and readings[0] else None


def _epoch(watch: Watch) -> int:
    """Steps of an epoch, after which the variable that gathers graphs is begun anew; 0 where it was not seen to be."""
    record = watch.trained_from
    if record is None or not watch.keeper_begun_anew:
        return 0
    if len(record.epochs) > 1:
        steps = int(np.median(np.diff(record.epochs)))
    else:
        facts = loader_facts(record)
        steps = math.ceil(facts.length / max(1, facts.batch_size) / watch.batches)
    return steps if steps >= watch.keeper_begun_anew else 0


def _works_more(readings: list[tuple[int, int, int]], slope: float) -> bool:
    """Whether the training thread's processor time a step grows as its wall time does (``slope``, seconds per step, per
    step), or by itself more than a busy machine makes it: where others take the cores, the wall time grows, and the
    processor time only by what is lost to shared caches, or without limit where threads wait for each other, since they
    do so on a core. True where nothing was read."""
    spans = [(s - r, c - b, w - v) for (r, b, v), (s, c, w) in itertools.pairwise(readings) if s > r]
    if not readings:
        return True
    if len(spans) < LEAST_SPANS:
        return False
    seconds = [cpu / 1e9 / steps for steps, cpu, _ in spans]
    found = theil_sen(seconds)
    start = float(np.median(seconds[: max(3, len(seconds) // 10)]))
    alone = found.low * len(seconds) > CONTENTION * start
    if _waits_more(spans):
        return alone and _threads() == 1
    per_step = found.value * len(spans) / sum(steps for steps, _, _ in spans)
    return alone or (found.low > 0 and per_step >= WORKS * slope)


def _waits_more(spans: list[tuple[int, int, int]]) -> bool:
    """Whether the training thread waits for a core for more of its time in the later half: others have come."""
    half = len(spans) // 2
    early, late = (
        sum(w for _, _, w in part) / max(1, sum(c + w for _, c, w in part)) for part in (spans[:half], spans[half:])
    )
    times, plus = WAITS_MORE
    return late > times * early + plus


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _memory_slope(watch: Watch) -> Interval | None:
    late = [(s, b) for s, b in watch.memory if s > watch.steps // 4]
    if len(late) < 12:
        return None
    per_reading = theil_sen([b for _, b in late], "B")
    every = (late[-1][0] - late[0][0]) / (len(late) - 1)
    return per_reading.scaled(1.0 / every)


def grown_line(early: tuple[int, Profile], late: tuple[int, Profile]) -> tuple[Place | None, float]:
    """The line whose seconds per step grew, if one line did so beyond what all others did and beyond sampling noise.

    A busy machine stretches all lines alike and is no growth of the script's; a line that works on everything so far
    grows alone. Each profile is (steps, seconds by sampled line).
    """
    before, after = _by_line(early), _by_line(late)
    if not before or not after:
        return None, math.nan
    total = sum(after.values()) - sum(before.values())
    line = max(after, key=lambda x: after[x] - before.get(x, 0.0))
    others = sum(before.values()) - before.get(line, 0.0)
    pace = (sum(after.values()) - after[line]) / others if others > 0 else 1.0
    excess = after[line] - before.get(line, 0.0) * max(1.0, pace)
    noise = math.sqrt(after[line] * late[0] / HERTZ_AFTER) / late[0]
    if excess < max(CULPRIT * total, SIGMAS * noise):
        return None, math.nan
    code = next(k[1] for k in late[1] if (k[1].co_filename, k[2]) == line)
    return place_of_line(code, line[1]), excess


def _by_line(profile: tuple[int, Profile]) -> dict[tuple[str, int], float]:
    """Seconds per step by file and line."""
    steps, seconds = profile
    lines: dict[tuple[str, int], float] = {}
    for key, weight in seconds.items():
        line = (key[1].co_filename, key[2])
        lines[line] = lines.get(line, 0.0) + weight / max(1, steps)
    return lines

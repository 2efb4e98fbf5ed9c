"""What a forked child does in the user's loop: alternate two ways step by step, or run K steps and tell the outcome."""

from __future__ import annotations

import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable, Sequence

from hasten.core.remedy import Undo
from hasten.measure.clock import CHECKPOINT, EVALUATION, INDEX
from hasten.measure.device import device_waiter
from hasten.measure.interleave import coin_flips
from hasten.seams.fork import DONE, LAST, READY, Sender
from hasten.seams.isolate import folder_in
from hasten.seams.state import Snapshot, digest
from hasten.seams.watch import Watch

WARM_STEPS = 4  # steps after a fork that are not timed: copy-on-write faults, threads coming back
LONG_STEP = 0.25  # seconds; of steps as long as this, one is enough for that
DEVICE_SECONDS = 0.1  # of steps in one timing where a device is used, at least, …
DEVICE_UNITS = (4, 16)  # … in so many of them: at both ends the host waits for the device, and cannot work ahead of it
FETCH = INDEX["fetch"]
_DIRTY = (EVALUATION, CHECKPOINT, INDEX["loader start"])
WITHOUT, WITH = 0, 1


def warm_steps(step_seconds: float) -> int:
    """How many steps after a fork are not timed."""
    return 1 if step_seconds >= LONG_STEP else WARM_STEPS


def unusual_phases(watch: Watch) -> tuple[int, ...]:
    """What a step must not hold to be compared with others: what most of the script's steps do not hold."""
    return rare_phases(watch.recent(64))


def rare_phases(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The same of these records of steps."""
    return tuple(i for i in _DIRTY if 2 * sum(row[i + 1] > 0 for row in rows) <= len(rows))


def unit_on_device(step_seconds: float) -> int:
    """Steps a timing where a device works behind the host."""
    least, most = DEVICE_UNITS
    return max(least, min(most, round(DEVICE_SECONDS / max(step_seconds, 1e-6))))


class Alternating:
    """Runs pairs of steps, one with and one without, in coin-flip order, and sends the mean time of a step of either,
    and how much of it was waiting for a batch.

    Where the script uses a device it is waited for before and after every timing.

    Args:
        switch: switches the thing under trial on and returns the way back.
        prepare: called before each step with whether it will be timed with the remedy on; its time is not counted.
        settle: steps after each switch that are not timed.
        unit: steps per timing.
        left: steps that the script has left, where known: the parent is told when they are taken.
    """

    def __init__(
        self,
        sender: Sender,
        watch: Watch,
        switch: Callable[[], Undo],
        *,
        prepare: Callable[[], None] | None = None,
        settle: int = 0,
        unit: int = 1,
        most_pairs: int = 272,
        left: int = -1,
    ) -> None:
        self.steps_left = left
        self.sender = sender
        self.watch = watch
        self.switch = switch
        self.prepare = prepare
        self.settle = settle
        rows = watch.recent(64)
        step_seconds = statistics.median(row[0] for row in rows) / 1e9 if rows else 0.0
        self.wait = device_waiter()
        self.unit = unit if self.wait is None else max(unit, unit_on_device(step_seconds))
        self.pairs_left = most_pairs
        self.coins = coin_flips()
        self.undo: Undo | None = None
        self.order: list[int] = []
        self.times: dict[int, tuple[float, ...]] = {}
        self.discard = warm_steps(step_seconds)
        self.unusual = unusual_phases(watch)
        self.counted = 0
        self.sums = [0.0, 0.0, 0.0]
        watch.keep_loss = False
        self._start()

    def _start(self) -> None:
        if self.prepare is not None:
            self.prepare()
        if self.wait is not None and not self.counted:
            self.wait()
        self.wall = time.perf_counter()
        self.cpu = time.process_time()
        self.watch.clock.pause_until(self.watch.clock.now())

    def beat(self) -> None:
        """A step ended in the child."""
        if self.wait is not None and self.counted == self.unit - 1:
            self.wait()
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        spent = self.watch.clock.cut(self.watch.clock.now())
        if self.discard:
            self.discard -= 1
        elif any(spent[i] for i in self.unusual):
            self._begin_pair()
        else:
            self.sums[0] += wall
            self.sums[1] += cpu
            self.sums[2] += spent[FETCH] / 1e9
            self.counted += 1
        if not self.order:
            if not self.discard:
                self._begin_pair()
        elif self.counted == self.unit:
            self._unit_done()
        self.steps_left -= 1
        if not self.steps_left:
            self.sender.row(LAST)
        self._start()

    def _begin_pair(self) -> None:
        self.order = [WITHOUT, WITH] if next(self.coins) else [WITH, WITHOUT]
        self.times.clear()
        self._turn(self.order[0])

    def _turn(self, way: int) -> None:
        self.counted = 0
        self.sums = [0.0, 0.0, 0.0]
        if way == WITH and self.undo is None:
            self.undo = self.switch()
            self.discard = self.settle
        elif way == WITHOUT and self.undo is not None:
            self.undo()
            self.undo = None
            self.discard = self.settle

    def _unit_done(self) -> None:
        way = self.order.pop(0)
        self.times[way] = tuple(total / self.unit for total in self.sums)
        if self.order:
            self._turn(self.order[0])
            return
        for key in (WITHOUT, WITH):
            wall, cpu, fetched = self.times[key]
            self.sender.row(key, wall, cpu, spare=fetched)
        self.pairs_left -= 1
        if not self.pairs_left:
            self.sender.row(DONE)
            self.sender.leave()
        self._begin_pair()


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Tokened:
    """Runs units of steps, each after the parent gave the turn, and sends each unit's time, and the mean of its minor
    page faults a step.

    Args:
        warm: steps before the first turn, not timed.
        unit: steps per turn.
        prepare: called before each step; its time is not counted.
        left: as of :class:`Alternating`.
    """

    def __init__(
        self,
        sender: Sender,
        watch: Watch,
        *,
        warm: int,
        unit: int,
        prepare: Callable[[], None] | None = None,
        left: int = -1,
    ) -> None:
        self.steps_left = left
        self.sender = sender
        self.watch = watch
        self.warm = warm
        self.unit = unit
        self.prepare = prepare
        self.count = 0
        self.wall_sum = self.cpu_sum = 0.0
        self.faults = 0
        self.dirty = False
        self.unusual = unusual_phases(watch)
        self._start()

    def _start(self) -> None:
        if self.prepare is not None:
            self.prepare()
        self.watch.clock.pause_until(self.watch.clock.now())
        self.faulted = _faults()
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def beat(self) -> None:
        """A step ended in the child."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        faults = _faults() - self.faulted
        spent = self.watch.clock.cut(self.watch.clock.now())
        if self.warm:
            self.warm -= 1
            if not self.warm:
                self.sender.row(READY, wall)
                self.sender.await_turn()
        else:
            self.wall_sum += wall
            self.cpu_sum += cpu
            self.faults += faults
            self.dirty |= any(spent[i] for i in self.unusual)
            self.count += 1
            if self.count == self.unit:
                self.sender.row(2 if self.dirty else 0, self.wall_sum, self.cpu_sum, spare=self.faults / self.unit)
                self.count, self.wall_sum, self.cpu_sum, self.faults, self.dirty = 0, 0.0, 0.0, 0, False
                self.sender.await_turn()
        self.steps_left -= 1
        if not self.steps_left:
            self.sender.row(LAST)
        self._start()


class Straight:
    """Runs steps with one setting throughout and sends each step's time; ends with the state's digest if asked.

    Args:
        steps: steps to run after the warm-up.
        outcome: file that receives the digest (JSON) and, beside it, the weights (raw float32).
        written: whether these are written; those of a large model take long, and much room.
        marks: steps after which the weights are written, too, as ``outcome + ".weights" + step``.
        snapshot: which objects make up the state.
        prepare: called before each step; what it takes is not counted.
    """

    def __init__(
        self,
        sender: Sender,
        watch: Watch,
        steps: int,
        *,
        warm: int = WARM_STEPS,
        snapshot: Snapshot | None = None,
        outcome: str = "",
        written: bool = True,
        marks: tuple[int, ...] = (),
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.prepare = prepare
        self.sender = sender
        self.watch = watch
        self.warm = warm
        self.left = steps + warm
        self.snapshot = snapshot
        self.outcome = outcome
        self.written = written
        self.marks = marks if written else ()
        self.losses: list[float] = []
        self.unusual = unusual_phases(watch)
        watch.keep_loss = bool(outcome)
        sender.at_end = self._tell  # a script that ends before all steps are taken is compared as it ended
        self._start()

    def _start(self) -> None:
        self.prepare()
        self.wall = time.perf_counter()
        self.cpu = time.process_time()
        self.watch.clock.pause_until(self.watch.clock.now())

    def beat(self) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        spent = self.watch.clock.cut(self.watch.clock.now())
        loss = loss_of(self.watch) if self.watch.keep_loss else 0.0
        self.losses.append(loss)
        self.left -= 1
        if len(self.losses) in self.marks and self.snapshot is not None:
            self.snapshot.write(f"{self.outcome}.weights{len(self.losses)}")
        if self.warm:
            self.warm -= 1
        else:
            dirty = any(spent[i] for i in self.unusual)
            self.sender.row(2 if dirty else 0, wall, cpu, loss)
        if not self.left:
            self.sender.leave()
        self._start()

    def _tell(self) -> None:
        if self.outcome and self.snapshot is not None:
            result = digest(self.snapshot)
            result["losses"] = self.losses
            if self.written:
                self.snapshot.write(self.outcome + ".weights")
            with open(self.outcome, "w", encoding="utf-8") as file:
                json.dump(result, file)
        self.sender.row(DONE)


def loss_of(watch: Watch) -> float:
    """The loss of the last step; 0 where it is not known."""
    try:
        return float(watch.loss.detach().sum())
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return 0.0


class PullOnly:
    """Asks the training loader for batches and does nothing else: the data side alone."""

    def __init__(self, sender: Sender, watch: Watch, batches: int, seconds: float) -> None:
        self.sender = sender
        record = watch.trained_from
        loader = record.loader() if record is not None else None
        if record is None or loader is None:
            sender.leave()
            return
        iterator = record.iterator if not loader.num_workers else None  # None, too, after next(iter(loader))
        iterator = loader._get_iterator() if iterator is None else iterator
        skip = 1 if not loader.num_workers else loader.num_workers * (loader.prefetch_factor or 2) + 1
        end = time.perf_counter() + seconds
        for i in itertools.count():
            start = time.perf_counter()
            try:
                next(iterator)
            except StopIteration:
                iterator = loader._get_iterator()
                continue
            if i >= skip:
                sender.row(0, time.perf_counter() - start)
            if i >= batches + skip or time.perf_counter() > end:
                break
        sender.row(DONE)
        sender.leave()

    def beat(self) -> None:
        self.sender.leave()


def exchange_folder(watch: Watch) -> str:
    """A private folder for outcomes of children."""
    return folder_in(watch.folder, "trial-")

"""The heartbeat: everything hasten knows about the training loop of this process.

A step ends when the clock optimizer's ``step`` returns (or, in scripts without ``torch.optim``, when ``backward``
does). Time since the last step's end is split by :class:`~hasten.measure.clock.PhaseClock`.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from hasten.core.trace import PHASES
from hasten.measure.clock import INDEX, PYTHON
from hasten.seams.known import Iterated, LoaderRecord, OptimizerRecord
from hasten.seams.roles import Roles
from hasten.seams.samples import Sampler
from hasten.seams.steps import Aside
from hasten.seams.succession import Succession

OPTIMIZER = INDEX["optimizer"]
FIRST = 3  # steps of an optimizer that make its state, and import what torch loads late
BACKWARDS_WITHOUT_OPTIMIZER = 8  # calls of backward without any optimizer before backward becomes the clock …
BACKWARDS_ACCUMULATED = 4096  # … or, where an optimizer exists that has not stepped yet, calls without its step
IDLE_CLOCK = 25  # steps of other optimizers after which a silent clock optimizer is replaced
STAMPS_FOR = 20_000_000  # nanoseconds; so often the steps of a light watch are looked at
_NO_PHASES = array("q", [0] * len(PHASES))


class Departed(BaseException):
    """Raised in a freshly forked child to leave hasten's own frames and go on in the user's loop."""


def main_file() -> str:
    """Path of the script that runs; to be asked early, for Python forgets it when the script's last line is done."""
    return getattr(sys.modules.get("__main__"), "__file__", "") or ""


def optimizer_exists() -> bool:
    """Whether the script has made an optimizer (that may step after accumulating gradients for a while)."""
    import gc

    import torch

    return any(issubclass(type(value), torch.optim.Optimizer) for value in gc.get_objects())


@dataclass
class Watch(Roles):
    """State of the watched process. Seams write to it; the agent reads it and is called at step ends.

    Attributes:
        at_step: called with the step's end in nanoseconds once ``steps`` reaches ``next_call``.
        differentiated: batches of loaders that a backward pass has followed.
        depth: how many outermost module calls are running (0 or 1).
        light: only whole steps are timed, phases are not; see :meth:`lighten`.
        stamps: of a light watch: when :meth:`catch_up` is due, then the ends of the steps that it has not seen yet.
    """

    at_step: Callable[[int], None] | None = None
    next_call: int = 1 << 62
    differentiated: int = 0
    _due: int = 0  # batches of step ``_due_in`` that no backward pass has followed
    _due_in: int = 0
    depth: int = 0
    light: bool = False
    iterated: dict[Any, Iterated] = field(default_factory=dict)  # loaders by line
    iterators: weakref.WeakKeyDictionary[Any, LoaderRecord] = field(default_factory=weakref.WeakKeyDictionary)
    succession: Succession = field(default_factory=Succession)
    script: str = field(default_factory=main_file)
    compiled_by_script: bool = False
    autocast: bool = False
    anomaly: bool = False  # while the last backward pass ran that was looked at closely
    differentiated_twice: bool = False
    framework: str = ""
    driver: Any = None
    loss: Any = None
    keep_loss: bool = False
    first_step: int = 0
    first_round: tuple[int, int] = (0, 0)  # of the loops then, and steps: see hasten.seams.schedule.rounds
    torch_started: int = 0
    torch_imported: int = 0
    clock_key: int = 0
    clock_name: str = "optimizer"
    others: int = 0  # steps of other optimizers since the clock's last one
    entered: OptimizerRecord | None = None  # the optimizer whose step runs, or has raised
    stepping: CodeType | None = None  # of torch's, around every step
    foreign_steps: int = 0
    notes: list[str] = field(default_factory=list)
    folder: str = ""  # the session's, where children get theirs
    replay: Any = None
    serve: Any = None
    new_pass: Callable[[LoaderRecord], Any] | None = None  # in a child: stands in for a loader's own iterator
    fetch: Any = None  # torch's own way to the next batch
    broken: bool = False
    forking: bool = False
    keeper: Any = None
    keeper_begun_anew: int = 0  # graphs that it was seen to hold, and held no longer afterwards
    allocated: list[int] = field(default_factory=list)  # bytes, in steps in a row, while the keeper gathers
    stamps: array[int] = field(default_factory=lambda: array("q", [0]))
    at_lighten: Callable[[], None] | None = None
    at_compile: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.clock)
        self.step_started = self.clock.now()
        self.beginning: OptimizerRecord | None = None
        self._followed: dict[LoaderRecord, int] = {}  # by backward passes that no step has used yet: their batches
        self._patience = BACKWARDS_WITHOUT_OPTIMIZER
        self._before = 0  # the optimizers' time when the running step of one began
        self._aside = Aside()

    # -- the beat ------------------------------------------------------------------------------------------------

    def begins(self) -> None:
        """The first step begins: what has passed so far was start-up, and is no step's."""
        if not self.steps:
            self.first_fetch = self.step_started = self.clock.now()
            self.clock.cut(self.first_fetch)
            self._aside = Aside()

    def optimizer_entered(self, optimizer: Any) -> None:
        """An optimizer's step begins."""
        if threading.get_ident() != self.clock.thread:
            if self.steps or self.clock.stack or self.broken:
                self.foreign_steps += 1
                return
            self._move_to_this_thread()
        record = self.optimizers.get(id(optimizer))
        if record is None or record.reference() is not optimizer:
            record = self.optimizers[id(optimizer)] = OptimizerRecord(weakref.ref(optimizer))
            if self.new_target is not None:
                self.new_target("optimizer", optimizer)
            self.beginning = record  # the model is known at the end: a closure calls it only now
            self.succession.about_to_begin(optimizer)
        elif record is not self.succession.newest:
            self.succession.returns += 1
        record.steps += 1
        if not self.light:
            if self.entered is record and self.clock.current == OPTIMIZER:
                self.clock.leave()  # its last step has raised, and torch calls no hook then
            self.entered = record
            self.clock.enter(OPTIMIZER)
            self._before = self.clock.so_far(OPTIMIZER)

    def calls_from(self, frame: FrameType | None) -> None:
        """Something is called while the end of an optimizer's step was not seen: where that is not on the way to
        ``frame``, it has raised, and the script goes on."""
        while frame is not None and frame.f_code is not self.stepping:
            frame = frame.f_back
        if frame is not None or self.stepping is None:
            return
        self.entered = None
        if self.clock.current == OPTIMIZER:
            self.clock.leave()

    def _move_to_this_thread(self) -> None:
        self.clock.thread = threading.get_ident()
        self.clock.stack.clear()
        self.clock.current = PYTHON
        self.begins()

    def optimizer_left(self, optimizer: Any) -> None:
        """An optimizer's step is over; a step ends if it is the clock."""
        clock = self.clock
        if threading.get_ident() != clock.thread:
            return
        if not self.light:
            clock.leave()
            record, self.entered = self.entered, None
            if record is not None and record.steps > FIRST:
                record.nanoseconds += max(0, clock.so_far(OPTIMIZER) - self._before)
        if self._followed:
            self._steps_use()
        if self.beginning is not None:
            record, self.beginning = self.beginning, None
            if record.optimizer is optimizer:
                self.succession.begin(record, optimizer, reversed(self.models.values()), self.steps)
        key = id(optimizer)
        if key != self.clock_key:
            self.others += 1
            if self._clock_ticks() and self.others < IDLE_CLOCK and not self._has_followed(optimizer):
                return
            self.clock_key, self.clock_name = key, "optimizer"
        self.others = 0
        self.boundary()

    def _clock_ticks(self) -> bool:
        """Whether the clock optimizer may step again: it is there, and the script has not done with it."""
        record = self.optimizers.get(self.clock_key) if self.clock_name == "optimizer" else None
        return record is not None and record.optimizer is not None

    def _has_followed(self, optimizer: Any) -> bool:
        """Whether it began last and has stepped again, and the clock not since: it is the next model's, in a loop over
        many."""
        newest = self.succession.newest
        began = newest is not None and newest.optimizer is optimizer and newest.steps > 1
        return began and self.steps == self.succession.began_at

    def backward_left(self) -> None:
        """A backward pass is over."""
        self.backwards += 1
        record = self.feeding
        if record is not None:
            counted = self.differentiated
            self._count_batch(record)
            if self._only_passes(record):
                self._followed[record] = self._followed.get(record, 0) + self.differentiated - counted
                self.differentiated = counted
            elif record is not self.trained_from:
                self._trains(record)
        if self.optimizers:
            return
        if self.clock_name == "backward":
            self.boundary()
        elif self.backwards < self._patience:
            self._aside.add(self.step_started, self.clock.last, self.clock.spent)
        elif self._patience < BACKWARDS_ACCUMULATED and optimizer_exists():
            self._patience = BACKWARDS_ACCUMULATED
            self._aside.add(self.step_started, self.clock.last, self.clock.spent)
        else:
            self._backward_ticks()

    def _backward_ticks(self) -> None:
        """Backward is the clock, and was so far: what was set aside were steps."""
        aside, self._aside = self._aside, Aside()
        for wall, *spent in aside.steps.records():
            self.add(wall, spent)
        self.step_started = aside.end or self.step_started
        self.clock.spent[:] = [a - b for a, b in zip(self.clock.spent, aside.spent, strict=True)]
        self.clock_name = "backward"
        self.boundary()

    def gradients_zeroed(self) -> None:
        """No step will use what has been differentiated so far."""
        self._followed.clear()

    def _steps_use(self) -> None:
        """An optimizer steps by gradients of these batches, too."""
        for record, batches in self._followed.items():
            self.differentiated += batches
            self._trains(record)
        self._followed.clear()

    def _count_batch(self, record: LoaderRecord) -> None:
        """Count a batch for a backward pass where one was asked for in this step that no pass before has used."""
        asked, record.used = record.batches - record.used, record.batches
        self._due = (self._due if self._due_in == self.steps else 0) + asked
        self._due_in = self.steps
        if self._due:
            self._due -= 1
            self.differentiated += 1

    @property
    def batches(self) -> float:
        """Batches of loaders that a step takes: more than one where gradients are accumulated; 1 without loaders."""
        return self.differentiated / self.steps if self.steps and self.differentiated else 1.0

    def boundary(self) -> None:
        """A step has ended."""
        driver = self.driver
        if driver is not None:
            driver.beat()
            return
        self.catch_up()
        clock = self.clock
        now = clock.now()
        wall, self.step_started = now - self.step_started, now
        self.add(wall, _NO_PHASES if self.light else clock.cut(now))
        if not self.light:
            self.read_memory()
        if self.steps >= self.next_call and self.at_step is not None:
            self._call_agent(now)

    def catch_up(self) -> None:
        """Make steps of the stamps that the hooks of a light watch have left since the last time; guards itself."""
        if len(self.stamps) < 2:
            return
        try:
            self._see(self.stamps)
        except Exception as error:
            self.fail(error)

    def _see(self, stamps: array[int]) -> None:
        for now in stamps[1:]:
            wall, self.step_started = now - self.step_started, now
            self.add(wall, _NO_PHASES)
        self.others = 0
        stamps[0] = now + STAMPS_FOR
        del stamps[1:]
        if self.steps >= self.next_call and self.at_step is not None:
            self._call_agent(now)

    def lighten(self) -> None:
        """From the next step on, time whole steps only: phases are known, and what the script calls is left alone."""
        self.light = True
        self.clock.evaluation(False)
        self.sampler.stop()
        if self.at_lighten is not None:
            self.at_lighten()

    def _call_agent(self, now: int) -> None:
        """Hasten's own work between two steps: nothing it calls is watched, none of its time is booked."""
        clock = self.clock
        thread, clock.thread = clock.thread, -1
        try:
            self.at_step(now)  # type: ignore[misc]
        except Departed:
            return
        except Exception as error:
            self.fail(error)
        finally:
            clock.thread = -1 if self.broken else thread
            now = clock.now()
            self.step_started = now
            clock.pause_until(now)
            self.sampler.skip()

    def fail(self, error: Exception) -> None:
        """Something of hasten's has failed: from here on the script runs as if it were not there."""
        if self.driver is not None:
            raise error  # a child is given up
        if self.broken:
            return
        from hasten.seams.guard import failed

        failed(self, error)
        self.broken = True
        self.clock.thread = -1  # no thread's; every wrapper calls the original and nothing else

    # -- what seams ask ------------------------------------------------------------------------------------------

    def record_of(self, loader: Any) -> LoaderRecord:
        record = self.loaders.get(id(loader))
        if record is None or record.loader() is not loader:
            record = self.loaders[id(loader)] = LoaderRecord(loader)
        return record

    def another_at(self, record: LoaderRecord, dataset: Any) -> None:
        """A loader is iterated for the first time: what those before it at its line were of."""
        self.iterated.setdefault(record.place, Iterated()).another(record, dataset)


def monotonic() -> int:
    """The clock that all processes of this machine share, nanoseconds."""
    return time.perf_counter_ns()

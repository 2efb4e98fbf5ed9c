"""Workers that take one job after the other: threads for the kernel, forked processes for what runs in Python."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch

from hasten.core.errors import HastenError, in_a_line
from hasten.fleet.described import loose_numbers
from hasten.fleet.modules import Factory
from hasten.fleet.recipe import Recipe
from hasten.fleet.schedule import Queue
from hasten.fleet.state import Layout, State
from hasten.fleet.store import Store, failed_state
from hasten.fleet.taken import refusal
from hasten.fleet.tasks import Job
from hasten.measure import machine


class Interrupted(BaseException):
    """Training ends here, and what is in flight stays so."""


@dataclass(frozen=True)
class Kind:
    """Models that differ only in their numbers.

    Attributes:
        name: tells kinds apart, also in a saved fleet.
        prototype: one of them.
        chain: what the kernel reads in it (a ``native.chain.Chain``); None where it cannot.
    """

    name: str
    prototype: torch.nn.Module
    layout: Layout
    row: tuple[int, ...]
    chain: Any = None
    why_no_chain: str = ""


@dataclass
class Run:
    """Everything that workers share.

    Attributes:
        kinds: of each job, by its index.
        resumed: models in flight when a run before this one was killed, with their slots.
        tell: called with (index, status, seconds) whenever a model is finished.
    """

    jobs: Sequence[Job]
    factory: Factory
    recipe: Recipe
    kinds: Sequence[Kind]
    queue: Queue
    store: Store
    workers: int
    resumed: dict[int, tuple[int, State]] = field(default_factory=dict)
    tell: Callable[[int, int, float], None] = lambda index, status, seconds: None
    initial: dict[int, State] = field(default_factory=dict)  # states to go on from (a fleet's update)

    def __post_init__(self) -> None:
        reserved = {slot for slot, _ in self.resumed.values()}
        self.free = [slot for slot in range(self.store.slots) if slot not in reserved]
        self.lock = threading.Lock()
        self.interrupted = threading.Event()

    def go_on(self) -> None:
        """Ends a thread's work where the run was interrupted: its model is neither finished nor failed.

        Raises:
            Interrupted: it was.
        """
        if self.interrupted.is_set():
            raise Interrupted

    def slot_for(self, index: int) -> int | None:
        """The slot of the store in which a job is kept while in flight; -1 where nothing is kept, None where all are
        taken, or wait for what was in flight when a run before this one was killed."""
        if not self.store.slots:
            return -1
        if index in self.resumed:
            return self.resumed[index][0]
        with self.lock:
            return self.free.pop() if self.free else None

    def give_back(self, slot: int) -> None:
        """A slot whose model has been finished."""
        if slot >= 0:
            with self.lock:
                self.free.append(slot)

    @property
    def resumable(self) -> bool:
        """Whether the optimizer's state can be held in flat rows."""
        return isinstance(self.recipe.optimizer, str)

    def module(self, job: Job) -> torch.nn.Module:
        """The job's module with its initial weights.

        Raises:
            HastenError: it is not of the kind that its key and settings promised.
        """
        module = self.factory(job)
        if Layout.of(module) != self.kinds[job.index].layout:
            raise HastenError(
                "make_model returned another module for this key than for keys with the same settings",
                "the factory counts its calls or draws its widths at random",
                'widths by settings={key: {"width": 32}} and make_model(width)',
            )
        if loose_numbers(module) != loose_numbers(self.kinds[job.index].prototype):
            raise HastenError(
                "make_model returned a module whose tensors outside of its state are not those of other keys",
                "random numbers kept as a plain attribute, or in a buffer with persistent=False",
                'self.register_buffer("features", torch.randn(8, 4))',
            )
        return module

    def start_of(self, job: Job) -> State | None:
        """The state a job goes on from; None to begin with its initial weights."""
        kept = self.resumed.get(job.index) if self.resumable else None
        return kept[1] if kept else self.initial.get(job.index)

    def finish(self, job: Job, state: State, seconds: float, before: int = 0) -> None:
        """Keep a finished model and tell."""
        state.seconds = seconds
        self.store.finish(job.index, state)
        self.queue.done(job, state.steps - before, seconds)
        self.tell(job.index, state.status, seconds)

    def failed(self, job: Job, error: BaseException | str) -> State:
        """What a job becomes that raised."""
        cause = error if isinstance(error, str) else in_a_line(error)
        if isinstance(error, IndexError):  # torch does not say which number, of which table
            with contextlib.suppress(Exception):
                rows = np.concatenate([job.epoch_order(0), job.held])
                cause = refusal(self.module(job).eval(), {}, job.task.X, rows) or cause
        return failed_state(self.recipe.epochs, self.kinds[job.index].layout.total, cause)


def in_threads(run: Run, work: Callable[[], Callable[[Job, int], State]]) -> None:
    """Work through the queue by threads; for engines that leave Python's lock while they compute.

    Args:
        work: makes a thread's own worker, which trains one job (given the slot it is kept in).
    """
    errors: list[BaseException] = []
    stop = run.interrupted

    def loop() -> None:
        try:
            train = work()
            while not stop.is_set() and (job := run.queue.pop()) is not None:
                _one(run, job, train)
        except BaseException as error:  # handed to the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=loop, daemon=True, name=f"fleet-{i}") for i in range(run.workers)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # a join without a limit would not let an interrupt through
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]


def _one(run: Run, job: Job, train: Callable[[Job, int], State]) -> None:
    slot = run.slot_for(job.index)
    assert slot is not None  # threads take what was in flight before anything else
    start = run.start_of(job)
    before = start.steps if start is not None else 0
    begun = time.perf_counter()
    try:
        state = train(job, slot)
    except Exception as error:
        state = run.failed(job, error)
    run.finish(job, state, time.perf_counter() - begun, before)
    run.give_back(slot)


# -- processes ---------------------------------------------------------------------------------------------------------


@dataclass
class Child:
    """A forked worker.

    Attributes:
        holds: jobs it is working on, with the slots they are kept in.
    """

    process: Any
    pipe: Connection
    holds: dict[int, int] = field(default_factory=dict)
    kind: Hashable = None


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt
LARGE = 32 << 20  # bytes of a piece that goes back to the system when it is freed; every glibc takes this much
Work = Callable[[Run, "Asker"], None]


class Asker:
    """A forked worker's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def more(self, count: int, kind: Hashable = None) -> list[tuple[int, int]]:
        """Up to ``count`` jobs as (index, slot); empty when none are left."""
        self.pipe.send(("more", count, kind))
        given: list[tuple[int, int]] = self.pipe.recv()
        return given

    def done(self, index: int, before: int, seconds: float) -> None:
        """Say that a job's record is complete."""
        self.pipe.send(("done", index, before, seconds))


def in_processes(run: Run, work: Work, alone: bool = True) -> None:
    """Work through the queue by forked processes. What they learn lies in the store's shared memory.

    A process that dies takes only its jobs with it: they are tried once more, each in a process of its own, unless it
    had been alone already.

    Args:
        work: runs in the child until ``Asker.more`` gives nothing.
        alone: whether a child works on one job at a time, so that its death names the guilty one.
    """
    again: list[int] = []
    children = [_fork(run, work) for _ in range(min(run.workers, max(len(run.queue), 1)))]
    try:
        _serve(run, work, children, again, alone)
        for index in again:
            run.queue.lanes.setdefault(run.queue.kind_of[index], []).append(run.jobs[index])
            children = [_fork(run, work)]
            _serve(run, work, children, [], True)
    finally:
        for child in children:
            child.process.kill()
            child.process.join()


def _fork(run: Run, work: Work) -> Child:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_child, args=(run, work, theirs, ours), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads in the parent: the child uses none of theirs
        process.start()
    theirs.close()
    return Child(process, ours)


def _child(run: Run, work: Work, pipe: Connection, other: Connection) -> None:
    other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    machine.die_with_parent()
    _keep_memory()
    torch.set_num_threads(1)
    try:
        work(run, Asker(pipe))
    except (EOFError, BrokenPipeError):  # the parent is gone
        os._exit(1)


def _keep_memory() -> None:
    """Let this process keep what it frees. By itself glibc gives large pieces back and takes them anew, so that every
    step pays for empty pages; a worker asks for the same sizes in each step, and ends soon."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, LARGE)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _serve(run: Run, work: Work, children: list[Child], again: list[int], alone: bool) -> None:
    while children:
        waiting = [c.pipe for c in children]
        for ready in wait(waiting):
            child = next(c for c in children if c.pipe is ready)
            try:
                message = child.pipe.recv()
            except (EOFError, ConnectionResetError):
                children.remove(child)
                _buried(run, child, again, alone)
                if child.process.exitcode and len(run.queue):
                    children.append(_fork(run, work))
                continue
            if message[0] == "more":
                child.pipe.send(_hand_out(run, child, message[1], message[2]))
            else:
                _booked(run, child, *message[1:])


def _hand_out(run: Run, child: Child, count: int, kind: Hashable) -> list[tuple[int, int]]:
    given: list[tuple[int, int]] = []
    while len(given) < count and (job := run.queue.pop(kind)) is not None:
        kind = run.queue.kind_of[job.index]  # a stack takes models of one kind
        slot = run.slot_for(job.index)
        if slot is None:
            run.queue.put_back(job)
            break
        given.append((job.index, slot))
    child.holds.update(given)
    return given


def _booked(run: Run, child: Child, index: int, before: int, seconds: float) -> None:
    run.give_back(child.holds.pop(index))
    record = run.store.records[index]
    steps, status = int(record[5]), int(record[9])
    run.queue.done(run.jobs[index], steps - before, seconds)
    run.tell(index, status, seconds)


def _buried(run: Run, child: Child, again: list[int], alone: bool) -> None:
    child.process.join()
    code = child.process.exitcode or 0
    for index, slot in child.holds.items():
        run.give_back(slot)
        if alone:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            run.finish(run.jobs[index], run.failed(run.jobs[index], f"its worker process ended by {how}"), 0.0)
        else:
            again.append(index)

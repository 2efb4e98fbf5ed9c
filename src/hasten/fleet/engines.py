"""The engines behind one door: each trains the jobs of a ``Run`` to their end and keeps them in its store."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from hasten.fleet.loop import LoopTrainer, Saved, drive, fresh
from hasten.fleet.native.engine import NativeTrainer
from hasten.fleet.stack_work import work as stack_work
from hasten.fleet.state import Floats, State
from hasten.fleet.tasks import Job
from hasten.fleet.workers import Asker, Run, in_processes, in_threads

ENGINES = ("native", "stacked", "loop")
IN_A_ROW = 15  # models whose initial weights are drawn ahead, at most
AHEAD_BYTES = 1 << 18  # that these may take


class Beginnings:
    """Where jobs begin. Initial weights are drawn for several jobs in a row.

    Drawing takes Python, whose own code and data the kernel has driven out of the caches when a model is trained. One
    after the other, all but the first find them there, and threads meet less often in front of Python's lock.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.drawn: dict[int, Floats] = {}
        self.lock = threading.Lock()

    def of(self, job: Job) -> State:
        """The state that a job begins with."""
        with self.lock:
            weights = self.drawn.pop(job.index, None)
            if weights is None:
                state = start_of(self.run, job)
                room = min(IN_A_ROW, AHEAD_BYTES // max(state.flat[0].nbytes, 1))
                for other in self.run.queue.coming(job, room):
                    self._draw(other)
                return state
        state = State(self.run.recipe.epochs, len(weights))
        state.flat[0] = weights
        return state

    def _draw(self, job: Job) -> None:
        if job.index not in self.drawn and self.run.start_of(job) is None:
            with contextlib.suppress(Exception):  # it raises again in its own turn
                self.drawn[job.index] = start_of(self.run, job).flat[0].copy()


def native(run: Run) -> None:
    """Threads, each with the kernel's workspace in its core's cache."""
    beginnings = Beginnings(run)
    most = max(job.most for job in run.jobs)

    def work() -> Callable[[Job, int], State]:
        trainers: dict[str, NativeTrainer] = {}

        def train(job: Job, slot: int) -> State:
            kind = run.kinds[job.index]
            if kind.name not in trainers:
                trainers[kind.name] = NativeTrainer(kind.chain, kind.layout, run.recipe, most=most)
                trainers[kind.name].checked = run.go_on
            trainer = trainers[kind.name].take(job)
            return drive(job, beginnings.of(job), run.recipe, trainer, saver(run, job, slot))

        return train

    in_threads(run, work)


def loop(run: Run) -> None:
    """Forked processes, each running the plain PyTorch loop."""
    in_processes(run, _loop_child)


def _loop_child(run: Run, asker: Asker) -> None:
    while given := asker.more(1):
        ((index, slot),) = given
        job = run.jobs[index]
        begun = time.perf_counter()
        try:
            start = start_of(run, job)
            before = start.steps
            state = drive(
                job, start, run.recipe, LoopTrainer(run.module(job), run.kinds[index].layout, job, run.recipe),
                saver(run, job, slot) if run.resumable else None,
            )  # fmt: skip
        except Exception as error:
            state, before = run.failed(job, error), 0
        state.seconds = time.perf_counter() - begun
        run.store.finish(index, state)
        asker.done(index, before, state.seconds)


def start_of(run: Run, job: Job) -> State:
    """Where a job begins: where it was left, or with its module's own initial weights."""
    kept = run.start_of(job)
    if kept is not None:
        return kept
    return fresh(run.module(job), run.kinds[job.index].layout, run.recipe)


def saver(run: Run, job: Job, slot: int) -> Saved | None:
    """Keeps a job's state after each epoch; None where there is no journal."""
    if slot < 0:
        return None
    return lambda state: run.store.save(slot, job.index, state)


def stacked(run: Run) -> None:
    """Forked processes, each with a stack that is kept full."""
    in_processes(run, stack_work, alone=False)


BY_NAME: dict[str, Callable[[Run], None]] = {"native": native, "stacked": stacked, "loop": loop}

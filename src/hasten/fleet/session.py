"""One call of ``fit`` under way: engines are chosen, models trained, and what came of them gathered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hasten.fleet import engines, identity, planner, remarks
from hasten.fleet.files import recipe_json
from hasten.fleet.fleet import Fleet
from hasten.fleet.frames import SKIP, raw
from hasten.fleet.modules import Factory
from hasten.fleet.planner import Choice
from hasten.fleet.recipe import Recipe
from hasten.fleet.schedule import Queue, lower_bound
from hasten.fleet.stacked import WIDTH
from hasten.fleet.state import FAILED, RUNNING, STOPPED, State
from hasten.fleet.store import Store, alone, peek
from hasten.fleet.summary import Progress, Row, Summary
from hasten.fleet.tasks import Job, Task, jobs_of
from hasten.fleet.times import Times
from hasten.fleet.workers import Kind, Run

Watch = Callable[[Progress], None]


class Session:
    """One call of ``fit``: its jobs, their kinds, and the engines chosen for them."""

    def __init__(
        self,
        factory: Factory,
        recipe: Recipe,
        tasks: Mapping[str, Task],
        settings: Mapping[str, Mapping[str, Any]],
        engine: str,
        workers: int,
        shortest_first: bool = False,
    ) -> None:
        self.factory, self.recipe, self.tasks, self.settings = factory, recipe, tasks, settings
        self.engine, self.workers, self.shortest_first = engine, workers, shortest_first
        self.jobs = jobs_of(tasks, recipe, settings)
        self.refused: Mapping[str, str] = {}  # keys whose module could not be made, with the cause
        self.kinds: list[Kind] = []
        self.choices: dict[str, Choice] = {}
        self.store: Store | None = None
        self.before: set[int] = set()  # jobs that a run before this one has finished
        self.taken: dict[int, int] = {}  # steps of those that it has begun
        self.columns: dict[str, Any] = {}  # how ``fit`` was told to read its data
        self.gaps = SKIP  # of ``frames.GAPS``

    def read(self, data: Any) -> tuple[dict[str, Any], dict[str, Times]]:
        """New data in the form ``fit`` was given: key to (X, y), or to a piece of a series; and the times of rows."""
        return raw(data, self.recipe, **self.columns)

    def take_over(self, fleet: Fleet) -> None:
        """Go on with a loaded fleet's modules and engines; engines are chosen anew where its own cannot run here."""
        read: dict[str, Kind] = {}
        for row in fleet.summary().rows:
            name = fleet.places.get(row.key, ("", 0))[0]
            if name and name not in read:
                chain, why = planner.read_chain(fleet.kinds[name], self.recipe)
                read[name] = replace(fleet.kinds[name], chain=chain, why_no_chain=why)
                self.choices[name] = Choice(row.engine)
        self.kinds = [read[fleet.places[job.key][0]] for job in self.jobs]
        for name, kind in read.items():
            if self.choices[name].engine == "native" and kind.chain is None:
                mine = [job for job, held in zip(self.jobs, self.kinds, strict=True) if held.name == name]
                self.choices[name] = planner.choose(kind, mine, self.factory, self.recipe, "auto")

    def train(self, journal: Path | None, progress: Watch | None) -> Fleet:
        """Choose engines, train, and gather the fleet.

        Raises:
            UsageError: another call is at work on the journal, or it is another fleet's.
            HastenError: the journal's disk is full.
        """
        with alone(journal):
            return self._train(journal, progress)

    def _train(self, journal: Path | None, progress: Watch | None) -> Fleet:
        begun = peek(journal).get("engines", {})
        self._plan(begun)
        self.store = self._store(journal)
        start = time.perf_counter()
        if self.jobs:
            self._run(progress, start)
        self.store.flush()
        return self._fleet(time.perf_counter() - start)

    # -- planning ------------------------------------------------------------------------------------------------------

    def _plan(self, begun: Mapping[str, str]) -> None:
        kinds, self.refused = planner.kinds_of(self.jobs, self.factory)
        self.jobs = [job for job in self.jobs if job.key not in self.refused]
        self.jobs = [replace(job, index=index) for index, job in enumerate(self.jobs)]
        read: dict[str, Kind] = {}
        for kind in kinds:
            if kind.name not in read:
                chain, why = planner.read_chain(kind, self.recipe)
                read[kind.name] = replace(kind, chain=chain, why_no_chain=why)
        self.kinds = [read[kind.name] for kind in kinds]
        for name, kind in read.items():
            mine = [job for job, held in zip(self.jobs, self.kinds, strict=True) if held.name == name]
            going_on = self.engine == "auto" and name in begun
            asked = begun[name] if going_on else self.engine
            choice = planner.choose(kind, mine, self.factory, self.recipe, asked)
            self.choices[name] = replace(choice, asked="as the journal was begun") if going_on else choice

    def _store(self, journal: Path | None) -> Store:
        known = identity.of(self) if journal is not None else {}
        wide = any(choice.engine == "stacked" for choice in self.choices.values())
        slots = max(self.workers, 4) * (WIDTH if wide else 1)
        return Store([kind.layout.total for kind in self.kinds], self.recipe.epochs, slots, journal, known)

    # -- training ------------------------------------------------------------------------------------------------------

    def _run(self, progress: Watch | None, start: float) -> None:
        assert self.store is not None
        finished = self.before = {job.index for job in self.jobs if self.store.finished(job.index) is not None}
        resumed = {i: kept for i, kept in self.store.in_flight_states().items() if i not in finished}
        self.taken = {i: state.steps for i, (_, state) in resumed.items()}
        watcher = Watcher(self, progress, start)
        for name in engines.ENGINES:
            mine = [
                job
                for job in self.jobs
                if self.choices[self.kinds[job.index].name].engine == name and job.index not in finished
            ]
            if not mine:
                continue
            queue = Queue(mine, [self.kinds[j.index].name for j in mine], self.recipe, self.shortest_first)
            queue.before_others({j.index for j in mine if j.index in resumed})
            fits = self.store.slots // (WIDTH if name == "stacked" else 1)
            workers = min(self.workers, fits) if self.store.slots else self.workers
            run = Run(
                self.jobs, self.factory, self.recipe, self.kinds, queue, self.store, workers, resumed, watcher.tell
            )
            watcher.queue, watcher.later = queue, watcher.later - len(mine)
            engines.BY_NAME[name](run)

    # -- what came of it -----------------------------------------------------------------------------------------------

    def _fleet(self, seconds: float) -> Fleet:
        assert self.store is not None
        by_key = {job.key: job for job in self.jobs}
        rows, places, work = [], {}, []
        groups: dict[str, list[Any]] = {kind.name: [] for kind in self.kinds}
        for key, task in self.tasks.items():
            if key not in by_key:
                cause = task.why_not or self.refused[key]
                rows.append(Row(key, task.rows, "", "", np.nan, np.nan, 0, 0, False, 0.0, cause))
                continue
            job = by_key[key]
            state = self.store.finished(job.index)  # one at a time: each holds a model's whole state
            assert state is not None
            if job.index not in self.before:
                work.append(state.seconds)
            kind = self.kinds[job.index].name
            rows.append(_row(job, kind, self.choices[kind].engine, state))
            if state.status != FAILED:
                places[key] = (kind, len(groups[kind]))
                groups[kind].append(job.index)
        summary = Summary(
            tuple(rows),
            {name: choice.sentence() for name, choice in self.choices.items()},
            recipe_json(self.recipe),
            self.workers,
            seconds,
            lower_bound(work, self.workers),
            sum(work),
            sum(self.loop_seconds(job.index) for job in self.jobs if job.index not in self.before),
            remarks=remarks.of_tasks(self.tasks),
            before=len(self.before),
        )
        kinds = {kind.name: kind for kind in self.kinds}
        weights = {n: self.store.stacked(g, kinds[n].layout.total) for n, g in groups.items()}
        scales = {k: (t.shift, t.scale) for k, t in self.tasks.items() if t.scale != 1.0 or t.shift}
        return Fleet(self.recipe, kinds, weights, places, summary, scales, self.settings, self)

    def loop_seconds(self, index: int) -> float:
        """Seconds that the plain loop would take on one core for what a job was trained in this run; 0 unknown."""
        assert self.store is not None
        choice = self.choices[self.kinds[index].name]
        if not (step := choice.seconds_per_step.get("loop", 0.0)):
            return 0.0
        begins = 0.0 if index in self.taken else choice.loop_begins
        return begins + step * (float(self.store.records[index, 5]) - self.taken.get(index, 0))


class Watcher:
    """Counts finished models and tells whoever listens."""

    def __init__(self, session: Session, listen: Watch | None, start: float) -> None:
        self.session, self.listen, self.start = session, listen, start
        self.queue: Queue | None = None
        self.later = len(session.jobs) - len(session.before)  # jobs of engines that have not begun
        assert session.store is not None
        statuses = session.store.statuses()[sorted(session.before)]
        self.done, self.before = len(statuses), len(statuses)
        self.stopped, self.failed = int((statuses == STOPPED).sum()), int((statuses == FAILED).sum())
        self.work = self.loop = 0.0
        self.lock = threading.Lock()

    def tell(self, index: int, status: int, seconds: float) -> None:
        """A model is finished. Called by several threads."""
        with self.lock:
            self._book(index, status, seconds)

    def _book(self, index: int, status: int, seconds: float) -> None:
        assert status != RUNNING
        self.done += 1
        self.stopped += status == STOPPED
        self.failed += status == FAILED
        self.work += seconds
        self.loop += self.session.loop_seconds(index)
        if self.listen is None:
            return
        session, waiting = self.session, len(self.queue) if self.queue is not None else 0
        left = self.queue.left() / session.workers if self.queue is not None else float("nan")
        training = max(0, len(session.jobs) - self.done - waiting - self.later)
        elapsed = time.perf_counter() - self.start
        self.listen(
            Progress(
                len(session.jobs), self.done, training, self.stopped, self.failed, elapsed, self.work, left,
                self.loop, self.before,
            )
        )  # fmt: skip


def _row(job: Job, kind: str, engine: str, state: State) -> Row:
    best = state.best_epoch
    loss = float(state.losses[0, best - 1]) if best else state.loss
    return Row(
        job.key, job.rows, kind, engine, loss, state.best if best else float("nan"), state.epoch, best,
        state.status == STOPPED, state.seconds, state.cause,
    )  # fmt: skip

"""Growing windows: a fleet learns new rows at a cost that does not grow with its history.

Full retraining visits every row again, so its cost grows with every iteration. Here each iteration visits a fixed
number of rows: a share from the newest block, the rest drawn from the whole history (replay; Robins 1995). How much
should come from the newest block depends on drift, which is not known beforehand: so a few shares are followed side
by side, and for each key the one with the lowest prequential error (Dawid 1984: predict the new rows first, then
learn them) predicts until the next iteration.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from hasten.core.errors import UsageError, in_a_line
from hasten.fleet import arrived, engines, remarks, streams
from hasten.fleet.arrays import Array
from hasten.fleet.frames import SKIP
from hasten.fleet.history import Rows, parts_of, task_of
from hasten.fleet.loop import batch_of
from hasten.fleet.naive import naive_loss
from hasten.fleet.recipe import counted
from hasten.fleet.schedule import Queue
from hasten.fleet.state import FAILED, Floats, State
from hasten.fleet.store import Store
from hasten.fleet.summary import predicted_sentence
from hasten.fleet.taken import refusal
from hasten.fleet.tasks import Job, Task
from hasten.fleet.times import Times, longer
from hasten.fleet.workers import Kind, Run

if TYPE_CHECKING:
    from hasten.fleet.fleet import Fleet
    from hasten.fleet.session import Session

SHARES = (0.25, 0.5, 1.0)  # of the visits that go to the newest block
BATCHES = 20  # visits an iteration, in batches
WORST = 1e30  # an error counts for no more, so that it can be forgotten
FORGET = 0.9  # weight of the past in the prequential error


@dataclass(frozen=True)
class Update:
    """What one iteration came to.

    Attributes:
        rows: new ones, over all keys. visits: rows trained on, for one key and one share.
        seconds: of wall time.
        error: mean loss of the new rows before they were learned.
        shares: how many keys are now predicted for by each share.
        predicted: for ``refit="full"``: seconds that the next 1, 10 and 100 iterations with as many new rows will take.
        failed: key to cause; these keep the weights they had.
        remarks: what was learned all the same and may not be what was meant.
    """

    rows: int
    visits: int
    seconds: float
    error: float
    shares: Mapping[float, int]
    predicted: Mapping[int, float] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass
class Line:
    """One key's history and its candidates.

    Attributes:
        parts: X and y, or one standardised series.
        states: (weights and moments) by share.
        errors: prequential, by share; one more where something else predicts for this key until a share beats it.
        until: the time of the last row, as of a ``Task``. breaks: likewise, of all rows known.
        iteration: how many updates have learned rows of this key; it tells their random numbers apart.
    """

    job: Job
    parts: list[Rows]
    states: list[State]
    errors: list[float]
    until: float = -math.inf
    iteration: int = 0
    breaks: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.breaks = list(self.job.task.breaks)

    def task(self) -> Task:
        """Everything known, as a task of views."""
        return task_of([part.rows for part in self.parts], self.job.task, self.breaks)

    def add(self, given: Sequence[Array], times: Times | None, gaps: str) -> None:
        """Append rows.

        Args:
            times: (rows,), when they were, in order, where that is known.
            gaps: of ``frames.GAPS``.
        """
        if times is not None and len(times):
            since = np.concatenate([[self.until if np.isfinite(self.until) else times[0]], times])
            if self.job.task.series and gaps == SKIP:
                new = np.flatnonzero(longer(since, self.job.task.usual))
                self.breaks += (new + self.parts[0].count).tolist()
            self.until = float(times[-1])
        for part, more in zip(self.parts, given, strict=True):
            part.add(more)

    @property
    def best(self) -> int:
        """Number of the candidate with the lowest error."""
        return int(np.argmin(self.errors))


class Growing:
    """The histories and candidates of a fleet, from its first update on."""

    def __init__(self, session: Session, shares: Sequence[float], lines: Mapping[str, Line]) -> None:
        self.session, self.shares, self.lines = session, tuple(shares), dict(lines)
        self.recipe = replace(session.recipe, epochs=1, stop=None)

    @classmethod
    def begin(cls, fleet: Fleet, shares: Sequence[float]) -> Growing:
        """Candidates start from what predicts for their key, or from its own weights where that is no network."""
        lines = {}
        for job in fleet.session.jobs:
            if job.key not in fleet.places:
                continue
            kind, row = fleet.places[job.key]
            naive = fleet.is_naive(job.key)
            weights = fleet.weights[kind][row] if naive else fleet.weights_of(job.key)
            states = [State(1, len(weights)) for _ in shares]
            for state in states:
                state.flat[0] = weights
            parts = [Rows(part) for part in parts_of(job.task)]
            lines[job.key] = Line(job, parts, states, [0.0] * (len(states) + naive), job.task.until)
        return cls(fleet.session, shares, lines)


def update(
    fleet: Fleet,
    new_rows: Any,
    *,
    visits: int = 0,
    shares: Sequence[float] | None = None,
    refit: str = "flat",
) -> Update:
    """Learn new rows.

    Args:
        new_rows: as ``tasks`` of ``fit``: a mapping ``key -> (X, y)`` or ``key -> values of a series`` (only the new
            ones), or a data frame with the same columns. Keys without new rows are left as they are.
        visits: rows trained on in this iteration, for each key and share; 20 batches unless given.
        shares: of the visits that go to the newest block; each is followed by weights of its own, so the cost is that
            of ``len(shares)`` networks a key. Chosen in a fleet's first update, (0.25, 0.5, 1.0) unless given.
        refit: ``"flat"``, or ``"full"`` to train anew on the whole history, whose cost grows with it (``predicted``
            says how).

    Returns:
        what it came to. The fleet predicts with the new weights from now on.

    Raises:
        UsageError: the fleet was saved without its history, its loss or optimizer was a callable and was not given to
            ``Fleet.load``, or a key is unknown.
    """
    if refit not in ("flat", "full"):
        raise UsageError(f"refit={refit!r}", "a typing error", 'refit="flat" or refit="full"')
    visits = counted("visits", visits)
    if shares is not None and (not shares or not all(0 < share <= 1 for share in shares)):
        raise UsageError(f"shares={shares!r}", "each is a share of the visits", "shares=(0.25, 0.5, 1.0)")
    fleet.reopen()
    growing: Growing = fleet._growing or Growing.begin(fleet, shares or SHARES)
    if shares and tuple(shares) != growing.shares:
        raise UsageError(
            f"shares={tuple(shares)!r}, and this fleet follows {growing.shares!r}", "the first update chooses them",
            "no shares, or the same",
        )  # fmt: skip
    start = time.perf_counter()
    new = arrived.of(growing, new_rows)
    told = remarks.of_new(growing.lines, new, growing.session.gaps)
    with arrived.undone_by_errors(growing.lines.values()):
        error, firsts, strange = _predict_then_append(growing, new.parts, new.times)
        rows = sum(len(growing.lines[key].task().learnable(first)) for key, first in firsts.items())
        if refit == "full":
            done = _full(fleet, growing, rows, error, start)
        else:
            done = _flat(fleet, growing, firsts, rows, error, visits or BATCHES * growing.recipe.batch_size, start)
    fleet._growing = growing
    for key in firsts:
        growing.lines[key].iteration += 1
    done = replace(done, failed={**new.failed, **strange, **done.failed}, remarks=told)
    fleet._summary = replace(fleet._summary, updates=(*fleet._summary.updates, asdict(done)))
    if done.predicted:
        print(predicted_sentence(asdict(done)))
    return done


def _flat(
    fleet: Fleet, growing: Growing, firsts: Mapping[str, int], rows: int, error: float, visits: int, start: float
) -> Update:  # fmt: skip
    learned: list[tuple[State, Floats, int]] = []
    failed = _train(growing, firsts, visits, learned)
    for state, flat, steps in learned:  # not before all of them are: what is interrupted has changed nothing
        state.flat[:3], state.numbers[1] = flat, steps
    chosen = _serve(fleet, growing, firsts, failed)
    return Update(rows, visits, time.perf_counter() - start, error, chosen, {}, failed)


def _predict_then_append(
    growing: Growing, parts: Mapping[str, list[Array]], times: Mapping[str, Times]
) -> tuple[float, dict[str, int], dict[str, str]]:  # fmt: skip
    """Book the prequential error of every share; the first new row of each key, and causes where predicting failed."""
    losses, firsts, failed = [], {}, {}
    for key, given in parts.items():
        line = growing.lines[key]
        before = line.task().rows
        task = line.task()
        rows = task.learnable(before)  # none, before there are
        try:
            with arrived.undone_by_errors([line]):
                line.add(given, times.get(key), growing.session.gaps)
                task = line.task()
                rows = task.learnable(before)
                loss = _booked(growing, line, task, rows) if len(rows) else math.nan
        except Exception as error:
            kind = growing.session.kinds[line.job.index]
            views = kind.layout.views(line.states[0].flat[0])
            failed[key] = refusal(kind.prototype.eval(), views, task.X, rows) or in_a_line(error)
            continue
        if len(rows):
            firsts[key] = before
            losses.append(loss)
    return float(np.mean(losses)) if losses else float("nan"), firsts, failed


def _booked(growing: Growing, line: Line, task: Task, rows: npt.NDArray[np.int64]) -> float:
    """Book every candidate's error on a key's new rows; the error of the one that predicted so far."""
    job = replace(line.job, task=task)
    each = [_loss(growing, job, state.flat[0], rows) for state in line.states]
    if len(line.errors) > len(each):
        each.append(naive_loss(growing.recipe, task, task.X[rows], task.y[rows]))
    each = [loss if loss < WORST else WORST for loss in each]
    served = each[len(each) - 1 if not any(line.errors) else line.best]
    line.errors = [FORGET * old + (1 - FORGET) * new for old, new in zip(line.errors, each, strict=True)]
    return served


def _loss(growing: Growing, job: Job, row: Floats, rows: npt.NDArray[np.int64]) -> float:
    kind = growing.session.kinds[job.index]
    X, y = batch_of(job, rows)
    with torch.no_grad():
        out = torch.func.functional_call(kind.prototype.eval(), kind.layout.views(row), (X,))
        return float(growing.recipe.loss(out, y))


def _train(
    growing: Growing, firsts: Mapping[str, int], visits: int, learned: list[tuple[State, Floats, int]]
) -> dict[str, str]:
    """One iteration of all shares of all keys with new rows; causes of those that failed. A key's shares come one after
    the other: what its history was fetched for once is still near.

    Args:
        learned: gets each candidate with the weights, moments and steps that it is to take over.
    """
    session = growing.session
    jobs: list[Job] = []
    kinds: list[Kind] = []
    initial: dict[int, State] = {}
    candidates: list[State] = []
    for key, first in firsts.items():
        line = growing.lines[key]
        task = line.task()
        known = task.learnable() if task.breaks else None  # others are all of them
        old, all_ = (first, task.rows) if known is None else (int((known < first).sum()), len(known))
        for number, share in enumerate(growing.shares):
            order = _mixed(line.job.stream, old, all_, visits, share, line.iteration, number)
            order = order if known is None else known[order]
            own = line.job.stream
            drawn = streams.of_update(own, line.iteration, number)
            job = replace(line.job, index=len(jobs), task=task, rows=len(task.y), train=None, order=order)
            job = replace(job, stream=drawn, made_by=own)
            state = State(1, line.states[number].flat.shape[1])
            state.flat[:] = line.states[number].flat
            state.numbers[1] = line.states[number].steps
            initial[job.index] = state
            jobs.append(job)
            kinds.append(session.kinds[line.job.index])
            candidates.append(line.states[number])
    if not jobs:
        return {}
    store = Store([kind.layout.total for kind in kinds], 1, 0, None, {}, moments=True)
    _engines(session, jobs, kinds, growing, store, initial)
    failed = {}
    for job, candidate in zip(jobs, candidates, strict=True):
        ended = store.finished(job.index)
        assert ended is not None
        if ended.status == FAILED:
            failed[job.key] = ended.cause
            continue
        learned.append((candidate, store.moments_of(job.index), ended.steps))
    return failed


def _engines(
    session: Session, jobs: list[Job], kinds: list[Kind], growing: Growing, store: Store, initial: dict[int, State]
) -> None:
    for name in engines.ENGINES:
        mine = [job for job, kind in zip(jobs, kinds, strict=True) if session.choices[kind.name].engine == name]
        if mine:
            queue = Queue(mine, [kinds[j.index].name for j in mine], growing.recipe)
            run = Run(jobs, session.factory, growing.recipe, kinds, queue, store, session.workers, initial=initial)
            engines.BY_NAME[name](run)


def _mixed(
    stream: int, first: int, rows: int, visits: int, share: float, iteration: int, number: int
) -> npt.NDArray[np.int64]:
    """Row numbers to visit: a share of them new ones, the others drawn from all that came before; shuffled."""
    new = visits if first == 0 else round(visits * share)
    drawn = streams.words(stream, 2 * visits, streams.REPLAY, iteration, number)
    newest = first + np.resize(np.arange(rows - first), new)  # each new row as often as any other
    replayed = (drawn[:visits].astype(np.int64) * first) >> 32
    order = np.concatenate([newest, replayed[: visits - new]])
    shuffled: npt.NDArray[np.int64] = order[streams.order_of(drawn[visits:])]
    return shuffled


def _serve(
    fleet: Fleet, growing: Growing, firsts: Mapping[str, int], failed: Mapping[str, str]
) -> dict[float, int]:  # fmt: skip
    for key in firsts:
        line = growing.lines[key]
        if key not in failed and line.best < len(line.states):
            fleet.own_weights(key, line.states[line.best].flat[0])
            del line.errors[len(line.states) :]
    chosen = [line.best for line in growing.lines.values()]
    return {share: chosen.count(number) for number, share in enumerate(growing.shares)}


def _full(fleet: Fleet, growing: Growing, rows: int, error: float, start: float) -> Update:
    """Train anew on everything, as ``fit`` would; series keep the scale that they had at first."""
    from hasten.fleet.session import Session

    old = growing.session
    tasks = {key: line.task() for key, line in growing.lines.items()}
    settings = {key: own for key, own in old.settings.items() if key in tasks}
    session = Session(old.factory, old.recipe, tasks, settings, old.engine, old.workers)
    again = session.train(None, None)
    seconds = time.perf_counter() - start
    for key in again:
        fleet.own_weights(key, again.weights_of(key))
        line = growing.lines[key]
        del line.errors[len(line.states) :]  # nothing else predicts for it any more
        for state in line.states:
            state.flat[0], state.flat[1:3], state.numbers[1] = again.weights_of(key), 0, 0
    history = max(sum(len(task.y) for task in tasks.values()), 1)
    per_row = seconds / history
    predicted = {n: sum((history + i * rows) * per_row for i in range(1, n + 1)) for n in (1, 10, 100)}
    return Update(rows, history, seconds, error, {}, predicted, again.failed)

"""Growing windows: a fleet learns new rows at a cost that does not grow with its history.

Full retraining visits every row again, so its cost grows with every iteration. Here each iteration visits a fixed
number of rows: a share from the newest block, the rest drawn from the whole history (replay; Robins 1995). How much
should come from the newest block depends on drift, which is not known beforehand: so a few shares are followed side
by side, and for each key the one with the lowest prequential error (Dawid 1984: predict the new rows first, then
learn them) predicts until the next iteration.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from hasten.core.errors import UsageError
from hasten.fleet import engines, streams
from hasten.fleet.loop import batch_of
from hasten.fleet.schedule import Queue
from hasten.fleet.state import FAILED, Floats, State
from hasten.fleet.store import Store
from hasten.fleet.tasks import Array, Job, Task
from hasten.fleet.workers import Kind, Run

if TYPE_CHECKING:
    from hasten.fleet.fit import Session
    from hasten.fleet.fleet import Fleet

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
    """

    rows: int
    visits: int
    seconds: float
    error: float
    shares: Mapping[float, int]
    predicted: Mapping[int, float] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


class Rows:
    """An array that grows at its end; appending costs what is appended, in the long run."""

    def __init__(self, first: Array) -> None:
        self.space = np.array(first)
        self.count = len(first)

    def add(self, more: Array) -> None:
        """Append rows of the same shape."""
        need = self.count + len(more)
        if need > len(self.space):
            larger = np.empty((max(need, 2 * len(self.space)), *self.space.shape[1:]), self.space.dtype)
            larger[: self.count] = self.space[: self.count]
            self.space = larger
        self.space[self.count : need] = more
        self.count = need

    @property
    def rows(self) -> Array:
        """A view of what is there."""
        return self.space[: self.count]


@dataclass
class Line:
    """One key's history and its candidates.

    Attributes:
        parts: X and y, or one standardised series.
        states: (weights and moments) by share.
        errors: prequential, by share.
    """

    job: Job
    parts: list[Rows]
    window: int
    horizon: int
    states: list[State]
    errors: list[float]
    held: int = 0  # rows that had been held out when the fleet was fitted; learned from the first update on

    def task(self) -> Task:
        """Everything known, as a task of views."""
        old = self.job.task
        if not self.window:
            return Task(self.parts[0].rows, self.parts[1].rows, old.gap, old.season, old.shift, old.scale)
        view, series = np.lib.stride_tricks.sliding_window_view, self.parts[0].rows
        X, y = view(series[: len(series) - self.horizon], self.window), view(series[self.window :], self.horizon)
        return Task(X, y, old.gap, old.season, old.shift, old.scale)


class Growing:
    """The histories and candidates of a fleet, from its first update on."""

    def __init__(self, fleet: Fleet, shares: Sequence[float]) -> None:
        session: Session = fleet.session
        self.session, self.shares, self.iteration = session, tuple(shares), 0
        self.recipe = replace(session.recipe, epochs=1, stop=None)
        self.lines = {job.key: self._line(fleet, job) for job in session.jobs if job.key in fleet.places}

    def _line(self, fleet: Fleet, job: Job) -> Line:
        X, y = job.task.X, job.task.y
        window = X.shape[1] if X.ndim == 2 and X.strides[0] == X.strides[1] == 4 and X.base is not None else 0
        horizon = y.shape[1] if window else 0
        if window and len(X):
            count = len(X) + window + horizon - 1
            series = np.empty(count, np.float32)
            series[: len(X) + window - 1] = np.lib.stride_tricks.as_strided(X, (len(X) + window - 1,), (4,))
            series[-(len(y) + horizon - 1) :] = np.lib.stride_tricks.as_strided(y, (len(y) + horizon - 1,), (4,))
            parts = [Rows(series)]
        else:
            window = horizon = 0
            parts = [Rows(X), Rows(y)]
        states = []
        for _ in self.shares:
            state = State(1, len(fleet.weights_of(job.key)))
            state.flat[0] = fleet.weights_of(job.key)
            states.append(state)
        return Line(job, parts, window, horizon, states, [0.0] * len(self.shares))


def update(
    fleet: Fleet, new_rows: Any, *, visits: int = 0, shares: Sequence[float] = SHARES, refit: str = "flat"
) -> Update:
    """Learn new rows.

    Args:
        new_rows: as ``tasks`` of ``fit``: a mapping ``key -> (X, y)`` or ``key -> values of a series`` (only the new
            ones), or a data frame with the same columns. Keys without new rows are left as they are.
        visits: rows trained on in this iteration, for each key and share; 20 batches unless given.
        shares: of the visits that go to the newest block; each is followed by weights of its own, so the cost is that
            of ``len(shares)`` networks a key.
        refit: ``"flat"``, or ``"full"`` to train anew on the whole history, whose cost grows with it (``predicted``
            says how).

    Returns:
        what it came to. The fleet predicts with the new weights from now on.

    Raises:
        UsageError: the fleet was loaded from a file (which holds no history), or a key is unknown.
    """
    if fleet.session is None:
        raise UsageError(
            "a loaded fleet has no history to draw from",
            "files hold weights only",
            "update the fleet that fit returned",
        )
    if refit not in ("flat", "full"):
        raise UsageError(f"refit={refit!r}", "a typing error", 'refit="flat" or refit="full"')
    if fleet._growing is None:
        fleet._growing = Growing(fleet, shares)
    growing: Growing = fleet._growing
    start = time.perf_counter()
    fresh_rows = _new_rows(growing, new_rows)
    error, firsts = _predict_then_append(growing, fresh_rows)
    rows = sum(len(growing.lines[key].task().y) - first for key, first in firsts.items())
    visits = visits or BATCHES * growing.recipe.batch_size
    if refit == "full":
        return _full(fleet, growing, firsts, rows, error, start)
    growing.iteration += 1
    failed: dict[str, str] = {}
    for number, share in enumerate(growing.shares):
        failed |= _train(growing, number, share, firsts, visits)
    chosen = _serve(fleet, growing, firsts, failed)
    return Update(rows, visits, time.perf_counter() - start, error, chosen, {}, failed)


def _new_rows(growing: Growing, data: Any) -> dict[str, list[Array]]:
    """New rows by key, standardised where the series were."""
    found = growing.session.read(data)
    strange = sorted(set(found) - set(growing.lines))
    if strange:
        raise UsageError(
            f"{strange[0]!r} is not in the fleet", "a new key, or one that failed", "fit a fleet for new keys"
        )
    parts: dict[str, list[Array]] = {}
    for key, given in found.items():
        line = growing.lines[key]
        if line.window:
            task = line.job.task
            values = (np.asarray(given, np.float64).reshape(-1) - task.shift) / task.scale
            parts[key] = [values.astype(np.float32)]
        else:
            parts[key] = [np.asarray(a, p.space.dtype) for a, p in zip(given, line.parts, strict=True)]
        if not all(np.isfinite(a).all() for a in parts[key]):
            raise UsageError(f"new rows of {key!r} hold NaN or infinity", "gaps in the data", "leave these rows out")
    return parts


def _predict_then_append(growing: Growing, parts: Mapping[str, list[Array]]) -> tuple[float, dict[str, int]]:
    """Book the prequential error of every share; the first new row of each key."""
    losses, firsts = [], {}
    for key, given in parts.items():
        line = growing.lines[key]
        before = len(line.task().y)
        for part, more in zip(line.parts, given, strict=True):
            part.add(more)
        task = line.task()
        if len(task.y) <= before:
            continue
        firsts[key] = before
        job = replace(line.job, task=task)
        rows = np.arange(before, len(task.y))
        each = [_loss(growing, job, state.flat[0], rows) for state in line.states]
        each = [loss if loss < WORST else WORST for loss in each]
        losses.append(each[_best(line)])
        line.errors = [FORGET * old + (1 - FORGET) * new for old, new in zip(line.errors, each, strict=True)]
    return float(np.mean(losses)) if losses else float("nan"), firsts


def _best(line: Line) -> int:
    return int(np.argmin(line.errors))


def _loss(growing: Growing, job: Job, row: Floats, rows: npt.NDArray[np.int64]) -> float:
    kind = growing.session.kinds[job.index]
    X, y = batch_of(job, rows)
    with torch.no_grad():
        out = torch.func.functional_call(kind.prototype.eval(), kind.layout.views(row), (X,))
        return float(growing.recipe.loss(out, y))


def _train(
    growing: Growing, number: int, share: float, firsts: Mapping[str, int], visits: int
) -> dict[str, str]:  # fmt: skip
    """One iteration of one share for all keys with new rows; causes of those that failed."""
    session = growing.session
    jobs: list[Job] = []
    kinds: list[Kind] = []
    initial: dict[int, State] = {}
    for key, first in firsts.items():
        line = growing.lines[key]
        task = line.task()
        order = _mixed(line.job.stream, first, len(task.y), visits, share, growing.iteration, number)
        job = replace(line.job, index=len(jobs), task=task, rows=len(task.y), train=None, order=order)
        state = State(1, line.states[number].flat.shape[1])
        state.flat[:] = line.states[number].flat
        state.numbers[1] = line.states[number].steps
        initial[job.index] = state
        jobs.append(job)
        kinds.append(session.kinds[line.job.index])
    if not jobs:
        return {}
    store = Store([kind.layout.total for kind in kinds], 1, 0, None, {}, moments=True)
    _engines(session, jobs, kinds, growing, store, initial)
    failed = {}
    for job in jobs:
        ended = store.finished(job.index)
        assert ended is not None
        if ended.status == FAILED:
            failed[job.key] = ended.cause
            continue
        state = growing.lines[job.key].states[number]
        state.flat[:3] = store.moments_of(job.index)
        state.numbers[1] = ended.steps
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
    drawn = streams.words(stream, 2 * visits, streams.REPLAY, iteration, number).astype(np.int64)
    newest = first + np.resize(np.arange(rows - first), new)  # each new row as often as any other
    replayed = (drawn[:visits] * first) >> 32
    order = np.concatenate([newest, replayed[: visits - new]])
    shuffled: npt.NDArray[np.int64] = order[np.argsort(drawn[visits:], kind="stable")]
    return shuffled


def _serve(
    fleet: Fleet, growing: Growing, firsts: Mapping[str, int], failed: Mapping[str, str]
) -> dict[float, int]:  # fmt: skip
    for key in firsts:
        line = growing.lines[key]
        if key not in failed:
            kind, row = fleet.places[key]
            fleet.weights[kind][row] = line.states[_best(line)].flat[0]
    chosen = [_best(line) for line in growing.lines.values()]
    return {share: chosen.count(number) for number, share in enumerate(growing.shares)}


def _full(
    fleet: Fleet, growing: Growing, firsts: Mapping[str, int], rows: int, error: float, start: float
) -> Update:  # fmt: skip
    """Train anew on everything, as ``fit`` would."""
    from hasten.fleet.fit import Session

    old = growing.session
    tasks = {key: line.task() for key, line in growing.lines.items()}
    session = Session(old.factory, old.recipe, tasks, old.settings, old.engine, old.workers)
    again = session.train(None, None)
    seconds = time.perf_counter() - start
    for key in again:
        kind, row = fleet.places[key]
        fleet.weights[kind][row] = again.weights_of(key)
        for state in growing.lines[key].states:
            state.flat[0], state.flat[1:3], state.numbers[1] = again.weights_of(key), 0, 0
    history = max(sum(len(task.y) for task in tasks.values()), 1)
    per_row = seconds / history
    predicted = {n: sum((history + i * rows) * per_row for i in range(1, n + 1)) for n in (1, 10, 100)}
    return Update(rows, history, seconds, error, {}, predicted, again.failed)

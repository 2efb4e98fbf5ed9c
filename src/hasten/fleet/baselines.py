"""Is a network of its own worth it for each key? Two cheap answers to compare with, on the same held-out rows.

The seasonal-naive forecast repeats the last season. The global model is one network of the same form trained on the
rows of all keys, which for many short or similar series is the better choice (Montero-Manso and Hyndman 2021).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hasten.core.errors import HastenError
from hasten.fleet import streams
from hasten.fleet.arrays import Array
from hasten.fleet.described import signature
from hasten.fleet.loop import EVAL_ROWS, batches
from hasten.fleet.naive import naive_loss
from hasten.fleet.recipe import Recipe
from hasten.fleet.state import Floats
from hasten.fleet.tasks import OWN as OF_A_KEY
from hasten.fleet.tasks import Job, Task

if TYPE_CHECKING:
    from hasten.fleet.fleet import Fleet
    from hasten.fleet.session import Session

SHARE = 0.1  # of the fleet's own rows, all epochs together, that the global model sees
LEAST = 20_000  # rows it sees at least, where there are as many
OWN, GLOBAL, NAIVE = "own", "global", "naive"


def compare(fleet: Fleet, session: Session, keep: bool) -> Mapping[str, Any]:
    """Fit the baselines and put what they found into the fleet's summary.

    Args:
        keep: let the better baseline predict for keys for which it is better than their own network.

    Returns:
        ``own``, ``global``, ``naive``: for how many keys each is best on the held-out rows; ``losses``: key to the
        loss of each; ``share``: of the rows that the global model has seen; ``seconds``.
    """
    start = time.perf_counter()
    losses: dict[str, dict[str, float]] = {}
    jobs = [job for job in session.jobs if job.key in fleet.places]
    forms = {session.kinds[job.index].name for job in jobs}
    share = _share(fleet, jobs)
    shared = _global(session, jobs, share) if len(forms) == 1 and jobs else None
    for job in jobs:
        kind, row = fleet.places[job.key]
        held = session.kinds[job.index]
        X, y = job.task.X[job.held], job.task.y[job.held]
        found = {OWN: _loss(session.recipe, held, fleet.weights[kind][row], X, y)}
        if shared is not None:
            found[GLOBAL] = _loss(session.recipe, held, shared, X, y)
        if job.task.series:
            found[NAIVE] = naive_loss(session.recipe, job.task, X, y)
        losses[job.key] = found
    best = {key: min(found, key=lambda name: found[name]) for key, found in losses.items()}
    worth = {name: sum(b == name for b in best.values()) for name in (OWN, GLOBAL, NAIVE)}
    if keep:
        _keep(fleet, session, best, shared)
    result = {**worth, "losses": losses, "share": share, "seconds": time.perf_counter() - start, "kept": keep}
    said = (_sentence(result, jobs[0].task.season),) if jobs else ()
    fleet._summary = replace(fleet._summary, worth=result, remarks=(*fleet._summary.remarks, *said))
    return result


def _sentence(result: Mapping[str, Any], season: int) -> str:
    losses, share = result["losses"], result["share"]
    names = {
        OWN: "its own network",
        GLOBAL: "one global network" + (f" that has seen {share:.0%} of the rows" if share < 1 else ""),
        NAIVE: "the seasonal-naive forecast" if season > 1 else "the last value, repeated",
    }
    fitted = {name for found in losses.values() for name in found}
    parts = [f"{result[name]} by {names[name]}" for name in names if name in fitted]
    return f"best on held-out rows, of {len(losses)} keys: " + ", ".join(parts)


def _share(fleet: Fleet, jobs: Sequence[Job]) -> float:
    """Of all rows, what the global model sees."""
    visits = sum(row.epochs * row.rows for row in fleet.summary().rows)
    rows = max(SHARE * visits / fleet.recipe.epochs, LEAST)
    return min(1.0, rows / max(sum(job.rows for job in jobs), 1))


def _global(session: Session, jobs: Sequence[Job], share: float) -> Floats | None:
    """The weights of one network trained on a sample of all keys' training rows and, as theirs were, stopped early by
    held-out ones; None where that failed, or where the factory makes another network for it than for the keys."""
    from hasten.fleet.session import Session

    X, y, count = _pooled(jobs, share)
    own = [session.settings.get(job.key, {}) for job in jobs]
    common = {
        name: own[0][name] for name in OF_A_KEY if name in own[0] and all(o.get(name) == own[0][name] for o in own)
    }
    settings = {GLOBAL: {**jobs[0].settings, **common}}  # one key's learning rate is not for the rows of all
    alone = Session(session.factory, session.recipe, {GLOBAL: Task(X, y)}, settings, session.engine, 1)
    train, held = np.arange(count), np.arange(count, len(y))
    alone.jobs = [replace(job, rows=count, train=train, held=held) for job in alone.jobs]
    try:
        trained = alone.train(None, None)
    except HastenError:  # a factory that makes models for its own keys only
        return None
    if GLOBAL not in trained or signature(alone.kinds[0].prototype) != signature(
        session.kinds[jobs[0].index].prototype
    ):
        return None
    return trained.weights_of(GLOBAL)


def _pooled(jobs: Sequence[Job], share: float) -> tuple[Array, Array, int]:
    """A sample of the rows trained on, and behind it one of those held out: X, y, and how many are of the first."""
    trained: list[tuple[Array, Array]] = []
    held: list[tuple[Array, Array]] = []
    for job in jobs:
        order = job.epoch_order(0)  # shuffled: its beginning is a sample
        drawn = job.held[streams.permutation(job.stream, len(job.held), 0, streams.SAMPLE)]
        for rows, into in ((order, trained), (drawn, held)):
            rows = rows[: max(1, round(len(rows) * share))]
            into.append((job.task.X[rows], job.task.y[rows]))
    X, y = (np.concatenate([pair[part] for pair in (*trained, *held)]) for part in (0, 1))
    return X, y, sum(len(pair[1]) for pair in trained)


def _loss(recipe: Recipe, kind: Any, weights: Floats, X: Array, y: Array) -> float:
    tensors = kind.layout.views(np.ascontiguousarray(weights))
    total = 0.0
    with torch.no_grad():
        for rows in batches(np.arange(len(y)), EVAL_ROWS):
            out = torch.func.functional_call(kind.prototype.eval(), tensors, (torch.from_numpy(X[rows]),))
            total += float(recipe.loss(out, torch.from_numpy(y[rows]))) * len(rows)
    return total / max(len(y), 1)


def _keep(fleet: Fleet, session: Session, best: Mapping[str, str], shared: Floats | None) -> None:
    rows: dict[str, int] = {}  # of the global weights, by kind
    jobs = {job.key: job for job in session.jobs}
    for key, source in best.items():
        kind, _ = fleet.places[key]
        if source == GLOBAL and shared is not None:
            if kind not in rows:
                fleet.weights[kind] = np.concatenate([fleet.weights[kind], shared[None]])
                rows[kind] = len(fleet.weights[kind]) - 1
            fleet.stand_ins[key] = (kind, rows[kind])
        elif source == NAIVE:
            task = jobs[key].task
            fleet.stand_ins[key] = (fleet.naive_kind(task.row[0], task.columns, task.season), 0)
    summary = fleet.summary()
    fleet._summary = replace(summary, rows=tuple(replace(r, source=best.get(r.key, OWN)) for r in summary.rows))

"""What a saved fleet needs to be updated: its rows, and the candidates that updates follow, as tensors and columns.

Rows of all keys with the same shapes lie one behind the other in one tensor, in the order of the table; the table says
how many are each key's. The weights and moments of candidates lie in one tensor a kind, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hasten.core.errors import UsageError
from hasten.fleet.arrays import Array
from hasten.fleet.frames import JOIN
from hasten.fleet.history import Rows, parts_of, task_of
from hasten.fleet.modules import Factory
from hasten.fleet.state import State
from hasten.fleet.tasks import Task

if TYPE_CHECKING:
    from hasten.fleet.fleet import Fleet
    from hasten.fleet.growing import Growing

Document = dict[str, Any]


def write(fleet: Fleet, rows: Sequence[Document], tensors: dict[str, Array]) -> Document:
    """Add the history to what a file will hold.

    Args:
        rows: of the table; gets a key's columns.
        tensors: gets the arrays.

    Returns:
        what the file's head must say of it.
    """
    session, growing = fleet.session, fleet._growing
    forms: list[Document] = []
    pieces: list[list[list[Array]]] = []
    candidates: dict[str, list[Array]] = {}
    for row in rows:
        key = row["key"]
        row |= {"form": -1, "history_rows": 0, "gap": 0, "season": 0, "steps": [], "errors": []}
        row |= {"until": -math.inf, "usual": math.nan, "breaks": [], "iteration": 0}
        if key not in fleet.places:
            continue
        line = growing.lines[key] if growing is not None else None
        task = session.tasks[key] if line is None else line.task()
        form = {"series": task.series, "X": task.X.shape[1:], "y": task.y.shape[1:], "dtype": task.y.dtype.str}
        if form not in forms:
            forms.append(form)
            pieces.append([])
        parts = parts_of(task)
        pieces[forms.index(form)].append(parts)
        row |= {"form": forms.index(form), "history_rows": len(parts[0]), "gap": task.gap, "season": task.season}
        row |= {"until": task.until if line is None else line.until, "usual": task.usual, "breaks": list(task.breaks)}
        if line is not None:
            row |= {"steps": [state.steps for state in line.states], "errors": line.errors}
            row["iteration"] = line.iteration
            flats = candidates.setdefault(fleet.places[key][0], [])
            flats.append(np.stack([state.flat[:3] for state in line.states]))
    for number, held in enumerate(pieces):
        for part, arrays in enumerate(zip(*held, strict=True)):
            tensors[f"history/{number}/{part}"] = np.concatenate(arrays)
    for kind, held_states in candidates.items():
        tensors[f"candidates/{kind}"] = np.stack(held_states)
    head: Document = {"forms": forms, "columns": session.columns, "gaps": session.gaps}
    return head if growing is None else {**head, "shares": growing.shares}


def read(
    fleet: Fleet,
    saved: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    tensors: Mapping[str, Array],
    factory: Factory,
    lost: Sequence[str],
) -> None:
    """Give a loaded fleet its session, and the state of its updates, back.

    Raises:
        UsageError: the loss or the optimizer was a callable and is ``lost``.
    """
    from hasten.fleet.session import Session
    from hasten.measure import machine

    if lost:
        were = "was a callable" if len(lost) == 1 else "were callables"
        raise UsageError(
            f"the fleet's {' and '.join(lost)} {were}, which no file keeps",
            "Fleet.load was not given it again",
            f"Fleet.load(path, make_model, {', '.join(f'{name}=…' for name in lost)})",
        )
    tasks = _tasks(saved, rows, tensors)
    settings = {key: own for key, own in fleet.settings.items() if key in tasks}
    session = Session(factory, fleet.recipe, tasks, settings, "auto", machine.cores())
    session.columns, session.gaps = dict(saved["columns"]), saved.get("gaps", JOIN)
    session.take_over(fleet)
    fleet.session = session
    if "shares" in saved:
        fleet._growing = _growing(fleet, saved, rows, tensors)


def _tasks(
    saved: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], tensors: Mapping[str, Array]
) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    at = [0] * len(saved["forms"])
    for row in rows:
        number = row["form"]
        if number < 0:
            continue
        form = saved["forms"][number]
        start = at[number]
        at[number] = end = start + row["history_rows"]
        parts = [tensors[f"history/{number}/{part}"][start:end] for part in range(1 if form["series"] else 2)]
        X, y = np.empty((0, *form["X"]), np.float32), np.empty((0, *form["y"]), form["dtype"])
        scaled = {name: row[name] for name in ("gap", "season", "shift", "scale")}
        times = {"until": row.get("until", -math.inf), "usual": row.get("usual", math.nan)}
        like = Task(X, y, **scaled, **times, series=form["series"])
        tasks[row["key"]] = task_of(parts, like, row.get("breaks") or ())
    return tasks


def _growing(
    fleet: Fleet, saved: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], tensors: Mapping[str, Array]
) -> Growing:  # fmt: skip
    from hasten.fleet.growing import Growing, Line

    jobs = {job.key: job for job in fleet.session.jobs}
    lines: dict[str, Line] = {}
    taken: dict[str, int] = {}
    for row in rows:
        if row["form"] < 0:
            continue
        kind = row["weights"]
        flats = tensors[f"candidates/{kind}"][taken.setdefault(kind, 0)]
        taken[kind] += 1
        states = []
        for flat, steps in zip(flats, row["steps"], strict=True):
            state = State(1, flat.shape[1])
            state.flat[:3], state.numbers[1] = flat, steps
            states.append(state)
        job = jobs[row["key"]]
        parts = [Rows(part) for part in parts_of(job.task)]
        lines[job.key] = Line(
            job, parts, states, list(row["errors"]), job.task.until, row.get("iteration") or saved.get("iteration", 0)
        )
    return Growing(fleet.session, saved["shares"], lines)

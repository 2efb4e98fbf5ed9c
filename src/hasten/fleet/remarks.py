"""What is told of data that can be learned and may not be what was meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from hasten.fleet.frames import SKIP
from hasten.fleet.tasks import Task
from hasten.fleet.times import longer, repeated

if TYPE_CHECKING:
    from hasten.fleet.arrived import Arrived
    from hasten.fleet.growing import Line


def of_tasks(tasks: Mapping[str, Task]) -> tuple[str, ...]:
    """About the times of series, and features that float32 does not hold."""
    return tuple(filter(None, (_gaps(tasks), _irregular(tasks), _repeated(tasks), _disorder(tasks), _rounded(tasks))))


def of_new(lines: Mapping[str, Line], arrived: Arrived, gaps: str) -> tuple[str, ...]:
    """About new rows that are known already, and about the times of new rows of series.

    Args:
        lines: what is known of each key, with the time of the last row before these.
        gaps: of ``frames.GAPS``.
    """
    late: dict[str, int] = {}
    same: dict[str, int] = {}
    for key, new in arrived.times.items():
        line = lines[key]
        if not line.job.task.series or not len(new):
            continue
        since = np.concatenate([[line.until], new]) if np.isfinite(line.until) else new
        late[key], same[key] = int(longer(since, line.job.task.usual).sum()), repeated(new)
    late, same = ({key: count for key, count in each.items() if count} for each in (late, same))
    found = []
    if arrived.known:
        keys = f"{len(arrived.known)} {'key' if len(arrived.known) == 1 else 'keys'}"
        found.append(
            f"the new rows of {keys} begin with the last ones known, the same at the same times, which are not learned "
            f"again: {sum(arrived.known.values())} rows ({_first(arrived.known)})"
        )
    if late:
        found.append(
            f"{_keys(late)} rows in time: {sum(late.values())} steps from the last known row on are longer than usual "
            f"({_first(late)}); windows over them are {'left out' if gaps == SKIP else 'learned like others'}"
        )
    return (*found, *filter(None, [_of_one_time(same)]))


def _gaps(tasks: Mapping[str, Task]) -> str:
    found = {key: task for key, task in tasks.items() if task.over_gaps}
    if not found:
        return ""
    first, task = next(iter(found.items()))
    count, of = sum(task.over_gaps for task in found.values()), sum(task.rows for task in found.values())
    skipped = any(task.breaks for task in found.values())
    way = "fill in what is missing, or gaps='join' (--gaps join)"
    done = f"are left out: {way}" if skipped else "are learned like others"
    return (
        f"{_keys(found)} rows in time: {count} of their {of} windows go over a step that is longer than usual "
        f"({first}: {task.over_gaps} of {task.rows}) and {done}"
    )


def _irregular(tasks: Mapping[str, Task]) -> str:
    found = [key for key, task in tasks.items() if task.irregular]
    if not found:
        return ""
    have = "key has" if len(found) == 1 else "keys have"
    return (
        f"{len(found)} {have} no usual step in time ({found[0]}: its steps are of more than two lengths), so no row "
        "can be told to be missing: all windows are learned, and they count rows, not time"
    )


def _repeated(tasks: Mapping[str, Task]) -> str:
    return _of_one_time({key: task.repeated for key, task in tasks.items() if task.repeated})


def _of_one_time(counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    have = "key has" if len(counts) == 1 else "keys have"
    return (
        f"{len(counts)} {have} several rows of one time: {sum(counts.values())} rows are of the same time as the one "
        f"before ({_first(counts)}); they are taken to follow each other, so add them up, or make a key of each series"
    )


def _disorder(tasks: Mapping[str, Task]) -> str:
    found = {key: task.disorder for key, task in tasks.items() if task.disorder}
    if not found:
        return ""
    first, column = next(iter(found.items()))
    have = "key" if len(found) == 1 else "keys"
    return (
        f"the rows of {len(found)} {have} ({first}) are not in the order of column {column!r}, and windows take "
        f"them as they come: time_column={column!r}, or --time {column}, sorts them"
    )


def _rounded(tasks: Mapping[str, Task]) -> str:
    found = {key: task.rounded for key, task in tasks.items() if task.rounded}
    if not found:
        return ""
    first, column = next(iter(found.items()))
    return (
        f"networks see float32, which rounds {column} ({first}) by more than a thousandth of what its values differ "
        "by, as it does with times in seconds: take an offset away first"
    )


def _keys(found: Collection[str]) -> str:
    return f"{len(found)} {'key lacks' if len(found) == 1 else 'keys lack'}"


def _first(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key}: {count}" for key, count in list(counts.items())[:1])

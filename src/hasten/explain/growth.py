"""Does a step take longer, or hold more memory, the longer the training runs? And which line?"""

from __future__ import annotations

import ast
import linecache
import math
import sys
from types import FrameType
from typing import Any

import numpy as np

from hasten.core.interval import Interval
from hasten.core.trace import Growth, Place
from hasten.measure.slope import theil_sen
from hasten.seams.locate import SampleKey, is_users, locals_of, place_of_line, shown
from hasten.seams.watch import Watch
from hasten.seams.window import WARM, Window

LEAST_RECORDS = 60  # fewer steps say nothing about growth
MATTERS = 0.10  # growth over the run, as a share of the step at its start, below which it is not reported
LEAST_BYTES = 8 << 20  # memory growth over the run below which it is not reported
BYTES_PER_STEP = 4096.0
LONG_GRAPH = 20  # a value whose graph is deeper than this many sums was accumulated


class GrowthWatch:
    """Looks, between two steps, for variables that keep graphs alive."""

    def __init__(self, watch: Watch, window: Window) -> None:
        self.watch = watch
        self.look()

    def look(self) -> None:
        found = find_graph_keeper(sys._getframe())
        if found is not None:
            self.watch.keeper = found


def growth(watch: Watch, window: Window) -> Growth:
    """Slopes with intervals; the line and variable if something grows."""
    records = watch.records()[WARM:]
    if len(records) < LEAST_RECORDS:
        return Growth()
    walls = [r[0] / 1e9 for r in records]
    slope = theil_sen(walls).scaled(1.0 / watch.fold)
    steps = len(walls) * watch.fold
    start = float(np.median(walls[: max(10, len(walls) // 10)]))
    relative = slope.value * steps / start if start > 0 else math.nan
    certain = slope.low * steps / start if start > 0 else 0.0
    memory = _memory_slope(watch)
    leaks = memory is not None and memory.low > BYTES_PER_STEP and memory.low * steps > LEAST_BYTES
    grows = certain > MATTERS
    place, seconds = _grown_line(window) if grows else (None, math.nan)
    variable, where = ("", None)
    if leaks or grows:
        keeper = watch.keeper
        if keeper is not None:
            variable, where = keeper
    return Growth(slope, memory, relative, grows, leaks, place, seconds, variable, where)


def _memory_slope(watch: Watch) -> Interval | None:
    late = [(s, b) for s, b in watch.memory if s > watch.steps // 4]
    if len(late) < 12:
        return None
    per_reading = theil_sen([b for _, b in late], "B")
    every = (late[-1][0] - late[0][0]) / (len(late) - 1)
    return per_reading.scaled(1.0 / every)


def _grown_line(window: Window) -> tuple[Place | None, float]:
    """The line whose seconds per step grew most: late profile minus early profile."""
    (early_steps, early), (late_steps, late) = window.early, window.late
    if not early_steps or not late_steps:
        return None, math.nan
    change: dict[tuple[str, int], float] = {}
    codes: dict[tuple[str, int], SampleKey] = {}
    for steps, profile, sign in ((early_steps, early, -1), (late_steps, late, 1)):
        for key, seconds in profile.items():
            line = (key[1].co_filename, key[2])
            change[line] = change.get(line, 0.0) + sign * seconds / steps
            codes[line] = key
    if not change:
        return None, math.nan
    line = max(change, key=lambda x: change[x])
    return place_of_line(codes[line][1], line[1]), change[line]


def find_graph_keeper(frame: FrameType | None) -> tuple[str, Place | None] | None:
    """A variable of the user's frames that keeps many steps' graphs alive: a running sum, or a list of losses."""
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            for scope in (locals_of(frame), frame.f_globals):
                name = next((n for n, v in list(scope.items()) if keeps_graphs(v)), None)
                if name is not None:
                    return name, _assignment(frame, name)
        frame = frame.f_back
    return None


def keeps_graphs(value: Any) -> bool:
    """Whether a value holds the graphs of many steps."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.grad_fn is not None and _sums(value.grad_fn) >= LONG_GRAPH
    if isinstance(value, list) and len(value) >= LONG_GRAPH:
        return all(isinstance(v, torch.Tensor) and v.grad_fn is not None for v in value[-LONG_GRAPH:])
    return False


def _sums(node: Any) -> int:
    """Length of the chain of additions that ends in ``node`` (``total = total + loss``)."""
    length = 0
    while node is not None and type(node).__name__.startswith("Add") and length < 4 * LONG_GRAPH:
        length += 1
        following = [f for f, _ in node.next_functions if f is not None]
        node = next((f for f in following if type(f).__name__.startswith("Add")), None)
    return length


def _assignment(frame: FrameType, name: str) -> Place | None:
    """The line that adds to a variable: ``name += …``, ``name = name + …``, ``name.append(…)``."""
    filename = frame.f_code.co_filename
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and _is(node.target, name):
            return _at(filename, node, frame)
        if (
            isinstance(node, ast.Assign)
            and any(_is(t, name) for t in node.targets)
            and any(_is(n, name) for n in ast.walk(node.value))
        ):
            return _at(filename, node, frame)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "append"
            and _is(node.func.value, name)
        ):
            return _at(filename, node, frame)
    return None


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _at(filename: str, node: ast.stmt | ast.expr, frame: FrameType) -> Place:
    text = linecache.getline(filename, node.lineno).rstrip("\n")
    return Place(
        shown(filename), node.lineno, frame.f_code.co_name, text, node.col_offset + 1, (node.end_col_offset or 0) + 1
    )

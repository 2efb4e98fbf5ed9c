"""What a fleet remembers of its data: arrays that grow at their end, and how they become tasks again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hasten.fleet.arrays import Array, windows_of
from hasten.fleet.tasks import Task

LINE = 64  # bytes


class Rows:
    """An array that grows at its end; appending costs what is appended, in the long run."""

    def __init__(self, first: Array) -> None:
        self.space = _in_lines(first.shape, first.dtype)
        self.space[...] = first
        self.count = len(first)

    def add(self, more: Array) -> None:
        """Append rows of the same shape."""
        need = self.count + len(more)
        if need > len(self.space):
            larger = _in_lines((max(need, 2 * len(self.space)), *self.space.shape[1:]), self.space.dtype)
            larger[: self.count] = self.space[: self.count]
            self.space = larger
        self.space[self.count : need] = more
        self.count = need

    @property
    def rows(self) -> Array:
        """A view of what is there."""
        return self.space[: self.count]


def _in_lines(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array that begins where a line of the caches does: rows are replayed in no order, and one of 16 numbers that
    does not lie across two lines costs one of them."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    space = np.empty(size + LINE - 1, np.uint8)
    start = -space.ctypes.data % LINE
    found: Array = space[start : start + size].view(dtype).reshape(shape)
    return found


def parts_of(task: Task) -> list[Array]:
    """X and y; for windows of a series the standardised series itself, (rows,), float32. Views, no copies."""
    if not task.series:
        return [task.X, task.y]
    count = len(task.X) + task.X.shape[1] + task.y.shape[1] - 1
    return [np.lib.stride_tricks.as_strided(task.X, (count,), (4,))]  # X and y are views of this one array


def task_of(parts: Sequence[Array], like: Task, breaks: Sequence[int] = ()) -> Task:
    """The task that these parts are, with everything else as in ``like`` (whose rows and breaks do not count)."""
    if not like.series:
        return replace(like, X=parts[0], y=parts[1])
    X, y = windows_of(parts[0], like.row[0], like.columns)
    return Task(
        X, y, like.gap, like.season, like.shift, like.scale, like.why_not, series=True,
        breaks=tuple(breaks), until=like.until, usual=like.usual,
    )  # fmt: skip

"""A tape as the kernel reads it: operations over buffers whose places are shared by what does not live at once."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

(
    POINTS, REDUCE, NORM, NORM_BACK, PRODUCT, CONVOLVE, CONVOLVE_WEIGHT, MASK, SCAN, SCAN_BACK, POOL, POOL_BACK, TAKE,
    TAKE_BACK,
) = range(14)  # fmt: skip
POINT = (
    "copy", "add", "sub", "mul", "div", "neg", "abs", "sqrt", "rsqrt", "exp", "log", "sigmoid", "tanh", "erf", "relu",
    "maximum", "minimum", "lt", "le", "gt", "ge", "eq", "ne", "where", "not", "and", "or", "pow", "sin", "cos",
    "log1p", "expm1", "sign", "trunc", "floor", "threshold_backward", "atan",
)  # fmt: skip
LONGEST = 48  # functions of a chain, so that its registers stay in the first-level cache
LINE = 16  # floats of a cache line
DIRECT, ONE, GATHERED = range(3)


@dataclass(eq=False)
class Buffer:
    """Numbers that an operation makes and others take.

    Attributes:
        space: 0 between operations; else an array of the caller's, where it lies at ``offset`` of a model's row.
    """

    size: int
    space: int = 0
    offset: int = 0


@dataclass(frozen=True)
class View:
    """A part of a buffer, as a tensor."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether its numbers lie in a row."""
        return all(n == 1 or s == t for n, s, t in zip(self.shape, self.stride, row_major(self.shape), strict=True))

    def over(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Its strides where it is stretched to ``shape``."""
        lead = len(shape) - len(self.shape)
        own = (s if n > 1 else 0 for n, s in zip(self.shape, self.stride, strict=True))
        return (*[0] * lead, *own)


@dataclass
class Operation:
    """What the kernel does at once.

    Attributes:
        words: numbers, and views in place of where they begin.
    """

    kind: int
    words: list[Any]
    reads: Sequence[View]
    writes: Sequence[View]


@dataclass
class Point:
    """One function of each element. takes: views, and numbers."""

    name: str
    shape: tuple[int, ...]
    takes: tuple[View | float, ...]
    into: View


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of an array that lies in a row."""
    found, step = [], 1
    for n in reversed(shape):
        found.append(step)
        step *= n
    return tuple(reversed(found))


def fresh(shape: Iterable[int]) -> View:
    """A new array."""
    shape = tuple(shape)
    size = 1
    for n in shape:
        size *= n
    return View(Buffer(size), 0, shape, row_major(shape))


# -- chains of functions ----------------------------------------------------------------------------------------------


@dataclass
class Chain:
    """Functions of one shape in a row, of which only the last results, and those that others take, are written."""

    shape: tuple[int, ...]
    points: list[Point] = field(default_factory=list)

    def takes(self, point: Point) -> bool:
        """Whether a function can follow here: what it takes of this chain it takes element by element."""
        if point.shape != self.shape or len(self.points) >= LONGEST:
            return False
        made = {p.into.buffer: p.into for p in self.points}
        for view in point.takes:
            if isinstance(view, View) and view.buffer in made:
                own = made[view.buffer]
                if own.offset != view.offset or not own.plain or _dense(view, self.shape) != _dense(own, self.shape):
                    return False
        return point.into.buffer not in made


def _dense(view: View, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s for n, s in zip(shape, view.over(shape), strict=True) if n > 1)


def needed(steps: Sequence[Operation | Point]) -> list[Operation | Point]:
    """Without functions of whose results nobody takes any."""
    taken: set[Buffer] = set()
    found = []
    for step in reversed(steps):
        if isinstance(step, Point) and not step.into.buffer.space and step.into.buffer not in taken:
            continue
        views = step.takes if isinstance(step, Point) else step.reads
        taken |= {view.buffer for view in views if isinstance(view, View)}
        found.append(step)
    return found[::-1]


def chained(steps: Sequence[Operation | Point]) -> list[Operation]:
    """Join functions that follow each other."""
    made: list[Operation | Chain] = []
    for step in needed(steps):
        if isinstance(step, Operation):
            made.append(step)
        elif made and isinstance(made[-1], Chain) and made[-1].takes(step):
            made[-1].points.append(step)
        else:
            made.append(Chain(step.shape, [step]))
    last: dict[Buffer, int] = {}  # where each buffer is taken for the last time
    for number, each in enumerate(made):
        views = each.reads if isinstance(each, Operation) else [v for p in each.points for v in p.takes]
        last |= {v.buffer: number for v in views if isinstance(v, View)}
    return [e if isinstance(e, Operation) else _points(e, number, last) for number, e in enumerate(made)]


def _points(chain: Chain, number: int, last: dict[Buffer, int]) -> Operation:
    made = {p.into.buffer for p in chain.points}
    leaves: dict[tuple[Buffer, int, tuple[int, ...]], View] = {}
    numbers: dict[float, None] = {}
    for p in chain.points:
        for take in p.takes:
            if not isinstance(take, View):
                numbers[take] = None
            elif take.buffer not in made:
                leaves.setdefault((take.buffer, take.offset, take.over(chain.shape)), take)
    ends = [p.into for p in chain.points if p.into.buffer.space or last.get(p.into.buffer, -1) > number]
    strides = [key[2] for key in leaves] + [end.over(chain.shape) for end in ends]
    size, collapsed = _collapsed(chain.shape, strides)
    codes, registers, temporary = _codes(chain, list(leaves), list(numbers), {end.buffer for end in ends})
    words: list[Any] = [len(size), *size, len(leaves)]
    for view, stride in zip(leaves.values(), collapsed, strict=False):
        words += [view, _way(size, stride), *stride]
    words += [len(numbers), *numbers, temporary, len(codes), *(w for code in codes for w in code), len(ends)]
    for end, stride in zip(ends, collapsed[len(leaves) :], strict=True):
        way = _way(size, stride)
        words += [registers[end.buffer], end, DIRECT if way == ONE and size == [1] else way, *stride]
    return Operation(POINTS, words, list(leaves.values()), ends)


def _way(size: list[int], stride: tuple[int, ...]) -> int:
    if all(s == t for n, s, t in zip(size, stride, row_major(size), strict=True) if n > 1):
        return DIRECT
    return GATHERED if any(stride) else ONE


def _collapsed(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Neighbouring dimensions joined where every stride allows it."""
    size: list[int] = []
    columns: list[tuple[int, ...]] = []  # of each dimension the stride of each view
    for n, *column in zip(shape, *strides, strict=True):
        if n == 1:
            continue
        if size and all(a == b * n for a, b in zip(columns[-1], column, strict=True)):
            size[-1] *= n
            columns[-1] = tuple(column)
        else:
            size.append(n)
            columns.append(tuple(column))
    if not size:
        return [1], [(0,) for _ in strides]
    return size, [tuple(column[k] for column in columns) for k in range(len(strides))]


def _codes(chain: Chain, leaves: list[Any], numbers: list[float], ends: set[Buffer]) -> Any:
    """Functions over registers; of which those that nobody needs any more are used again."""
    where: dict[Any, int] = {key: k for k, key in enumerate(leaves)}
    where |= {number: len(leaves) + k for k, number in enumerate(numbers)}
    first = len(leaves) + len(numbers)
    registers: dict[Buffer, int] = {}
    free: list[int] = []
    count = 0
    uses = {t.buffer: k for k, p in enumerate(chain.points) for t in p.takes if isinstance(t, View)}
    codes = []
    for k, point in enumerate(chain.points):
        args = [
            where[t] if not isinstance(t, View) else registers[t.buffer] if t.buffer in registers
            else where[t.buffer, t.offset, t.over(chain.shape)] for t in point.takes
        ]  # fmt: skip
        if not free:
            free.append(first + count)
            count += 1
        registers[point.into.buffer] = free.pop()
        codes.append((POINT.index(point.name), *args, *[0] * (3 - len(args)), registers[point.into.buffer]))
        for buffer, register in registers.items():
            if uses.get(buffer, k) == k and buffer not in ends and register not in free:
                alive = [b for b, r in registers.items() if r == register and (uses.get(b, -1) > k or b in ends)]
                if not alive:
                    free.append(register)
    return codes, registers, count


# -- places and words -------------------------------------------------------------------------------------------------


def packed(operations: Sequence[Operation], spaces: int) -> list[int]:
    """The tape in whole numbers of 64 bits. spaces: arrays of the caller's."""
    total = _place(operations)
    words: list[int] = [total, spaces + 1, len(operations)]
    for operation in operations:
        words.append(operation.kind)
        for word in operation.words:
            if isinstance(word, View):
                words += [word.buffer.space, word.buffer.offset + word.offset]
            elif isinstance(word, float):
                words.append(struct.unpack("<q", struct.pack("<d", word))[0])
            else:
                words.append(int(word))
    return words


def _place(operations: Sequence[Operation]) -> int:
    """Give each buffer between operations a place that nothing else has while it lives; floats in all."""
    lives: dict[Buffer, list[int]] = {}
    for number, operation in enumerate(operations):
        for view in (*operation.reads, *operation.writes):
            if not view.buffer.space:
                lives.setdefault(view.buffer, [number, number])[1] = number
    total = 0
    placed: list[tuple[Buffer, int]] = []
    for buffer, (start, end) in lives.items():
        size = (buffer.size + LINE - 1) // LINE * LINE + LINE  # whole vectors are read beyond the end
        at = 0
        for other in sorted((b for b, last in placed if last >= start), key=lambda b: b.offset):
            room = (other.size + LINE - 1) // LINE * LINE + LINE
            if at + size <= other.offset:
                break
            at = max(at, other.offset + room)
        buffer.offset = at
        placed.append((buffer, end))
        total = max(total, at + size)
    return total

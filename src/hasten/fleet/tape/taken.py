"""What a tape takes by windows and by number: pools, rows of a table, entries along a dimension. See tape_taken.inc."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from hasten.fleet.tape.program import POOL, POOL_BACK, TAKE, TAKE_BACK, Operation, View, fresh
from hasten.fleet.tape.trace import NotATape

Pair = tuple[int, int]

# -- pools -------------------------------------------------------------------------------------------------------------


def largest(low: Any, _: str, node: Any, x: Any, kernel: Any, *given: Any) -> list[View]:
    """``max_pool2d_with_indices``: the largest numbers, and where they lie."""
    shape = tuple(node.meta["val"][0].shape)
    return _largest(low, x, shape, _sizes(kernel, *given[:3]))


def largest_back(low: Any, _: str, __: Any, g: Any, x: Any, *given: Any) -> View:
    *sizes, _, at = given
    return _back(low, g, x, _sizes(*sizes), True, low.plain(at))


def adaptive_largest(low: Any, _: str, node: Any, x: Any, size: Any) -> list[View]:
    return _largest(low, x, tuple(node.meta["val"][0].shape), _even(x.shape, size))


def adaptive_largest_back(low: Any, _: str, __: Any, g: Any, x: Any, at: Any) -> View:
    return _back(low, g, x, _even(x.shape, g.shape[-2:]), True, low.plain(at))


def mean(low: Any, _: str, node: Any, x: Any, *given: Any) -> View:
    """``avg_pool2d``."""
    return _mean(low, x, tuple(node.meta["val"].shape), *_averaged(*given))


def mean_back(low: Any, _: str, __: Any, g: Any, x: Any, *given: Any) -> View:
    sizes, whole, divisor = _averaged(*given)
    return _back(low, g, x, sizes, False, _divisors(low, x.shape, g.shape, sizes, whole, divisor))


def adaptive_mean(low: Any, _: str, node: Any, x: Any, size: Any) -> View:
    return _mean(low, x, tuple(node.meta["val"].shape), _even(x.shape, size), True, None)


def adaptive_mean_back(low: Any, _: str, __: Any, g: Any, x: Any) -> View:
    sizes = _even(x.shape, g.shape[-2:])
    return _back(low, g, x, sizes, False, _divisors(low, x.shape, g.shape, sizes, True, None))


def _largest(low: Any, x: Any, shape: tuple[int, ...], sizes: list[Pair]) -> list[View]:
    x, y, at = low.plain(x), fresh(shape), fresh(shape)
    low.steps.append(Operation(POOL, [*_windows(x.shape, shape, sizes), True, x, y, at], [x], [y, at]))
    return [y, at]


def _mean(low: Any, x: Any, shape: tuple[int, ...], sizes: list[Pair], whole: bool, divisor: int | None) -> View:
    x, y = low.plain(x), fresh(shape)
    by = _divisors(low, x.shape, shape, sizes, whole, divisor)
    low.steps.append(Operation(POOL, [*_windows(x.shape, shape, sizes), False, x, y, by], [x, by], [y]))
    return y


def _back(low: Any, g: Any, x: Any, sizes: list[Pair], of_largest: bool, other: View) -> View:
    g, dx = low.plain(g), fresh(x.shape)
    words = [*_windows(x.shape, g.shape, sizes), of_largest, g, other, dx]
    low.steps.append(Operation(POOL_BACK, words, [g, other], [dx]))
    return dx


def _windows(x: Any, y: Any, sizes: list[Pair]) -> list[int]:
    return [math.prod(x[:-2]), *x[-2:], *y[-2:], *(n for pair in sizes for n in pair)]


def _pair(n: Any, default: Any = ()) -> Pair:
    n = list(n) if isinstance(n, (list, tuple)) else [n]
    n = n or _pair(default)
    return (n[0], n[-1])


def _sizes(kernel: Any, stride: Any = (), pad: Any = 0, dilation: Any = 1) -> list[Pair]:
    return [_pair(kernel), _pair(stride, kernel), _pair(pad), _pair(dilation)]


def _averaged(
    kernel: Any, stride: Any = (), pad: Any = 0, ceil: bool = False, whole: bool = True, divisor: int | None = None
) -> tuple[list[Pair], bool, int | None]:
    """Sizes, whether the padding counts, and what is divided by instead."""
    return _sizes(kernel, stride, pad), whole, divisor


def _even(shape: Any, size: Any) -> list[Pair]:
    """The windows of an adaptive pool."""
    h, w = shape[-2:]
    if h % size[0] or w % size[1]:
        raise NotATape("it has an adaptive pool of windows of unequal size")
    return _sizes([h // size[0], w // size[1]])


def _divisors(low: Any, x: Any, y: Any, sizes: list[Pair], whole: bool, divisor: int | None) -> View:
    """What sums over windows are divided by. (rows, columns) of the results."""
    spans = []
    for n, out, k, s, p in zip(x[-2:], y[-2:], *sizes[:3], strict=True):
        low_end = torch.arange(out) * s - p
        high_end = low_end + k
        span = high_end.clamp(max=n + p) - low_end if whole else high_end.clamp(max=n) - low_end.clamp(min=0)
        spans.append(torch.full((out,), 1) if divisor else span)
    found: View = low.view((spans[0][:, None] * spans[1]).float() * (divisor or 1))
    return found


# -- by number ---------------------------------------------------------------------------------------------------------


def rows_of(
    low: Any, _: str, __: Any, table: Any, numbers: Any, skipped: int = -1, scaled: bool = False, sparse: bool = False
) -> View:
    """``embedding``."""
    table, numbers = low.plain(table), low.plain(numbers)
    made = fresh((*numbers.shape, table.shape[1]))
    words = [math.prod(numbers.shape), *table.shape, numbers, table, made]
    low.steps.append(Operation(TAKE, words, [table, numbers], [made]))
    return made


def rows_of_back(low: Any, _: str, __: Any, g: Any, numbers: Any, rows: int, skipped: int, scaled: bool) -> View:
    if scaled:
        raise NotATape("its embedding scales gradients by how often a row is taken")
    g, numbers = low.plain(g), low.plain(numbers)
    made = fresh((rows, g.shape[-1]))
    words = [math.prod(numbers.shape), rows, g.shape[-1], skipped, g, numbers, made]
    low.steps.append(Operation(TAKE_BACK, words, [g, numbers], [made]))
    return made


def entry(low: Any, _: str, node: Any, x: Any, dim: int, index: Any, *__: Any) -> View:
    """``gather`` of one entry along a dimension, as the loss of a class is: the sum of the only one that counts."""
    found: View = low.reduce("sum", node, low.point("where", x.shape, _hit(low, x.shape, dim, index), x, 0.0), dim)
    return found


def entry_set(low: Any, _: str, node: Any, x: Any, dim: int, index: Any, value: Any, **options: Any) -> View:
    """``scatter`` of one entry along a dimension."""
    if options.get("reduce") is not None:
        raise NotATape("it scatters by a reduction")
    found: View = low.point("where", x.shape, _hit(low, x.shape, dim, index), value, x)
    return found


def _hit(low: Any, shape: Any, dim: int, index: Any) -> View:
    dim %= len(shape)
    if tuple(index.shape) != tuple(1 if d == dim else n for d, n in enumerate(shape)):
        raise NotATape("it takes several entries of a row by number")
    along = torch.arange(shape[dim], dtype=torch.float32).reshape([-1 if d == dim else 1 for d in range(len(shape))])
    found: View = low.point("eq", shape, index, along)
    return found


METHODS: dict[str, Callable[..., Any]] = {
    "max_pool2d_with_indices": largest,
    "max_pool2d_with_indices_backward": largest_back,
    "adaptive_max_pool2d": adaptive_largest,
    "adaptive_max_pool2d_backward": adaptive_largest_back,
    "avg_pool2d": mean,
    "avg_pool2d_backward": mean_back,
    "_adaptive_avg_pool2d": adaptive_mean,
    "_adaptive_avg_pool2d_backward": adaptive_mean_back,
    "embedding": rows_of,
    "embedding_dense_backward": rows_of_back,
    "gather": entry,
    "scatter": entry_set,
}

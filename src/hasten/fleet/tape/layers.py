"""Layers of a tape that are one operation each: layer norms, products of matrices, convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hasten.fleet.tape.program import CONVOLVE, CONVOLVE_WEIGHT, NORM, NORM_BACK, PRODUCT, Operation, View, fresh
from hasten.fleet.tape.trace import NotATape, Shaped

Value = Any  # see lower.py


def norm(low: Any, _: str, __: Any, given: Value, shape: Any, weight: Value, bias: Value, eps: float) -> Value:
    x, n = low.plain(given), math.prod(shape)
    lead = x.shape[: len(x.shape) - len(shape)]
    y, mean, rest = fresh(x.shape), fresh((*lead, *[1] * len(shape))), fresh((*lead, *[1] * len(shape)))
    w, b = (x if v is None else low.plain(v) for v in (weight, bias))
    rows = math.prod(lead)
    words = [rows, n, float(eps), weight is not None, bias is not None, x, w, b, y, mean, rest]
    low.steps.append(Operation(NORM, words, [x, w, b], [y, mean, rest]))
    return y, mean, rest


def norm_back(
    low: Any, _: str, __: Any, g: Value, given: Value, shape: Any, mean: Value, rest: Value, weight: Value, bias: Value,
    wanted: Any,
) -> Value:  # fmt: skip
    g, x, n = low.plain(g), low.plain(given), math.prod(shape)
    w = x if weight is None else low.plain(weight)
    dx, dw, db = fresh(x.shape), fresh(shape), fresh(shape)
    rows = math.prod(x.shape) // n
    words = [rows, n, weight is not None, *wanted, g, x, low.plain(mean), low.plain(rest), w, dx, dw, db]
    low.steps.append(Operation(NORM_BACK, words, [g, x, mean, rest, w], [dx, dw, db]))
    return dx, dw, db


def product(low: Any, _: str, __: Any, a: Value, b: Value) -> View:
    a, b = low.view(a), low.view(b)
    batch = a.shape[0] if len(a.shape) == 3 else 1
    (m, k), n = a.shape[-2:], b.shape[-1]
    made = fresh((*a.shape[:-1], n))
    steps = [(v.stride[0] if len(v.shape) == 3 else 0, *v.stride[-2:]) for v in (a, b)]
    words = [batch, m, n, k, *steps[0], *steps[1], 0, a, b, made, a]
    low.steps.append(Operation(PRODUCT, words, [a, b], [made]))
    return made


def convolution(
    low: Any, _: str, __: Any, x: Value, weight: Value, bias: Value, stride: Any, pad: Any, dilation: Any, across: bool,
    output: Any, groups: int,
) -> View:  # fmt: skip
    x, weight = low.plain(x), low.plain(weight)
    shape, made = _convolved(x, weight, stride, pad, dilation, across, output, groups)
    y = fresh(made)
    b = weight if bias is None else low.plain(bias)
    words = [*shape, across, bias is not None, x, weight, b, y]
    low.steps.append(Operation(CONVOLVE, words, [x, weight, b], [y]))
    return y


def convolution_back(
    low: Any, _: str, __: Any, g: Value, x: Value, weight: Value, sizes: Any, stride: Any, pad: Any, dilation: Any,
    across: bool, output: Any, groups: int, wanted: Any,
) -> Value:  # fmt: skip
    g, x, weight = low.plain(g), low.plain(x), low.plain(weight)
    shape = _convolved(x, weight, stride, pad, dilation, across, output, groups)[0]
    found: list[View | None] = [None, None, None]
    if wanted[0]:
        found[0] = dx = fresh(x.shape)
        words: list[Any] = [*shape, not across, 0, g, weight, weight, dx]
        low.steps.append(Operation(CONVOLVE, words, [g, weight], [dx]))
    if wanted[1]:
        wide, narrow = (g, x) if across else (x, g)
        found[1], found[2] = dw, db = fresh(weight.shape), fresh((narrow.shape[1],))
        words = [*shape, bool(wanted[2]) and not across, wide, narrow, dw, db]
        low.steps.append(Operation(CONVOLVE_WEIGHT, words, [wide, narrow], [dw, db]))
    if wanted[2] and (across or not wanted[1]):
        node = Shaped((g.shape[1],))
        found[2] = low.reduce("sum", node, g, [0, *range(2, len(g.shape))])
    return found


def _convolved(
    x: View, weight: View, stride: Any, pad: Any, dilation: Any, across: bool, more: Any, groups: int
) -> tuple[list[int], tuple[int, ...]]:
    """A convolution as the kernel has it, and the shape of what it makes.

    A transposed one is what the gradient with respect to the inputs of a plain one is, whose results are its inputs.
    """
    dims = len(x.shape) - 2
    if dims not in (1, 2):
        raise NotATape("it has a three-dimensional convolution")
    images, channels, *size = x.shape
    kernel, out = weight.shape[2:], list(size)
    each = [list(v) if len(v) == dims else [v[0]] * dims for v in (stride, pad, dilation, more)]
    if across:
        size = [(n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, k, s, p, d, m in zip(out, kernel, *each, strict=True)]
        channels = weight.shape[1] * groups
    else:
        out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in zip(size, kernel, *each, strict=True)]
    made = (images, channels, *size) if across else (images, weight.shape[0], *out)
    if dims == 1:
        size, out, kernel = [1, *size], [1, *out], (1, *kernel)
        each = [[1, *each[0]], [0, *each[1]], [1, *each[2]]]
    (sh, sw), (ph, pw), (dh, dw) = each[:3]
    shape = [images, groups, channels // groups, *size, weight.shape[0] // groups, *out, *kernel]
    return [*shape, sh, sw, ph, pw, dh, dw], made


METHODS: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(("mm", "bmm"), product),
    "native_layer_norm": norm,
    "native_layer_norm_backward": norm_back,
    "convolution": convolution,
    "convolution_backward": convolution_back,
}

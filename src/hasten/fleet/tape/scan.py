"""A recurrent layer as one operation of a tape: what a trace holds in its place, and what the kernel is given.

In a trace stand ``hasten::scan`` and ``hasten::scan_back``, of one layer in one direction. What they make there has the
right shapes; the numbers come from the kernel alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import library

from hasten.fleet.tape.program import SCAN, SCAN_BACK, Operation, View, fresh

CELLS = ("", "RNN_TANH", "RNN_RELU", "GRU", "LSTM")  # as the kernel counts them

_LAYER = "Tensor x, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh, Tensor? h, Tensor? c"
_WAY = "str mode, bool turned"
_OPS = library.Library("hasten", "FRAGMENT")
_OPS.define(f"scan({_LAYER}, {_WAY}) -> (Tensor, Tensor, Tensor)")
_OPS.define(f"scan_back({_LAYER}, Tensor kept, Tensor? g, Tensor? g_cell, {_WAY}, bool[] wanted) -> Tensor[]")


Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _shapes(x: torch.Tensor, w_ih: torch.Tensor, w_hh: torch.Tensor, *_: Any) -> Three:
    (steps, rows), units = x.shape[:2], w_hh.shape[1]
    return x.new_zeros(steps, rows, units), x.new_zeros(rows, units), x.new_zeros(0)


def _shapes_back(*given: Any) -> list[torch.Tensor]:
    return [torch.zeros(() if of is None else of.shape) for of in given[:7]]


_OPS.impl("scan", _shapes, "CompositeExplicitAutograd")
_OPS.impl("scan_back", _shapes_back, "CompositeExplicitAutograd")


class _Scan(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, mode: str, turned: bool, *layer: torch.Tensor | None) -> Any:
        states, cell, kept = torch.ops.hasten.scan(*layer, mode, turned)
        ctx.save_for_backward(*layer, kept)
        ctx.way = mode, turned
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(kept)
        return states, cell, kept

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor | None, g_cell: torch.Tensor | None, _: torch.Tensor | None) -> Any:
        wanted = list(ctx.needs_input_grad[2:])
        made = torch.ops.hasten.scan_back(*ctx.saved_tensors, g, g_cell, *ctx.way, wanted)
        return None, None, *(d if of else None for d, of in zip(made, wanted, strict=True))


def scan(mode: str, turned: bool, x: torch.Tensor, *given: torch.Tensor | None) -> Three:
    """What ``stackable.unrolled`` does, which it stands for in a trace."""
    states, cell, _ = _Scan.apply(mode, turned, x, *given)
    return states, states[0 if turned else -1], cell


# -- what the kernel is given: see tape_scan.inc -----------------------------------------------------------------------


def forward(low: Any, _: str, __: Any, x: Any, *given: Any) -> list[View | None]:
    """The views of all states, of the last cell, and what the gates were."""
    *weights, h, c, mode, turned = given
    layer = _layer(low, x, weights)
    (steps, rows), units = layer[0].shape[:2], layer[2].shape[1]
    wide = -(-units // low.lanes) * low.lanes
    lstm, gated = mode == "LSTM", mode in ("GRU", "LSTM")
    states, cells = fresh((steps + 1, rows, wide)), fresh((steps + 1 if lstm else 0, rows, wide))
    kept = fresh((steps, rows, 4 * wide if gated else 0))
    low.trails[kept.buffer] = trail = [states, cells, kept]
    starts = [None if v is None else _in_rows(low, v) for v in (h, c)]
    words = [*_shape(mode, turned, layer), *trail, *(word for v in starts for word in _given(v, kept))]
    low.steps.append(Operation(SCAN, words, _there(*layer, *starts), trail))
    block = rows * wide
    made = View(states.buffer, 0 if turned else block, (steps, rows, units), (block, wide, 1))
    cell = View(cells.buffer, 0 if turned else steps * block, (rows, units), (wide, 1))
    return [made, cell if lstm else None, kept]


def backward(low: Any, _: str, __: Any, x: Any, *given: Any) -> list[View | None]:
    """What each of the layer's tensors owes."""
    *weights, h, c, kept, g, g_cell, mode, turned, wanted = given
    layer, trail = _layer(low, x, weights), low.trails[kept.buffer]
    g, last = _split(low, g, turned)
    g, last, g_cell = (None if v is None else _in_rows(low, v) for v in (g, last, g_cell))
    if g is not None and g.buffer.space:  # whole vectors are read, also beyond the end
        g = low.point("copy", g.shape, g)
    inputs = [*layer, h, c]
    for k in (0, 5, 6):
        inputs[k] = inputs[k] if wanted[k] else None
    made = [None if v is None else fresh(v.shape) for v in inputs]
    words = [
        *_shape(mode, turned, layer), *trail, g is not None, wanted[0], wanted[5], wanted[6],
        *(g.stride[:2] if g else (0, 0)), g or kept, *(view or kept for view in made),
        *_given(last, kept), *_given(g_cell, kept),
    ]  # fmt: skip
    low.steps.append(Operation(SCAN_BACK, words, _there(*layer, *trail, g, last, g_cell), _there(*made)))
    return made


def _split(low: Any, g: Any, turned: bool) -> tuple[Any, View | None]:
    """What all states owe; and what the last one owes, where that is all and the others' noughts need not be read."""
    if not isinstance(g, View) or g.buffer not in low.alone:
        return g, None
    part, place = low.alone[g.buffer]
    last = 0 if turned else g.shape[0] - 1
    at = View(g.buffer, g.offset + last * g.stride[0], g.shape[1:], g.stride[1:])
    return (None, part) if at == place else (g, None)


def _layer(low: Any, x: Any, weights: Any) -> list[Any]:
    return [_in_rows(low, x), *(None if w is None else low.plain(w) for w in weights)]


def _shape(mode: str, turned: bool, layer: list[Any]) -> list[Any]:
    x, w_ih, w_hh, b_ih, b_hh = layer
    biased = b_ih is not None
    size = [*x.shape, w_hh.shape[1]]
    return [CELLS.index(mode), turned, *size, biased, *x.stride[:2], x, w_ih, w_hh, b_ih or x, b_hh or x]


def _given(view: View | None, other: View) -> list[Any]:
    """Rows of states, which may be missing. other: what is named then."""
    return [0, 0, other] if view is None else [1, view.stride[0], view]


def _there(*views: View | None) -> list[View]:
    return [view for view in views if view is not None]


def _in_rows(low: Any, value: Any) -> View:
    """A value where the numbers of its last dimension lie together."""
    view: View = low.view(value)
    return view if view.stride[-1] == 1 or view.shape[-1] == 1 else low.plain(view)

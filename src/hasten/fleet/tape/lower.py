"""From torch's graph of a step to the kernel's operations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from hasten.fleet.tape import layers, scan, taken
from hasten.fleet.tape.program import REDUCE, Buffer, Operation, Point, View, fresh, row_major
from hasten.fleet.tape.trace import NotATape, Shaped

Value = Any  # a View, a tuple of them, or a torch.Tensor whose numbers are known

VIEWS = frozenset({
    "view", "_unsafe_view", "reshape", "permute", "t", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze",
    "unbind", "split", "split_with_sizes", "chunk", "diagonal", "unfold", "alias", "detach", "view_copy", "movedim",
    "broadcast_in_dim",
})  # fmt: skip
DTYPES = (torch.float32, torch.bool, torch.int64)  # whole numbers lie in float32, which holds them up to 2**24
SAME = frozenset({"clone", "contiguous", "lift_fresh_copy", "lift_fresh", "detach_copy"})
ONE = frozenset({
    "neg", "abs", "sqrt", "rsqrt", "exp", "log", "sigmoid", "tanh", "erf", "relu", "sin", "cos", "log1p", "expm1",
    "sign", "trunc", "floor", "threshold_backward", "atan",
})  # fmt: skip
TWO = frozenset({"mul", "maximum", "minimum", "lt", "le", "gt", "ge", "eq", "ne"})
FILLED = {
    "new_ones": 1.0,
    **dict.fromkeys(("new_zeros", "new_full", "new_empty", "new_empty_strided", "empty_like"), 0.0),
}
RENAMED = {"logical_and": "and", "logical_or": "or", "logical_not": "not", "bitwise_and": "and", "bitwise_or": "or",
           "bitwise_not": "not"}  # fmt: skip


class Lowering:
    """Reads a graph, node by node.

    Attributes:
        steps: what the kernel is to do, in order.
        constants: arrays whose numbers are known, in a row; they lie in the space ``known``.

    Args:
        inputs: the graph's placeholders, in order.
        known: the space of constants.
        lanes: numbers in a vector of the kernel's.
    """

    def __init__(self, graph: Any, inputs: list[View | None], known: int, lanes: int) -> None:
        self.graph, self.inputs, self.known, self.lanes = graph, iter(inputs), known, lanes
        self.steps: list[Operation | Point] = []
        self.values: dict[Any, Value] = {}
        self.constants: list[torch.Tensor] = []
        self.held = 0  # numbers among them
        self.results: list[Value] = []
        self.trails: dict[Buffer, list[View]] = {}  # what scans leave for their ways back
        self.alone: dict[Buffer, tuple[View, View]] = {}  # parts among noughts, and their places

    def read(self) -> None:
        """Fill ``steps`` and ``results``.

        Raises:
            NotATape: there is an operation that the kernel does not know.
        """
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(self.inputs)
            elif node.op == "get_attr":
                self.values[node] = getattr(self.graph, str(node.target)).detach()
            elif node.op == "output":
                self.results = [self._value(v) for v in torch.utils._pytree.tree_leaves(node.args[0])]
            elif node.target is operator.getitem:
                self.values[node] = self.values[node.args[0]][node.args[1]]
            else:
                self.values[node] = self._call(node)

    def _value(self, given: Any) -> Any:
        if isinstance(given, torch.fx.Node):
            return self.values[given]
        return [self._value(v) for v in given] if isinstance(given, (list, tuple)) else given

    def _call(self, node: Any) -> Value:
        kind = node.meta.get("val")
        if isinstance(kind, torch.Tensor) and kind.dtype not in DTYPES:
            raise NotATape(f"it computes in {kind.dtype}")
        name = node.target._schema.name.partition("::")[2]
        args = [self._value(a) for a in node.args]
        options = {key: self._value(v) for key, v in node.kwargs.items()}
        if name.endswith("_like") and name not in FILLED:
            shape = node.meta["val"].shape
            number = args[1] if name == "full_like" else {"ones_like": 1.0, "zeros_like": 0.0}.get(name)
            if number is None:
                raise NotATape(f"it draws random numbers ({name})")
            return torch.full(shape, float(number))
        if name in FILLED:  # of what lies in an empty one nobody may make anything
            return torch.full(node.meta["val"].shape, FILLED[name] if name != "new_full" else float(args[2]))
        if not any(isinstance(a, View) for a in torch.utils._pytree.tree_leaves([args, options])):
            return node.target(*args, **options)  # nothing that a model has a part in
        if (found := self._shaped(name, node, args, options)) is not None:
            return found
        if (method := METHODS.get(name)) is None:
            method = Lowering._pointwise
        made: Value = method(self, name, node, *args, **options)
        return made

    # -- what moves nothing --------------------------------------------------------------------------------------------

    def _shaped(self, name: str, node: Any, args: list[Any], options: dict[str, Any]) -> Value:
        if name in SAME:
            return args[0]
        if name in ("_to_copy", "convert_element_type"):
            return self._cast(args[0], options.get("dtype", args[-1] if len(args) > 1 else None))
        if name not in VIEWS:
            return None
        view = args[0]
        if not isinstance(view, View):
            raise NotATape(f"{name} of something that is no tensor of a step")
        try:
            return _viewed(node.target, view, args[1:], options)
        except RuntimeError:  # it lies otherwise than torch's own
            return _viewed(node.target, self.plain(view), args[1:], options)

    def _cast(self, view: View, dtype: Any) -> View:
        if dtype in (None, torch.float32):
            return view
        if dtype == torch.bool:
            return self.point("ne", view.shape, view, 0.0)
        if dtype == torch.int64:
            return self.point("trunc", view.shape, view)
        raise NotATape(f"it computes in {dtype}")

    def view(self, value: Value) -> View:
        """A value where the kernel finds it."""
        if isinstance(value, View):
            return value
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(float(value))
        held = value.detach().to(torch.float32).contiguous()
        made = fresh(held.shape)
        made.buffer.space, made.buffer.offset = self.known, self.held
        self.constants.append(held.reshape(-1))
        pad = -held.numel() % 16 + 16
        self.constants.append(torch.zeros(pad))
        self.held += held.numel() + pad
        return made

    def plain(self, value: Value) -> View:
        """A value whose numbers lie in a row."""
        view = self.view(value)
        return view if view.plain else self.point("copy", view.shape, view)

    def _strided(self, _: str, node: Any, given: Value, size: Any, stride: Any, offset: int | None = None) -> View:
        """``as_strided`` where it only gives what lies in a row another shape."""
        whole = node.args[0].meta["val"]
        as_before = whole.is_contiguous() and whole.storage_offset() == (offset or 0)
        if not as_before or whole.numel() != math.prod(size) or tuple(stride) != row_major(size):
            raise NotATape("it computes as_strided")
        x = self.plain(given)
        return View(x.buffer, x.offset, tuple(size), tuple(stride))

    # -- element by element --------------------------------------------------------------------------------------------

    def point(self, name: str, shape: Any, *takes: Any, into: View | None = None) -> View:
        """Append a function of each element."""
        shape = tuple(shape)
        if len(shape) > 6:
            raise NotATape("it has tensors of more than six dimensions")
        found: list[View | float] = []
        for take in takes:
            if isinstance(take, torch.Tensor) and (take.numel() == 1 or bool((take == take.flatten()[0]).all())):
                take = float(take.flatten()[0])
            found.append(self.view(take) if isinstance(take, (View, torch.Tensor)) else float(take))
        into = fresh(shape) if into is None else into
        self.steps.append(Point(name, shape, tuple(found), into))
        return into

    def _pointwise(self, name: str, node: Any, *args: Any, **options: Any) -> View:
        shape = node.meta["val"].shape
        name = RENAMED.get(name, name)
        if name in ("add", "sub", "rsub"):
            a, b = args[:2]
            scaled = args[2] if len(args) > 2 else options.get("alpha", 1)
            if scaled != 1:
                b = self.point("mul", b.shape if isinstance(b, (View, torch.Tensor)) else (), b, scaled)
            return self.point("add" if name == "add" else "sub", shape, *((b, a) if name == "rsub" else (a, b)))
        if name == "div" and not options.get("rounding_mode"):
            return self.point("div", shape, *args)
        if name == "reciprocal":
            return self.point("div", shape, 1.0, args[0])
        if name == "pow":
            return self._power(shape, *args)
        if name in ("clamp", "clamp_min", "clamp_max"):
            low, high = (*args[1:], None, None)[:2] if name != "clamp_max" else (None, args[1])
            made = args[0] if low is None else self.point("maximum", shape, low, args[0])
            return made if high is None else self.point("minimum", shape, high, made)
        if name in ONE or name in TWO or name in ("where", "and", "or", "not"):
            return self.point(name, shape, *args)
        raise NotATape(f"it computes {name}")

    def _shrink_back(self, _: str, node: Any, g: Value, x: Value, limit: float) -> View:
        """Of ``hardshrink`` and ``softshrink``."""
        shape = node.meta["val"].shape
        return self.point("where", shape, self.point("le", shape, self.point("abs", shape, x), limit), 0.0, g)

    def _power(self, shape: Any, base: Any, exponent: Any) -> View:
        if exponent in (0.5, 1, 2, 3) and not isinstance(exponent, View):
            if exponent == 0.5:
                return self.point("sqrt", shape, base)
            made: View = self.view(base)
            for _ in range(int(exponent) - 1):
                made = self.point("mul", shape, made, base)
            return made
        return self.point("pow", shape, base, exponent)

    # -- sums ----------------------------------------------------------------------------------------------------------

    def reduce(self, name: str, node: Any, given: Value, dims: Any = None, keepdim: bool = False, **_: Any) -> View:
        x = self.view(given)
        count = len(x.shape)
        dims = [dims] if isinstance(dims, int) else list(dims or range(count))
        over = sorted(d % count for d in dims)
        rest = [d for d in range(count) if d not in over]
        along = not rest or rest[-1] != count - 1
        kept, gone = (rest, over[:-1] if over else []) if along else (rest[:-1], over)
        inner, apart = (x.shape[-1], x.stride[-1]) if count else (1, 1)
        made = fresh(x.shape[d] for d in rest)
        words = [
            {"amax": 1, "any": 1, "amin": 2}.get(name, 0), along, x, made, len(kept), *(x.shape[d] for d in kept),
            *(x.stride[d] for d in kept), len(gone), *(x.shape[d] for d in gone), *(x.stride[d] for d in gone),
            inner, apart,
        ]  # fmt: skip
        self.steps.append(Operation(REDUCE, words, [x], [made]))
        shape = tuple(node.meta["val"].shape)
        found = View(made.buffer, 0, shape, fresh(shape).stride)
        if name == "mean":
            size = math.prod(x.shape[d] for d in over)
            return self.point("mul", shape, found, 1.0 / size)
        return found

    def _variance(self, _: str, node: Any, given: Value, dims: Any, correction: float = 1.0, **__: Any) -> View:
        x = self.view(given)
        over = sorted(d % len(x.shape) for d in dims) if dims else list(range(len(x.shape)))
        kept = Shaped(tuple(1 if d in over else n for d, n in enumerate(x.shape)))
        apart = self.point("sub", x.shape, x, self.reduce("mean", kept, x, over))
        total = self.reduce("sum", node, self.point("mul", x.shape, apart, apart), over)
        return self.point("mul", total.shape, total, 1.0 / max(math.prod(x.shape[d] for d in over) - correction, 0.0))

    # -- pieces of tensors ---------------------------------------------------------------------------------------------

    def _cat(self, _: str, node: Any, parts: Any, dim: int = 0) -> View:
        made, at = fresh(node.meta["val"].shape), 0
        dim %= len(made.shape)
        for part in parts:
            if len(part.shape) != len(made.shape):  # torch leaves out what is empty
                continue
            size = part.shape[dim]
            place = View(made.buffer, at * made.stride[dim], tuple(part.shape), made.stride)
            self.point("copy", part.shape, part, into=place)
            at += size
        return made

    def _placed(self, name: str, node: Any, whole: Value, part: Value, dim: int = 0, *at: Any, **options: Any) -> View:
        """``slice_scatter`` and ``select_scatter``."""
        shape = node.meta["val"].shape
        made = self.point("copy", shape, whole)
        take = torch.ops.aten.slice.Tensor if name == "slice_scatter" else torch.ops.aten.select.int
        place = _viewed(take, made, [dim, *at], options)
        self.point("copy", place.shape, part, into=place)
        if isinstance(whole, torch.Tensor) and not whole.any():
            self.alone[made.buffer] = self.view(part), place
        return made

    def _padded(self, _: str, node: Any, given: Value, pad: Any, value: float = 0.0) -> View:
        source, last = self.view(given), len(given.shape) - 1
        part = torch.ops.aten.slice.Tensor
        for k in range(0, len(pad), 2):  # less than nothing cuts off
            dim = last - k // 2
            size = source.shape[dim]
            source = _viewed(part, source, [dim, max(0, -pad[k]), size - max(0, -pad[k + 1])], {})
        if max(pad) <= 0:
            return source
        made = place = self.point("copy", node.meta["val"].shape, value)
        for k in range(0, len(pad), 2):
            dim, low = last - k // 2, max(0, pad[k])
            place = _viewed(part, place, [dim, low, low + source.shape[dim]], {})
        self.point("copy", source.shape, source, into=place)
        return made

    def _copy(self, _: str, node: Any, to: Value, source: Value, *__: Any) -> Value:
        return source if tuple(source.shape) == tuple(to.shape) else self.point("copy", to.shape, source)

    def _copy_into(self, _: str, node: Any, to: View, source: Value, *__: Any) -> View:
        into = replace(to, buffer=replace(to.buffer))  # a buffer of its own: what is taken of the old one is not this
        return self.point("copy", to.shape, source, into=into)


METHODS: Mapping[str, Callable[..., Value]] = {
    **dict.fromkeys(("sum", "mean", "amax", "amin", "any"), Lowering.reduce),
    "var": Lowering._variance,
    **dict.fromkeys(("hardshrink_backward", "softshrink_backward"), Lowering._shrink_back),
    "as_strided": Lowering._strided,
    "cat": Lowering._cat,
    **dict.fromkeys(("slice_scatter", "select_scatter"), Lowering._placed),
    "constant_pad_nd": Lowering._padded,
    "copy": Lowering._copy,
    "copy_": Lowering._copy_into,
    "scan": scan.forward,
    "scan_back": scan.backward,
    **layers.METHODS,
    **taken.METHODS,
}


def _viewed(target: Any, view: View, args: Any, options: Any) -> Value:
    """What torch's view of it would be."""
    place = torch.empty_strided((1,), (1,), device="meta").as_strided(view.shape, view.stride, 0)
    made = target(place, *args, **options)
    several = isinstance(made, (list, tuple))
    found = [
        View(view.buffer, view.offset + m.storage_offset(), tuple(m.shape), tuple(m.stride()))
        for m in (made if several else [made])
    ]
    return found if several else found[0]


def bound(buffer: Buffer, shape: tuple[int, ...]) -> View:
    """The whole of a caller's array as a tensor."""
    return View(buffer, 0, shape, fresh(shape).stride)

"""Reads a module as a chain of layers that the kernel knows, or says why it is none."""

from __future__ import annotations

import copy
import math
import operator
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from hasten.fleet.naive import Residual
from hasten.fleet.native.chain import (
    ACTIVATION,
    ACTS,
    ADD,
    AVERAGE,
    CONV,
    LINEAR,
    PICK,
    RECURRENT,
    Chain,
    Layer,
    fused,
    laid_out,
    renamed,
)
from hasten.fleet.native.layers import CALLED, FUNCTIONS, METHODS, MODULES, Shape, recurrent
from hasten.fleet.native.layers import NotAChain as NotAChain
from hasten.fleet.native.sizes import BATCH, Sizes


def chain_of(module: nn.Module, row: Shape) -> Chain:
    """The chain that a module computes for rows of shape ``row``.

    Raises:
        NotAChain: there is none.
    """
    if type(module) is Residual:
        if len(row) != 1:
            raise NotAChain("rows of a residual are no windows")
        inner = renamed(chain_of(module.net, row), lambda name: f"net.{name}")
        return replace(inner, season=min(module.season, row[0]))
    if type(module) in MODULES:  # torch.fx would look into it
        return renamed(chain_of(nn.Sequential(module), row), lambda name: name.removeprefix("0."))
    if any(not p.requires_grad for p in module.parameters()):
        raise NotAChain("some parameters are frozen")
    own = dict(module.named_parameters())
    if shared := [name for name, _ in module.named_parameters(remove_duplicate=False) if name not in own]:
        raise NotAChain(f"{shared[0]} is another layer's, too")
    try:
        graph = fx.symbolic_trace(module)
        evaluated = fx.symbolic_trace(copy.deepcopy(module).eval())
    except Exception as error:
        raise NotAChain(f"its forward cannot be traced ({type(error).__name__})") from None
    if str(evaluated.graph) != str(graph.graph):
        raise NotAChain("its forward is another one in training than in evaluation")
    reader = _Reader(graph, row)
    for node in graph.graph.nodes:
        reader.read(node)
    if len(reader.shape) > 1:
        raise NotAChain("it returns rows of more than one dimension")
    if not any(layer.kind in (LINEAR, CONV, RECURRENT) for layer in reader.layers):
        raise NotAChain("it has no linear layer, no convolution and no recurrent layer")
    inputs = math.prod(row)
    return Chain(tuple(laid_out(fused(reader.layers), inputs)), inputs, math.prod(reader.shape))


class _Reader(Sizes):
    """Follows the graph of a forward, node by node.

    Attributes:
        layers: read so far, in the order in which they are computed.
        layer, shape: which layer gave what is read now (None: it is the model's input), and the shape of a row of it.
        parts: what nodes hold that are no tensor of rows, and layers that it is of: ``"both"``, a recurrent module's
            states at all positions and its last ones; ``"last"``, its last ones; ``"pair"``, an LSTM's and its cells.
    """

    def __init__(self, graph: fx.GraphModule, row: Shape) -> None:
        super().__init__()
        self.graph, self.shape = graph, row
        self.layer: Layer | None = None
        self.layers: list[Layer] = []
        self.seen: set[str] = set()
        self.parts: dict[Any, tuple[str, list[Layer]]] = {}

    def read(self, node: fx.Node) -> None:
        """Append what one node of the graph does."""
        first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if node.op == "placeholder":
            if self.values:
                raise NotAChain("its forward takes more than one argument")
            self.values[node] = None, self.shape
        elif node.op == "output":
            self._output(first)
        elif self.asks_for_sizes(node) or self.is_nought(node):
            return
        elif first in self.parts:
            self._part(node, *self.parts[first])
        elif first not in self.values:
            raise NotAChain(f"`{node.name}` takes something that the kernel does not know")
        else:
            self._rows(node, first)

    def _rows(self, node: fx.Node, first: Any) -> None:
        self.layer, self.shape = self.values[first]
        added = self._added(node)
        taken = [n for n in node.all_input_nodes if n not in self.sizes and n not in self.noughts]
        if taken != ([first, added] if added not in (None, first) else [first]):
            raise NotAChain(f"`{node.name}` takes something else than the layer before it")
        if node.op == "call_module" and type(self.graph.get_submodule(str(node.target))) in (nn.GRU, nn.LSTM):
            self._recurrent(node)
            return
        if added is not None:
            self._add(node, added)
        elif node.op == "call_module":
            self._module(node)
        else:
            self._function(node)
        self.values[node] = self.layer, self.shape

    def _output(self, of: fx.Node | None) -> None:
        if of not in self.values:
            raise NotAChain("it returns more than one tensor")
        self.layer, self.shape = self.values[of]
        reached: list[Layer | None] = [self.layer]
        for layer in reached:
            reached += [source for source in (layer.sources if layer else ()) if source not in reached]
        if any(layer not in reached for layer in self.layers):
            raise NotAChain("it computes something that it does not return")

    def _emit(self, layer: Layer, *more: Layer | None) -> None:
        layer.sources = (self.layer, *more)
        self.layers.append(layer)
        self.layer = layer

    def _in_place(self, node: fx.Node) -> None:
        """What changes its input must be the only one that takes it.

        Raises:
            NotAChain: it is not.
        """
        same = [n for n, (layer, _) in self.values.items() if layer is self.layer]
        if any(user is not node and user not in same and user not in self.sizes for n in same for user in n.users):
            raise NotAChain(f"`{node.name}` changes in place what others take")

    def _added(self, node: fx.Node) -> Any:
        """The second of two nodes that are added, or None."""
        known = node.target in (operator.add, operator.iadd, torch.add) if node.op == "call_function" else (
            node.op == "call_method" and node.target in ("add", "add_"))  # fmt: skip
        return node.args[1] if known and len(node.args) == 2 and not node.kwargs else None

    def _add(self, node: fx.Node, other: Any) -> None:
        if other not in self.values or self.values[other][1] != self.shape:
            raise NotAChain(f"`{node.name}` adds rows of another shape")
        if node.target in (operator.iadd, "add_"):
            self._in_place(node)
        width = math.prod(self.shape)
        self._emit(Layer(ADD, width, width), self.values[other][0])

    def _submodule(self, name: str) -> nn.Module:
        part = self.graph.get_submodule(name)
        if name in self.seen and list(part.parameters()):
            raise NotAChain(f"{name} is used twice")
        self.seen.add(name)
        return part

    def _recurrent(self, node: fx.Node) -> None:
        name, given = str(node.target), (*node.args[1:], *node.kwargs.values())
        part: Any = self._submodule(name)
        made = recurrent(part, name, self.shape)
        start = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
        if any(self.noughts.get(n) != (part.num_layers, BATCH, part.hidden_size) for n in start if n is not None):
            raise NotAChain(f"{name} is given a first state that is not nought")
        for layer in made:
            self._emit(layer)
        self.parts[node] = "both", made

    def _part(self, node: fx.Node, of: str, layers: list[Layer]) -> None:
        """A part of what a recurrent module gave."""
        self.layer = layers[-1]
        steps, units = self.layer.steps, self.layer.units
        at = node.args[1] if len(node.args) == 2 and node.target is operator.getitem else None
        if of == "both" and at == 0:
            self.values[node] = self.layer, (steps, units)
        elif (of, at) in (("both", 1), ("pair", 0)):
            self.parts[node] = "pair" if of == "both" and self.layer.gates == 4 else "last", layers
        elif (of, at) == ("pair", 1) and not node.users:
            return
        elif of == "last":
            at = at[0] if isinstance(at, tuple) and at and all(part == slice(None) for part in at[1:]) else at
            at = 0 if len(layers) == 1 and _squeezes(node) else at
            if not isinstance(at, int) or not -len(layers) <= at < len(layers):
                raise NotAChain(f"`{node.name}` takes something else than a recurrent layer's last state")
            self.layer, self.shape = layers[at], (steps, units)
            self._pick([(steps - 1, 1, 1), (0, 1, units)], (units,))
            self.values[node] = self.layer, self.shape
        else:
            raise NotAChain(f"`{node.name}` takes something else than a recurrent layer's states")

    def _pick(self, taken: list[tuple[int, int, int]], shape: Shape) -> None:
        """Of each dimension the first, how far apart, how many."""
        if len(taken) == 1:
            taken = [(0, 1, 1), *taken]
        (first, apart, count), (first1, apart1, count1) = taken
        width = self.shape[-1]
        self._emit(
            Layer(
                PICK, math.prod(self.shape), count * count1, channels=count, filters=count1,
                taps=first * width + first1, stride=apart * width, dilation=apart1,
            )
        )  # fmt: skip
        self.shape = shape

    def _module(self, node: fx.Node) -> None:
        name = str(node.target)
        part = self._submodule(name)
        if getattr(part, "inplace", False):
            self._in_place(node)
        self._apply(part, name)

    def _apply(self, part: nn.Module, name: str) -> None:
        if getattr(part, "return_indices", False):
            raise NotAChain(f"{name} gives indices, too")
        if isinstance(part, nn.Flatten):
            self._flatten(name, (part.start_dim, part.end_dim))
        elif isinstance(part, nn.Unflatten):
            self._unflatten(part, name)
        elif type(part) is nn.Linear and len(self.shape) == 2:
            self._over_positions(part, name)
        elif type(part) in MODULES and not (type(part) is nn.Dropout and part.p == 0):
            layer, shape = MODULES[type(part)](part, name, self.shape)
            self._emit(layer)
            self.shape = shape
        elif type(part) not in (nn.Identity, nn.Dropout):
            raise NotAChain(f"{name} is a {type(part).__name__}")

    def _function(self, node: fx.Node) -> None:
        name = CALLED.get(node.target) if node.op == "call_function" else METHODS.get(str(node.target))
        rest = (*node.args[1:], *node.kwargs.values())
        if name == "flatten":
            self._flatten(f"`{node.name}`", rest)
        elif name in ("view", "reshape"):
            self._reshape(node.name, rest)
        elif name in ("squeeze", "unsqueeze") and len(rest) == 1 and isinstance(rest[0], int):
            self._dimension(node.name, rest[0], name == "unsqueeze")
        elif name == "getitem":
            self._index(node.name, rest[0])
        elif name in ("transpose", "permute"):
            self._transpose(node.name, name, rest)
        elif name == "mean" and not set(node.kwargs) - {"dim", "keepdim"}:
            self._mean(node.name, **dict(zip(("dim", "keepdim"), node.args[1:], strict=False)), **node.kwargs)
        elif name in FUNCTIONS:
            self._as_module(node, name)
        elif name in ACTS and rest in ((), (False,), (True,)):
            if rest == (True,):
                self._in_place(node)
            width = math.prod(self.shape)
            self._emit(Layer(ACTIVATION, width, width, ACTS.index(name), 1.0))
        elif name != "contiguous" or rest:
            raise NotAChain(f"`{node.name}` is no layer the kernel knows")

    def _as_module(self, node: fx.Node, name: str) -> None:
        if any(isinstance(n, fx.Node) for n in (*node.args[1:], *node.kwargs.values())):
            raise NotAChain(f"`{node.name}` is given numbers that are computed")
        part = FUNCTIONS[name](*node.args[1:], **node.kwargs)
        if getattr(part, "inplace", False):
            self._in_place(node)
        self._apply(part, f"`{node.name}`")

    def _flatten(self, name: str, dims: tuple[Any, ...]) -> None:
        if dims not in ((1,), (1, -1), (1, len(self.shape))):
            raise NotAChain(f"{name} flattens only some dimensions")
        self.shape = (math.prod(self.shape),)

    def _over_positions(self, part: nn.Linear, name: str) -> None:
        """A linear layer on each position: a convolution of one tap, whose channels are the last dimension."""
        if self.shape[1] != part.in_features:
            raise NotAChain(f"{name} wants {part.in_features} inputs and gets rows of shape {self.shape}")
        if self.shape[0] == 1:
            self.shape = self.shape[1:]
            self._apply(part, name)
            self.shape = (1, *self.shape)
            return
        self._transpose(name, "transpose", (1, 2))
        positions = self.shape[1]
        of = {"channels": part.in_features, "filters": part.out_features, "weight": f"{name}.weight"}
        if part.bias is not None:
            of["bias"] = f"{name}.bias"
        width = part.out_features * positions
        self._emit(Layer(CONV, part.in_features * positions, width, lanes=True, **of))
        self.shape = (part.out_features, positions)
        self._transpose(name, "transpose", (1, 2))

    def _unflatten(self, part: nn.Unflatten, name: str) -> None:
        sizes = tuple(part.unflattened_size)
        if part.dim not in (1, -1) or len(self.shape) != 1 or not all(isinstance(n, int) for n in sizes):
            raise NotAChain(f"{name} unflattens something else than a row")
        self._reshape(name, (BATCH, *sizes))

    def _reshape(self, name: str, given: tuple[Any, ...]) -> None:
        if len(given) == 1 and isinstance(given[0], (tuple, list)):
            given = tuple(given[0])
        dims = [self.sizes.get(n) if isinstance(n, fx.Node) else n for n in given]
        width = math.prod(self.shape)
        if dims and dims[0] == BATCH and dims.count(-1) == 1:
            dims[dims.index(-1)] = width // max(1, math.prod(n for n in dims[1:] if isinstance(n, int) and n != -1))
        rest = tuple(n for n in dims[1:] if isinstance(n, int))
        if not dims or dims[0] not in (BATCH, -1) or len(rest) < len(dims) - 1 or math.prod(rest) != width:
            raise NotAChain(f"`{name}` makes other rows")
        self.shape = rest

    def _dimension(self, name: str, at: int, new: bool) -> None:
        at += len(self.shape) + 1 + new if at < 0 else 0
        if not 1 <= at <= len(self.shape) + new:
            raise NotAChain(f"`{name}` changes the rows' dimension")
        if new:
            self.shape = (*self.shape[: at - 1], 1, *self.shape[at - 1 :])
        elif self.shape[at - 1] == 1:
            self.shape = (*self.shape[: at - 1], *self.shape[at:])

    def _index(self, name: str, index: Any) -> None:
        """``x[:, None]`` and the like; a part of a row's one or two dimensions."""
        index, whole = index if isinstance(index, tuple) else (index,), slice(None)
        if ... in index:
            at, taken = index.index(...), sum(part is not None for part in index) - 1
            index = (*index[:at], *[whole] * (1 + len(self.shape) - taken), *index[at + 1 :])
        given = [part for part in index[1:] if part is not None]
        given += [whole] * (len(self.shape) - len(given))
        if index[0] != whole or len(given) != len(self.shape):
            raise NotAChain(f"`{name}` takes a part of the rows")
        parts = [_part_of(name, part, size) for part, size in zip(given, self.shape, strict=True)]
        old = iter(zip(given, parts, strict=True))
        shape: list[int] = []
        for part in index[1:]:
            shape += [1] if part is None else [p[2] for g, p in [next(old)] if not isinstance(g, int)]
        made = (*shape, *(p[2] for _, p in old))
        if all(part == whole for part in given):
            self.shape = made
        elif len(self.shape) > 2:
            raise NotAChain(f"`{name}` takes a part of rows of more than two dimensions")
        else:
            self._pick(parts, made)

    def _transpose(self, node: str, name: str, dims: tuple[Any, ...]) -> None:
        dims = tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
        at = [dim + 3 if isinstance(dim, int) and dim < 0 else dim for dim in dims]
        if len(self.shape) != 2 or (sorted(at) != [1, 2] if name == "transpose" else at != [0, 2, 1]):
            raise NotAChain(f"`{node}` exchanges other dimensions than channels and positions")
        a, b = self.shape
        if min(a, b) > 1:
            self._emit(Layer(PICK, a * b, a * b, channels=b, filters=a, taps=0, dilation=b))
        self.shape = b, a

    def _mean(self, name: str, dim: Any = None, keepdim: Any = False) -> None:
        dims = dim if isinstance(dim, (tuple, list)) else (dim,)
        count = len(self.shape)
        if count > 2 or not isinstance(keepdim, bool) or any(not isinstance(n, int) for n in dims):
            raise NotAChain(f"`{name}` is no mean over positions or channels")
        over = sorted(n if n >= 0 else n + count + 1 for n in dims)
        if over not in ([1], [2], [1, 2]) or over[-1] > count:
            raise NotAChain(f"`{name}` is no mean over positions or channels")
        a, b = self.shape if count == 2 else (1, *self.shape)
        if over == [1] and count == 2:
            of: dict[str, Any] = {"channels": b, "steps": a, "filters": 1, "span": b}
        else:
            of = {"channels": a, "steps": b, "filters": b} if over == [2] else {"steps": a * b}
        made = of.get("channels", 1)
        self._emit(Layer(AVERAGE, a * b, made, **{"taps": of["steps"], "lanes": True, **of}))
        self.shape = tuple(1 if k + 1 in over else n for k, n in enumerate(self.shape) if keepdim or k + 1 not in over)


def _part_of(name: str, part: Any, size: int) -> tuple[int, int, int]:
    """Of one dimension the first, how far apart, how many."""
    if isinstance(part, int) and -size <= part < size:
        return part % size, 1, 1
    if isinstance(part, slice) and all(n is None or isinstance(n, int) for n in (part.start, part.stop, part.step)):
        found = range(*part.indices(size))
        if len(found):
            return found[0], found.step, len(found)
    raise NotAChain(f"`{name}` takes something else than positions known beforehand")


def _squeezes(node: fx.Node) -> bool:
    return node.target in ("squeeze", torch.squeeze) and (*node.args[1:], *node.kwargs.values()) == (0,)

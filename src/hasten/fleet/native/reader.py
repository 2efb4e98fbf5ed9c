"""Reads a module as a chain of layers that the kernel knows, or says why it is none."""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from hasten.fleet.naive import Residual
from hasten.fleet.native.chain import ACTIVATION, ACTS, CONV, LINEAR, NAMES, RECURRENT, Chain, Layer, fused, laid_out
from hasten.fleet.native.layers import MODULES, Shape, recurrent
from hasten.fleet.native.layers import NotAChain as NotAChain

BATCH = -2  # stands for the number of rows where a forward asks for sizes


def chain_of(module: nn.Module, row: Shape) -> Chain:
    """The chain that a module computes for rows of shape ``row``.

    Raises:
        NotAChain: there is none.
    """
    if type(module) is Residual:
        if len(row) != 1:
            raise NotAChain("rows of a residual are no windows")
        inner = chain_of(module.net, row)
        for layer in inner.layers:
            for name in NAMES:
                if getattr(layer, name):
                    setattr(layer, name, f"net.{getattr(layer, name)}")
        return replace(inner, season=min(module.season, row[0]))
    if any(not p.requires_grad for p in module.parameters()):
        raise NotAChain("some parameters are frozen")
    try:
        graph = fx.symbolic_trace(module)
    except Exception as error:
        raise NotAChain(f"its forward cannot be traced ({type(error).__name__})") from None
    reader = _Reader(graph, row)
    for node in graph.graph.nodes:
        reader.read(node)
    if len(reader.shape) > 1:
        raise NotAChain("it returns rows of more than one dimension")
    if not any(layer.kind in (LINEAR, CONV, RECURRENT) for layer in reader.layers):
        raise NotAChain("it has no linear layer, no convolution and no recurrent layer")
    inputs = math.prod(row)
    return Chain(tuple(laid_out(fused(reader.layers), inputs)), inputs, math.prod(reader.shape))


class _Reader:
    """Follows the graph of a forward, node by node.

    Attributes:
        shape: of a row behind the last node that gave a tensor.
        sizes: what nodes that ask for sizes gave: a number, or a whole shape with ``BATCH`` in front.
        noughts: shapes of tensors of noughts, which recurrent layers may be given to start from.
        parts: what nodes hold that are no tensor of rows: ``"both"``, a recurrent layer's states at all positions and
            its last ones; ``"last"``, its last ones, (layers, rows, units); ``"pair"``, an LSTM's last ones and cells.
    """

    def __init__(self, graph: fx.GraphModule, row: Shape) -> None:
        self.graph, self.shape = graph, row
        self.layers: list[Layer] = []
        self.last: fx.Node | None = None
        self.seen: set[str] = set()
        self.shapes: dict[fx.Node, Shape] = {}
        self.sizes: dict[fx.Node, Any] = {}
        self.noughts: dict[fx.Node, Any] = {}
        self.parts: dict[fx.Node, str] = {}

    def read(self, node: fx.Node) -> None:
        """Append what one node of the graph does."""
        if node.op == "output":
            if node.args[0] is not self.last:
                raise NotAChain("it returns more than one tensor")
            return
        if node.op == "placeholder":
            if self.last is not None:
                raise NotAChain("its forward takes more than one argument")
        elif self._asks_for_sizes(node) or self._is_nought(node) or (not node.users and node.args[0] in self.parts):
            return
        elif [n for n in node.all_input_nodes if n not in self.sizes and n not in self.noughts] != [self.last]:
            raise NotAChain(f"`{node.name}` takes something else than the layer before it")
        elif node.args[0] in self.parts:
            self._part(node, self.parts[node.args[0]])
        elif node.op == "call_module" and type(self.graph.get_submodule(str(node.target))) in (nn.GRU, nn.LSTM):
            self._recurrent(node)
        elif node.op == "call_module":
            self._module(str(node.target))
        elif node.op in ("call_function", "call_method"):
            self._function(node)
        else:
            raise NotAChain(f"`{node.name}` reads an attribute")
        self.last = node
        self.shapes[node] = self.shape

    def _asks_for_sizes(self, node: fx.Node) -> bool:
        of, rest = (node.args[0] if node.args else None), node.args[1:]
        if not isinstance(of, fx.Node) or node.kwargs:
            return False
        if of in self.sizes and node.target is operator.getitem:
            found = self.sizes[of]
            if not isinstance(found, tuple) or not isinstance(rest[0], int):
                return False
            self.sizes[node] = found[rest[0]]
        elif of in self.shapes and node.op == "call_function" and node.target is getattr:
            if rest not in (("shape",), ("device",), ("dtype",)):
                return False
            self.sizes[node] = (BATCH, *self.shapes[of]) if rest == ("shape",) else rest[0]
        elif of in self.shapes and node.op == "call_method" and node.target == "size":
            found = (BATCH, *self.shapes[of])
            self.sizes[node] = found[rest[0]] if rest and isinstance(rest[0], int) else found
        else:
            return False
        return True

    def _is_nought(self, node: fx.Node) -> bool:
        of = node.args[0] if node.args else None
        if node.op == "call_method" and of in self.noughts and node.target in ("to", "requires_grad_", "float"):
            self.noughts[node] = self.noughts[of]
            return True
        makes = node.op == "call_function" and node.target is torch.zeros
        if not (makes or (node.op == "call_method" and node.target == "new_zeros" and of in self.shapes)):
            return False
        given: Any = node.args if makes else node.args[1:]
        given = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
        self.noughts[node] = tuple(self.sizes.get(n) if isinstance(n, fx.Node) else n for n in given)
        return True

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
        self.layers += made
        self.parts[node] = "both"
        self.shape = (made[-1].steps, made[-1].units)

    def _part(self, node: fx.Node, of: str) -> None:
        """A part of what a recurrent layer gave: all states, or the last one of its last layer."""
        at, last = node.args[1] if len(node.args) == 2 else None, self.layers[-1]
        index = at[0] if isinstance(at, tuple) and at and all(part == slice(None) for part in at[1:]) else at
        taken = node.op == "call_function" and node.target is operator.getitem
        if taken and of == "both" and at in (0, 1):
            if at == 1:
                self.parts[node] = "last" if last.gates == 3 else "pair"
        elif taken and of == "pair" and at == 0:
            self.parts[node] = "last"
        elif of == "last" and (index in (-1, self._stacked - 1) if taken else self._squeezes(node)):
            last.outputs = last.units
            self.shape = (last.units,)
        else:
            raise NotAChain(f"`{node.name}` takes something else than a recurrent layer's states or its last one")

    @property
    def _stacked(self) -> int:
        """Layers of the recurrent module that was read last."""
        of = self.layers[-1].weight.rpartition("_l")
        return int(of[2]) + 1

    def _is_last_state(self, index: tuple[Any, ...]) -> bool:
        """Whether this is ``[:, -1]`` or ``[:, -1, :]`` of a recurrent layer's states."""
        last, whole = self.layers[-1] if self.layers else None, slice(None)
        if last is None or last.kind != RECURRENT or self.shape != (last.steps, last.units):
            return False
        return index in [(whole, at, *rest) for at in (-1, last.steps - 1) for rest in ((), (whole,))]

    def _squeezes(self, node: fx.Node) -> bool:
        named = node.target in ("squeeze", torch.squeeze)
        return named and self._stacked == 1 and (*node.args[1:], *node.kwargs.values()) == (0,)

    def _module(self, name: str) -> None:
        part = self._submodule(name)
        if isinstance(part, nn.Flatten):
            self._flatten(name, (part.start_dim, part.end_dim))
        elif isinstance(part, nn.Unflatten):
            self._unflatten(part, name)
        elif type(part) in MODULES:
            layer, self.shape = MODULES[type(part)](part, name, self.shape)
            self.layers.append(layer)
        elif type(part) is not nn.Identity:
            raise NotAChain(f"{name} is a {type(part).__name__}")

    def _function(self, node: fx.Node) -> None:
        name = _FUNCTIONS.get(node.target) if node.op == "call_function" else _METHODS.get(str(node.target))
        rest = (*node.args[1:], *node.kwargs.values())
        if name == "flatten":
            self._flatten(f"`{node.name}`", rest)
        elif name in ("view", "reshape"):
            self._reshape(node.name, rest)
        elif name in ("squeeze", "unsqueeze") and len(rest) == 1 and isinstance(rest[0], int):
            self._dimension(node.name, rest[0], name == "unsqueeze")
        elif name == "getitem":
            self._index(node.name, rest[0])
        elif name in ACTS and rest in ((), (False,), (True,)):  # computed in place or not
            width = math.prod(self.shape)
            self.layers.append(Layer(ACTIVATION, width, width, ACTS.index(name), 1.0))
        else:
            raise NotAChain(f"`{node.name}` is no layer the kernel knows")

    def _flatten(self, name: str, dims: tuple[Any, ...]) -> None:
        if dims not in ((1,), (1, -1), (1, len(self.shape))):
            raise NotAChain(f"{name} flattens only some dimensions")
        self.shape = (math.prod(self.shape),)

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
        """``x[:, None]`` and the like; the last position of a recurrent layer's states."""
        index, whole = index if isinstance(index, tuple) else (index,), slice(None)
        if ... in index:
            at, taken = index.index(...), sum(part is not None for part in index) - 1
            index = (*index[:at], *[whole] * (1 + len(self.shape) - taken), *index[at + 1 :])
        if self._is_last_state(index):
            last = self.layers[-1]
            last.outputs, self.shape = last.units, (last.units,)
            return
        if index[0] != whole or any(part is not None and part != whole for part in index):
            raise NotAChain(f"`{name}` takes a part of a row")
        old = iter(self.shape)
        new = [1 if part is None else next(old, 0) for part in index[1:]]
        self.shape = (*new, *old)


_FUNCTIONS: dict[Any, str] = {
    functional.relu: "relu", torch.relu: "relu", torch.tanh: "tanh", functional.tanh: "tanh", torch.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid", functional.silu: "silu", functional.gelu: "gelu", functional.selu: "selu",
    torch.selu: "selu", torch.flatten: "flatten", torch.squeeze: "squeeze", torch.unsqueeze: "unsqueeze",
    torch.reshape: "reshape", operator.getitem: "getitem",
}  # fmt: skip
_METHODS = {n: n for n in ("relu", "tanh", "sigmoid", "flatten", "squeeze", "unsqueeze", "view", "reshape")}

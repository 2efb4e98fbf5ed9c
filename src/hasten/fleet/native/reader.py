"""Reads a module as a chain of layers that the kernel knows, or says why it is none."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from hasten.fleet.naive import Residual
from hasten.fleet.native.chain import (
    ACTIVATION,
    ACTS,
    BATCHNORM,
    CONV,
    DROPOUT,
    LAYERNORM,
    LINEAR,
    NAMES,
    Chain,
    Layer,
    fused,
    laid_out,
)

Shape = tuple[int, ...]
BATCH = -2  # stands for the number of rows where a forward asks for sizes


class NotAChain(Exception):
    """The kernel cannot train this module; the text says why."""


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
    if not any(layer.kind in (LINEAR, CONV) for layer in reader.layers):
        raise NotAChain("it has no linear layer and no convolution")
    inputs = math.prod(row)
    return Chain(tuple(laid_out(fused(reader.layers), inputs)), inputs, math.prod(reader.shape))


class _Reader:
    """Follows the graph of a forward, node by node.

    Attributes:
        shape: of a row behind the last node that gave a tensor.
        sizes: what nodes that ask for sizes gave: a number, or a whole shape with ``BATCH`` in front.
    """

    def __init__(self, graph: fx.GraphModule, row: Shape) -> None:
        self.graph, self.shape = graph, row
        self.layers: list[Layer] = []
        self.last: fx.Node | None = None
        self.seen: set[str] = set()
        self.shapes: dict[fx.Node, Shape] = {}
        self.sizes: dict[fx.Node, Any] = {}

    def read(self, node: fx.Node) -> None:
        """Append what one node of the graph does."""
        if node.op == "output":
            if node.args[0] is not self.last:
                raise NotAChain("it returns more than one tensor")
            return
        if node.op == "placeholder":
            if self.last is not None:
                raise NotAChain("its forward takes more than one argument")
        elif self._asks_for_sizes(node):
            return
        elif [n for n in node.all_input_nodes if n not in self.sizes] != [self.last]:
            raise NotAChain(f"`{node.name}` takes something else than the layer before it")
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
        elif of in self.shapes and node.op == "call_function" and node.target is getattr and rest == ("shape",):
            self.sizes[node] = (BATCH, *self.shapes[of])
        elif of in self.shapes and node.op == "call_method" and node.target == "size":
            found = (BATCH, *self.shapes[of])
            self.sizes[node] = found[rest[0]] if rest and isinstance(rest[0], int) else found
        else:
            return False
        return True

    def _module(self, name: str) -> None:
        part = self.graph.get_submodule(name)
        if name in self.seen and list(part.parameters()):
            raise NotAChain(f"{name} is used twice")
        self.seen.add(name)
        if isinstance(part, nn.Flatten):
            self._flatten(name, (part.start_dim, part.end_dim))
        elif isinstance(part, nn.Unflatten):
            self._unflatten(part, name)
        elif type(part) in _MODULES:
            layer, self.shape = _MODULES[type(part)](part, name, self.shape)
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
        """``x[:, None]`` and the like."""
        index = index if isinstance(index, tuple) else (index,)
        whole = slice(None)
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

Made = tuple[Layer, Shape]


def _act(kind: str, p: Callable[[Any], float] = lambda m: 1.0) -> Callable[[Any, str, Shape], Made]:
    def make(m: Any, name: str, shape: Shape) -> Made:
        width = math.prod(shape)
        return Layer(ACTIVATION, width, width, ACTS.index(kind), p(m)), shape

    return make


def _gelu(m: nn.GELU, name: str, shape: Shape) -> Made:
    return _act("gelu" if m.approximate == "none" else "gelu_tanh")(m, name, shape)


def _dropout(m: nn.Dropout, name: str, shape: Shape) -> Made:
    return Layer(DROPOUT, math.prod(shape), math.prod(shape), p=m.p), shape


def _linear(m: nn.Linear, name: str, shape: Shape) -> Made:
    if shape != (m.in_features,):
        raise NotAChain(f"{name} wants {m.in_features} inputs and gets rows of shape {shape}")
    return Layer(LINEAR, m.in_features, m.out_features, **_given(m, name)), (m.out_features,)


def _conv(m: nn.Conv1d, name: str, shape: Shape) -> Made:
    if len(shape) != 2 or shape[0] != m.in_channels:
        raise NotAChain(f"{name} wants {m.in_channels} channels and gets rows of shape {shape}")
    if m.padding_mode != "zeros":
        raise NotAChain(f"{name} pads by something else than noughts")
    (taps,), (stride,), (dilation,), length = m.kernel_size, m.stride, m.dilation, shape[1]
    reach = dilation * (taps - 1)
    both = {"same": reach, "valid": 0}[m.padding] if isinstance(m.padding, str) else 2 * m.padding[0]
    made = (length + both - reach - 1) // stride + 1
    if made < 1:
        raise NotAChain(f"{name} is longer than its input")
    layer = Layer(
        CONV, m.in_channels * length, m.out_channels * made, **_given(m, name), lanes=True, channels=m.in_channels,
        filters=m.out_channels, taps=taps, stride=stride, dilation=dilation, pad=both // 2, groups=m.groups,
    )  # fmt: skip
    return layer, (m.out_channels, made)


def _layer_norm(m: nn.LayerNorm, name: str, shape: Shape) -> Made:
    own = tuple(m.normalized_shape)
    if not shape or shape[-len(own) :] != own:
        raise NotAChain(f"{name} normalises {own} and gets rows of shape {shape}")
    width = math.prod(shape)
    lanes = own != shape or len(shape) > 1
    return Layer(LAYERNORM, width, width, eps=m.eps, span=math.prod(own), lanes=lanes, **_given(m, name)), shape


def _batch_norm(m: nn.BatchNorm1d, name: str, shape: Shape) -> Made:
    if not m.track_running_stats or m.momentum is None:
        raise NotAChain(f"{name} keeps no running statistics by momentum")
    if len(shape) not in (1, 2) or shape[0] != m.num_features:
        raise NotAChain(f"{name} wants {m.num_features} channels and gets rows of shape {shape}")
    kept = {"mean": "running_mean", "var": "running_var", "counter": "num_batches_tracked"}
    given = _given(m, name) | {k: f"{name}.{v}" for k, v in kept.items()}
    width, lanes = math.prod(shape), len(shape) == 2
    span = width // shape[0]
    return Layer(BATCHNORM, width, width, eps=m.eps, momentum=m.momentum, span=span, lanes=lanes, **given), shape


def _given(m: Any, name: str) -> dict[str, Any]:
    return {k: f"{name}.{k}" for k in ("weight", "bias") if getattr(m, k) is not None}


_MODULES: dict[type[nn.Module], Callable[[Any, str, Shape], Made]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.Dropout: _dropout,
    nn.ReLU: _act("relu"),
    nn.LeakyReLU: _act("leaky", lambda m: m.negative_slope),
    nn.ELU: _act("elu", lambda m: m.alpha),
    nn.SELU: _act("selu"),
    nn.SiLU: _act("silu"),
    nn.Sigmoid: _act("sigmoid"),
    nn.Tanh: _act("tanh"),
    nn.GELU: _gelu,
}

"""Reads a module as a chain of layers that the kernel knows, or says why it is none."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from hasten.fleet.losses import KINDS, Loss
from hasten.fleet.naive import Residual
from hasten.fleet.native.build import Config, Op
from hasten.fleet.recipe import OPTIMIZERS, Recipe
from hasten.fleet.state import Layout

LINEAR, ACTIVATION, DROPOUT, LAYERNORM, BATCHNORM = range(5)
NAMES = ("weight", "bias", "mean", "var", "counter")
ACTS = ("none", "relu", "leaky", "elu", "selu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh")


class NotAChain(Exception):
    """The kernel cannot train this module; the text says why."""


@dataclass
class Layer:
    """One layer: what ``Op`` holds, with names of tensors in place of offsets."""

    kind: int
    inputs: int
    outputs: int
    act: int = 0
    p: float = 0.0
    eps: float = 0.0
    momentum: float = 0.0
    weight: str = ""
    bias: str = ""
    mean: str = ""
    var: str = ""
    counter: str = ""


@dataclass(frozen=True)
class Chain:
    """A module as layers one after the other.

    Attributes:
        inputs, outputs: numbers in a row of X (flattened) and of the prediction.
        season: of the ``naive.Residual`` that the layers are wrapped in; 0 for none.
    """

    layers: tuple[Layer, ...]
    inputs: int
    outputs: int
    season: int = 0


def chain_of(module: nn.Module, row: tuple[int, ...]) -> Chain:
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
    width = 1
    for n in row:
        width *= n
    reader = _Reader(graph, width, len(row) == 1)
    for node in graph.graph.nodes:
        reader.read(node)
    if not any(layer.kind == LINEAR for layer in reader.layers):
        raise NotAChain("it has no linear layer")
    return Chain(tuple(_fused(reader.layers)), width, reader.width)


def _fused(layers: list[Layer]) -> list[Layer]:
    """ReLU behind a linear layer becomes part of it."""
    out: list[Layer] = []
    for layer in layers:
        last = out[-1] if out else None
        if layer.kind == ACTIVATION and ACTS[layer.act] == "relu" and last and last.kind == LINEAR and not last.act:
            last.act = layer.act
        else:
            out.append(layer)
    return out


class _Reader:
    def __init__(self, graph: fx.GraphModule, width: int, flat: bool) -> None:
        self.graph, self.width, self.flat = graph, width, flat
        self.layers: list[Layer] = []
        self.last: fx.Node | None = None
        self.seen: set[str] = set()

    def read(self, node: fx.Node) -> None:
        """Append what one node of the graph does."""
        if node.op == "placeholder":
            if self.last is not None:
                raise NotAChain("its forward takes more than one argument")
        elif node.op == "output":
            if node.args[0] is not self.last:
                raise NotAChain("it returns more than one tensor")
            return
        else:
            if list(node.all_input_nodes) != [self.last]:
                raise NotAChain(f"`{node.name}` takes something else than the layer before it")
            if node.op == "call_module":
                self._module(str(node.target))
            elif node.op in ("call_function", "call_method"):
                self._function(node)
            else:
                raise NotAChain(f"`{node.name}` reads an attribute")
        self.last = node

    def _module(self, name: str) -> None:
        part = self.graph.get_submodule(name)
        if name in self.seen and list(part.parameters()):
            raise NotAChain(f"{name} is used twice")
        self.seen.add(name)
        make = _MODULES.get(type(part))
        if make is None:
            raise NotAChain(f"{name} is a {type(part).__name__}")
        if not isinstance(part, nn.Flatten | nn.Identity) and not self.flat:
            raise NotAChain(f"{name} sees rows of more than one dimension")
        if isinstance(part, nn.Flatten):
            if part.start_dim != 1 or part.end_dim != -1:
                raise NotAChain(f"{name} flattens only some dimensions")
            self.flat = True
        for layer in make(part, name, self.width):
            self.layers.append(layer)
            self.width = layer.outputs

    def _function(self, node: fx.Node) -> None:
        name = _FUNCTIONS.get(node.target) if node.op == "call_function" else _METHODS.get(str(node.target))
        rest = (*node.args[1:], *node.kwargs.values())
        if name == "flatten":
            if rest not in ((1,), (1, -1)):
                raise NotAChain(f"`{node.name}` flattens only some dimensions")
            self.flat = True
        elif name == "squeeze":
            if rest not in ((-1,), (1,)) or self.width != 1:
                raise NotAChain(f"`{node.name}` changes the shape")
        elif name in ACTS and self.flat and (not rest or rest == (False,)):
            self.layers.append(Layer(ACTIVATION, self.width, self.width, ACTS.index(name), 1.0))
        else:
            raise NotAChain(f"`{node.name}` is no layer the kernel knows")


_FUNCTIONS: dict[Any, str] = {
    functional.relu: "relu", torch.relu: "relu", torch.tanh: "tanh", functional.tanh: "tanh", torch.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid", functional.silu: "silu", functional.gelu: "gelu", torch.flatten: "flatten",
    torch.squeeze: "squeeze",
}  # fmt: skip
_METHODS = {n: n for n in ("relu", "tanh", "sigmoid", "flatten", "squeeze")}


def _act(kind: str, p: Callable[[Any], float] = lambda m: 1.0) -> Callable[[Any, str, int], list[Layer]]:
    return lambda m, name, width: [Layer(ACTIVATION, width, width, ACTS.index(kind), p(m))]


def _linear(m: nn.Linear, name: str, width: int) -> list[Layer]:
    if m.in_features != width:
        raise NotAChain(f"{name} wants {m.in_features} inputs and gets {width}")
    bias = f"{name}.bias" if m.bias is not None else ""
    return [Layer(LINEAR, width, m.out_features, weight=f"{name}.weight", bias=bias)]


def _layer_norm(m: nn.LayerNorm, name: str, width: int) -> list[Layer]:
    if tuple(m.normalized_shape) != (width,):
        raise NotAChain(f"{name} normalises something else than a row")
    given: dict[str, Any] = {k: f"{name}.{k}" for k in ("weight", "bias") if getattr(m, k) is not None}
    return [Layer(LAYERNORM, width, width, eps=m.eps, **given)]


def _batch_norm(m: nn.BatchNorm1d, name: str, width: int) -> list[Layer]:
    if m.num_features != width or not m.track_running_stats or m.momentum is None:
        raise NotAChain(f"{name} keeps no running statistics by momentum")
    given: dict[str, Any] = {k: f"{name}.{k}" for k in ("weight", "bias") if getattr(m, k) is not None}
    kept = {"mean": "running_mean", "var": "running_var", "counter": "num_batches_tracked"}
    given |= {k: f"{name}.{v}" for k, v in kept.items()}
    return [Layer(BATCHNORM, width, width, eps=m.eps, momentum=m.momentum, **given)]


_MODULES: dict[type[nn.Module], Callable[[Any, str, int], list[Layer]]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.Dropout: lambda m, name, width: [Layer(DROPOUT, width, width, p=m.p)],
    nn.Flatten: lambda m, name, width: [],
    nn.Identity: lambda m, name, width: [],
    nn.ReLU: _act("relu"),
    nn.LeakyReLU: _act("leaky", lambda m: m.negative_slope),
    nn.ELU: _act("elu", lambda m: m.alpha),
    nn.SELU: _act("selu"),
    nn.SiLU: _act("silu"),
    nn.Sigmoid: _act("sigmoid"),
    nn.Tanh: _act("tanh"),
    nn.GELU: lambda m, name, width: _act("gelu" if m.approximate == "none" else "gelu_tanh")(m, name, width),
}


def compiled(chain: Chain, layout: Layout, recipe: Recipe) -> tuple[Any, Config]:
    """The chain as the kernel's structures. Layers' tensors are named as ``layout`` names them."""
    at = {e.name: e.start for e in layout.entries} | {"": -1}
    ops = [
        Op(
            a.kind, a.inputs, a.outputs, a.act, a.p, a.eps, a.momentum, 0.0,
            *(at[getattr(a, name)] for name in NAMES),
        )
        for a in chain.layers
    ]  # fmt: skip
    assert isinstance(recipe.loss, Loss)
    config = Config(
        len(ops), recipe.batch_size, KINDS.index(recipe.loss.kind), OPTIMIZERS.index(recipe.optimizer),
        recipe.nesterov, chain.inputs, chain.outputs, layout.total, layout.trained, chain.season,
        recipe.loss.parameter, recipe.momentum, *recipe.betas, recipe.eps, recipe.clip or 0.0,
    )  # fmt: skip
    return (Op * len(ops))(*ops), config


def target_width(chain: Chain, recipe: Recipe) -> int:
    """Target columns the kernel reads."""
    assert isinstance(recipe.loss, Loss)
    return 1 if recipe.loss.kind == "cross_entropy" else operator.index(chain.outputs)

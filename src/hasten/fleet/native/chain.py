"""A module as a chain of layers that the kernel knows, which ``reader`` finds, and its form for the kernel."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hasten.fleet.losses import KINDS, Loss
from hasten.fleet.native.build import NAMES as NAMES
from hasten.fleet.native.build import SHAPE, Config, Op
from hasten.fleet.recipe import OPTIMIZERS, Recipe
from hasten.fleet.state import Layout

LINEAR, ACTIVATION, DROPOUT, LAYERNORM, BATCHNORM, CONV, TURN, RECURRENT, ADD, PICK, AVERAGE, MAXIMUM = range(12)
NOTHING = -2  # in place of a second layer's number
ACTS = ("none", "relu", "leaky", "elu", "selu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh",
        "softplus", "mish", "celu", "softsign", "relu6", "hardtanh", "hardswish")  # fmt: skip


@dataclass(eq=False)
class Layer:
    """One layer: what ``Op`` holds, with names of tensors in place of offsets, and layers in place of their numbers.

    Attributes:
        inputs, outputs: numbers of a row.
        span: numbers that a layer norm takes together, or that a channel of a batch norm has.
        lanes: whether it works on rows that lie side by side (``lanes.inc``); of a ``TURN``: whether it makes them so.
        channels, filters, taps, stride, dilation, pad, groups: of a convolution. Of a ``PICK``: it takes `channels` by
            `filters` numbers, the first at `taps`, `stride` and `dilation` apart. Of a pool: `channels` of `steps`
            positions; channels lie `filters` apart, and positions `span`.
        sources: the layers that it takes the output of, two of an ``ADD``; None for the model's input.
        gates, steps, units: of a recurrent layer: gates that have weights, positions, width of its state.
    """

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
    span: int = 1
    lanes: bool = False
    channels: int = 1
    filters: int = 1
    taps: int = 1
    stride: int = 1
    dilation: int = 1
    pad: int = 0
    groups: int = 1
    state_weight: str = ""
    state_bias: str = ""
    gates: int = 0
    steps: int = 0
    units: int = 0
    sources: tuple[Layer | None, ...] = (None,)


@dataclass(frozen=True)
class Chain:
    """A module as layers, each behind those that it takes from. The last one's output is the model's.

    Attributes:
        inputs, outputs: numbers in a row of X (flattened) and of the prediction.
        season: of the ``naive.Residual`` that the layers are wrapped in; 0 for none.
    """

    layers: tuple[Layer, ...]
    inputs: int
    outputs: int
    season: int = 0


def fused(layers: Sequence[Layer]) -> list[Layer]:
    """Joins layers with the only one that takes from them: ReLU behind a linear layer or a convolution, and the choice
    of its last state behind a recurrent layer."""
    takers = collections.Counter(id(source) for layer in layers for source in layer.sources)
    out: list[Layer] = []
    joined: dict[int, Layer] = {}
    for layer in layers:
        layer.sources = tuple(joined.get(id(source), source) for source in layer.sources)
        last = layer.sources[0]
        if last is not None and takers[id(last)] == 1 and _joins(layer, last):
            joined[id(layer)] = last
            takers[id(last)] = takers[id(layer)]
        else:
            out.append(layer)
    return out


def _joins(layer: Layer, last: Layer) -> bool:
    if layer.kind == ACTIVATION and ACTS[layer.act] == "relu" and last.kind in (LINEAR, CONV) and not last.act:
        last.act = layer.act
        return True
    if layer.kind == PICK and last.kind == RECURRENT and last.outputs == last.steps * last.units:
        whole = layer.channels == 1 and layer.filters == last.units and layer.dilation == 1
        if whole and layer.taps == (last.steps - 1) * last.units:
            last.outputs = last.units
            return True
    return False


def renamed(chain: Chain, new: Callable[[str], str]) -> Chain:
    """The same chain, whose layers' tensors have other names now."""
    for layer in chain.layers:
        for name in NAMES:
            if getattr(layer, name):
                setattr(layer, name, new(getattr(layer, name)))
    return chain


def laid_out(layers: Sequence[Layer], inputs: int) -> list[Layer]:
    """The layers with a ``TURN`` wherever rows must come to lie side by side, or one after the other again.

    Args:
        layers: those that work on channels and positions say so by ``lanes``. What follows stays as it is up to the
            next layer that works on whole rows.
        inputs: numbers in a row of X.
    """
    out: list[Layer] = []
    turned: dict[tuple[int, bool], Layer] = {}

    def turn(of: Layer | None, lanes: bool) -> Layer | None:
        if (of is not None and of.lanes) == lanes:
            return of
        if (id(of), lanes) not in turned:
            width = inputs if of is None else of.outputs
            turned[id(of), lanes] = Layer(TURN, width, width, lanes=lanes, sources=(of,))
            out.append(turned[id(of), lanes])
        return turned[id(of), lanes]

    for layer in layers:
        if not layer.lanes and layer.kind not in (LINEAR, RECURRENT):
            first = layer.sources[0]
            layer.lanes = first is not None and first.lanes
        layer.sources = tuple(turn(source, layer.lanes) for source in layer.sources)
        out.append(layer)
    turn(out[-1], False)
    return out


def compiled(chain: Chain, layout: Layout, recipe: Recipe) -> tuple[Any, Config]:
    """The chain as the kernel's structures. Layers' tensors are named as ``layout`` names them."""
    at = {e.name: e.start for e in layout.entries} | {"": -1}
    number = {id(layer): k for k, layer in enumerate(chain.layers)} | {id(None): -1}
    ops = [
        Op(
            a.kind, a.inputs, a.outputs, a.act, a.p, a.eps, a.momentum, a.span,
            *(at[getattr(a, name)] for name in NAMES), *(int(getattr(a, name)) for name in SHAPE),
            number[id(a.sources[0])], number[id(a.sources[1])] if a.kind == ADD else NOTHING,
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

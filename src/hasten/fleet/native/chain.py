"""A module as a chain of layers that the kernel knows, which ``reader`` finds, and its form for the kernel."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hasten.fleet.losses import KINDS, Loss
from hasten.fleet.native.build import NAMES as NAMES
from hasten.fleet.native.build import SHAPE, Config, Op
from hasten.fleet.recipe import OPTIMIZERS, Recipe
from hasten.fleet.state import Layout

LINEAR, ACTIVATION, DROPOUT, LAYERNORM, BATCHNORM, CONV, TURN, RECURRENT = range(8)
ACTS = ("none", "relu", "leaky", "elu", "selu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh")


@dataclass
class Layer:
    """One layer: what ``Op`` holds, with names of tensors in place of offsets.

    Attributes:
        inputs, outputs: numbers of a row.
        span: numbers that a layer norm takes together, or that a channel of a batch norm has.
        lanes: whether it works on rows that lie side by side (``lanes.inc``); of a ``TURN``: whether it makes them so.
        channels, filters, taps, stride, dilation, pad, groups: of a convolution.
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


def fused(layers: Sequence[Layer]) -> list[Layer]:
    """ReLU behind a linear layer or a convolution becomes part of it."""
    out: list[Layer] = []
    for layer in layers:
        last = out[-1] if out else None
        relu = layer.kind == ACTIVATION and ACTS[layer.act] == "relu"
        if relu and last and last.kind in (LINEAR, CONV) and not last.act:
            last.act = layer.act
        else:
            out.append(layer)
    return out


def laid_out(layers: Sequence[Layer], inputs: int) -> list[Layer]:
    """The layers with a ``TURN`` wherever rows must come to lie side by side, or one after the other again.

    Args:
        layers: those that work on channels and positions say so by ``lanes``. What follows stays as it is up to the
            next linear layer.
        inputs: numbers in a row of X.
    """
    out: list[Layer] = []
    lanes, width = False, inputs

    def turn(to: bool) -> None:
        nonlocal lanes
        if lanes != to:
            out.append(Layer(TURN, width, width, lanes=to))
            lanes = to

    for layer in layers:
        if layer.lanes or layer.kind in (LINEAR, RECURRENT):
            turn(layer.lanes)
        layer.lanes = lanes
        out.append(layer)
        width = layer.outputs
    turn(False)
    return out


def compiled(chain: Chain, layout: Layout, recipe: Recipe) -> tuple[Any, Config]:
    """The chain as the kernel's structures. Layers' tensors are named as ``layout`` names them."""
    at = {e.name: e.start for e in layout.entries} | {"": -1}
    ops = [
        Op(
            a.kind, a.inputs, a.outputs, a.act, a.p, a.eps, a.momentum, a.span,
            *(at[getattr(a, name)] for name in NAMES), *(int(getattr(a, name)) for name in SHAPE),
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

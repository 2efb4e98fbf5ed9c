"""Torch's modules as layers that the kernel knows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hasten.fleet.native.chain import (
    ACTIVATION,
    ACTS,
    AVERAGE,
    BATCHNORM,
    CONV,
    DROPOUT,
    LAYERNORM,
    LINEAR,
    MAXIMUM,
    RECURRENT,
    Layer,
)

Shape = tuple[int, ...]


class NotAChain(Exception):
    """The kernel cannot train this module; the text says why."""


def recurrent(m: nn.GRU | nn.LSTM, name: str, shape: Shape) -> list[Layer]:
    """Each layer of a GRU or LSTM, giving its states at all positions. shape: (positions, inputs).

    Raises:
        NotAChain: it is of a kind that the kernel does not know, or gets other rows.
    """
    if m.bidirectional or m.proj_size or (m.dropout and m.num_layers > 1) or not m.batch_first:
        raise NotAChain(f"{name} has two directions, projections, dropout between layers, or not batch_first")
    if len(shape) != 2 or shape[1] != m.input_size:
        raise NotAChain(f"{name} wants {m.input_size} inputs a position and gets rows of shape {shape}")
    steps, units = shape[0], m.hidden_size
    names: dict[str, Any] = {"weight": "weight_ih", "state_weight": "weight_hh"}
    if m.bias:
        names |= {"bias": "bias_ih", "state_bias": "bias_hh"}
    made = []
    for k in range(m.num_layers):
        inputs = units if k else m.input_size
        given: dict[str, Any] = {field: f"{name}.{of}_l{k}" for field, of in names.items()}
        gates = 3 if isinstance(m, nn.GRU) else 4
        made.append(Layer(RECURRENT, steps * inputs, steps * units, gates=gates, steps=steps, units=units, **given))
    return made


Made = tuple[Layer, Shape]


def _act(kind: str, p: Callable[[Any], float] = lambda m: 1.0) -> Callable[[Any, str, Shape], Made]:
    def make(m: Any, name: str, shape: Shape) -> Made:
        width = math.prod(shape)
        return Layer(ACTIVATION, width, width, ACTS.index(kind), p(m)), shape

    return make


def _gelu(m: nn.GELU, name: str, shape: Shape) -> Made:
    return _act("gelu" if m.approximate == "none" else "gelu_tanh")(m, name, shape)


def _softplus(m: nn.Softplus, name: str, shape: Shape) -> Made:
    if m.threshold != 20:
        raise NotAChain(f"{name} has a threshold of its own")
    return _act("softplus", lambda m: m.beta)(m, name, shape)


def _hardtanh(m: nn.Hardtanh, name: str, shape: Shape) -> Made:
    if m.min_val != -m.max_val:
        raise NotAChain(f"{name} has limits of unequal size")
    return _act("hardtanh", lambda m: m.max_val)(m, name, shape)


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


def _pool(m: nn.AvgPool1d | nn.MaxPool1d, name: str, shape: Shape) -> Made:
    taps, stride, pad = (n[0] if isinstance(n, tuple) else n for n in (m.kernel_size, m.stride, m.padding))
    average = isinstance(m, nn.AvgPool1d)
    dilation = 1 if average else m.dilation[0] if isinstance(m.dilation, tuple) else m.dilation
    if len(shape) != 2 or m.ceil_mode or (average and pad and not m.count_include_pad):
        raise NotAChain(f"{name} pools rows of shape {shape}, by ceil_mode, or by other shares at the ends")
    if not all(isinstance(n, int) for n in (taps, stride, pad, dilation)):
        raise NotAChain(f"{name} pools by sizes that are computed")
    made = (shape[1] + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
    if made < 1:
        raise NotAChain(f"{name} is longer than its input")
    starts = range(-pad, made * stride - pad, stride)
    if any(not any(0 <= at + k * dilation < shape[1] for k in range(taps)) for at in starts):
        raise NotAChain(f"{name} has windows that hold no position")
    layer = Layer(
        AVERAGE if average else MAXIMUM, math.prod(shape), shape[0] * made, lanes=True, channels=shape[0],
        filters=shape[1], steps=shape[1], taps=taps, stride=stride, dilation=dilation, pad=pad,
    )  # fmt: skip
    return layer, (shape[0], made)


def _adaptive(kind: type[nn.Module]) -> Callable[[Any, str, Shape], Made]:
    def make(m: Any, name: str, shape: Shape) -> Made:
        made = m.output_size[0] if isinstance(m.output_size, tuple) else m.output_size
        if len(shape) != 2 or not isinstance(made, int) or made < 1 or shape[1] % made:
            raise NotAChain(f"{name} makes {made} positions of rows of shape {shape}")
        return _pool(kind(shape[1] // made), name, shape)

    return make


def _given(m: Any, name: str) -> dict[str, Any]:
    return {k: f"{name}.{k}" for k in ("weight", "bias") if getattr(m, k) is not None}


MODULES: dict[type[nn.Module], Callable[[Any, str, Shape], Made]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.AvgPool1d: _pool,
    nn.MaxPool1d: _pool,
    nn.AdaptiveAvgPool1d: _adaptive(nn.AvgPool1d),
    nn.AdaptiveMaxPool1d: _adaptive(nn.MaxPool1d),
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
    nn.Softplus: _softplus,
    nn.Mish: _act("mish"),
    nn.CELU: _act("celu", lambda m: m.alpha),
    nn.Softsign: _act("softsign"),
    nn.ReLU6: _act("relu6"),
    nn.Hardtanh: _hardtanh,
    nn.Hardswish: _act("hardswish"),
}
FUNCTIONS: dict[str, Callable[..., nn.Module]] = {  # of torch.nn.functional that take arguments as a module does
    "max_pool1d": nn.MaxPool1d, "avg_pool1d": nn.AvgPool1d, "adaptive_avg_pool1d": nn.AdaptiveAvgPool1d,
    "adaptive_max_pool1d": nn.AdaptiveMaxPool1d, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "celu": nn.CELU,
    "gelu": nn.GELU, "softplus": nn.Softplus, "hardtanh": nn.Hardtanh,
}  # fmt: skip
CALLED: dict[Any, str] = {  # functions by what they do
    functional.relu: "relu", torch.relu: "relu", torch.tanh: "tanh", functional.tanh: "tanh", torch.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid", functional.silu: "silu", functional.gelu: "gelu", functional.selu: "selu",
    torch.selu: "selu", torch.flatten: "flatten", torch.squeeze: "squeeze", torch.unsqueeze: "unsqueeze",
    torch.reshape: "reshape", operator.getitem: "getitem", torch.transpose: "transpose", torch.permute: "permute",
    torch.mean: "mean", functional.max_pool1d: "max_pool1d", functional.avg_pool1d: "avg_pool1d",
    functional.adaptive_avg_pool1d: "adaptive_avg_pool1d", functional.adaptive_max_pool1d: "adaptive_max_pool1d",
    functional.leaky_relu: "leaky_relu", functional.elu: "elu", functional.softplus: "softplus",
    functional.mish: "mish", functional.celu: "celu", functional.softsign: "softsign", functional.relu6: "relu6",
    functional.hardtanh: "hardtanh", functional.hardswish: "hardswish",
}  # fmt: skip
METHODS = {
    n: n
    for n in (
        "relu", "tanh", "sigmoid", "flatten", "squeeze", "unsqueeze", "view", "reshape", "transpose", "permute", "mean",
        "contiguous",
    )
}  # fmt: skip

"""Modules in a form that ``torch.func.vmap`` can stack: same tensors, same names, same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hasten.fleet.described import own_ways
from hasten.fleet.modules import replace


class CannotStack(Exception):
    """These models cannot be trained as a stack; the text says why."""


def up(count: int) -> int:
    """``count`` as a multiple of 16 numbers, 64 bytes: so every model's piece of an array begins on a cache line.

    Libraries choose their kernels by alignment, too; a model's bits must not depend on its place in a stack.
    """
    return -(-count // 16) * 16


class StackLinear(nn.Module):  # type: ignore[misc]
    """``nn.Linear`` whose weight, and so its gradient, is aligned alike for every model of a stack."""

    def __init__(self, old: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = old.weight, old.bias
        self.pad = (0, up(old.in_features) - old.in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, …, inputs), float32."""
        if not self.pad[1]:
            return nn.functional.linear(x, self.weight, self.bias)
        pad = nn.functional.pad
        return nn.functional.linear(pad(x, self.pad), pad(self.weight, self.pad), self.bias)


class StackDropout(nn.Module):  # type: ignore[misc]
    """``nn.Dropout`` whose mask is handed in, since each model of a stack draws from its own stream."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.calls = 0
        self.shape: tuple[int, ...] = ()
        self.register_buffer("mask", torch.ones(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, …), float32."""
        if not self.training or self.p == 0:
            return x
        self.calls += 1
        self.shape = tuple(x.shape)
        return x * self.get_buffer("mask")


class StackBatchNorm(nn.Module):  # type: ignore[misc]
    """Batch normalisation over the rows that count, so that a short last batch can be padded.

    The batch's statistics as in Ioffe and Szegedy (2015); running statistics by momentum, as ``nn.BatchNorm1d`` keeps
    them.
    """

    def __init__(self, old: Any) -> None:
        super().__init__()
        if old.momentum is None or not old.track_running_stats:
            raise CannotStack("a batch norm keeps no running statistics by momentum")
        self.eps, self.momentum = old.eps, old.momentum
        self.weight, self.bias = old.weight, old.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(old, name))
        self.register_buffer("rows", torch.ones(()), persistent=False)
        self.positions = 0  # of a channel, when it was last called

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, channels, …), float32."""
        each = (1, -1, *[1] * (x.dim() - 2))
        self.positions = x[0, 0].numel()
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if self.training:
            count = self.get_buffer("rows").reshape(-1, *[1] * (x.dim() - 1))
            dims = [0, *range(2, x.dim())]
            n = count.sum() * self.positions
            mean = (x * count).sum(dims) / n
            var = ((x - mean.reshape(each)).square() * count).sum(dims) / n
            with torch.no_grad():
                a = self.momentum
                self.get_buffer("running_mean").mul_(1 - a).add_(a * mean)
                self.get_buffer("running_var").mul_(1 - a).add_(a * var * n / (n - 1))
        x = (x - mean.reshape(each)) * torch.rsqrt(var.reshape(each) + self.eps)
        return x if self.weight is None else x * self.weight.reshape(each) + self.bias.reshape(each)


class Unrolled(nn.Module):  # type: ignore[misc]
    """``nn.GRU`` and ``nn.LSTM`` step by step: ``vmap`` has no rule for the fused ones."""

    def __init__(self, old: Any) -> None:
        super().__init__()
        if old.bidirectional or getattr(old, "proj_size", 0) or (old.dropout and old.num_layers > 1):
            raise CannotStack(f"a {type(old).__name__} with two directions, projections or dropout between layers")
        self.layers, self.hidden, self.first = old.num_layers, old.hidden_size, old.batch_first
        self.gated = isinstance(old, nn.GRU)
        self.biased = old.bias
        for name, parameter in old.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """x: (time, rows, features), or (rows, time, features) with ``batch_first``."""
        if state is not None:
            raise CannotStack("a recurrent layer is given its first state")
        if self.first:
            x = x.transpose(0, 1)
        ends = []
        for layer in range(self.layers):
            x, end = self._layer(x, layer)
            ends.append(end)
        out = x.transpose(0, 1) if self.first else x
        if self.gated:
            return out, torch.stack([h for h, _ in ends])
        return out, (torch.stack([h for h, _ in ends]), torch.stack([c for _, c in ends]))

    def _layer(self, x: torch.Tensor, layer: int) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        part = {n: getattr(self, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh")}
        bias = {n: getattr(self, f"{n}_l{layer}") for n in ("bias_ih", "bias_hh")} if self.biased else {}
        inputs = nn.functional.linear(x, part["weight_ih"], bias.get("bias_ih"))  # all times at once
        h = torch.zeros_like(inputs[0, :, : self.hidden])
        c, out = h, []
        for now in inputs.unbind(0):
            before = nn.functional.linear(h, part["weight_hh"], bias.get("bias_hh"))
            h, c = self._gru(now, before, h) if self.gated else self._lstm(now + before, c)
            out.append(h)
        return torch.stack(out), (h, c)

    def _gru(self, now: torch.Tensor, before: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (ri, zi, ni), (rh, zh, nh) = now.chunk(3, -1), before.chunk(3, -1)
        r, z = torch.sigmoid(ri + rh), torch.sigmoid(zi + zh)
        n = torch.tanh(ni + r * nh)
        new = n + z * (h - n)
        return new, new

    def _lstm(self, gates: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


_STACKED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), StackBatchNorm),
    **dict.fromkeys((nn.GRU, nn.LSTM), Unrolled),
    nn.Linear: StackLinear,
    nn.Dropout: lambda old: StackDropout(old.p),
}


def stackable(module: nn.Module) -> nn.Module:
    """A copy of ``module`` that can be stacked.

    Raises:
        CannotStack: it holds something that cannot be.
    """
    if why := own_ways(module):
        raise CannotStack(why)
    module = replace(module, _STACKED)
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd | nn.RNN | nn.modules.batchnorm._BatchNorm):
            raise CannotStack(f"a {type(part).__name__}, which draws or keeps numbers for a whole stack")
    return module

"""Modules in a form that ``torch.func.vmap`` can stack: same tensors, same names, same results."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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


class StackInstanceNorm(nn.Module):  # type: ignore[misc]
    """``nn.InstanceNorm1d`` and so on as what they are, group norms with a group a channel: a tape holds those."""

    def __init__(self, old: Any) -> None:
        super().__init__()
        if old.track_running_stats:
            raise CannotStack(f"a {type(old).__name__} keeps running statistics")
        self.eps, self.weight, self.bias = old.eps, old.weight, old.bias
        self.dims = old._get_no_batch_dim() + 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, channels, …), float32."""
        if x.dim() != self.dims:
            raise CannotStack("an instance norm sees a row as one channel of a sample, and no batch of samples")
        return nn.functional.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


class StackLocalNorm(nn.Module):  # type: ignore[misc]
    """``nn.LocalResponseNorm`` (Krizhevsky, Sutskever and Hinton 2012) with a pool over two dimensions, which a tape
    holds, in place of torch's over three."""

    def __init__(self, old: nn.LocalResponseNorm) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = old.size, old.alpha, old.beta, old.k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, channels, …), float32."""
        squares = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
        padded = nn.functional.pad(squares, (0, 0, self.size // 2, (self.size - 1) // 2))
        mean = nn.functional.avg_pool2d(padded, (self.size, 1), 1).reshape(x.shape)
        return x / (mean * self.alpha + self.k) ** self.beta


class Bounded(TorchFunctionMode):  # type: ignore[misc]
    """Embeddings give NaN for numbers that a table has no row for, as a tape does: in a stack the tables lie one behind
    the other, and such a number would name, and teach, another model's row."""

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = _EMBEDDINGS.get(call)
        if names is None:
            return call(*args, **(kwargs or {}))
        given = {**dict(enumerate(args)), **(kwargs or {})}
        numbers, table = (given[name if name in given else at] for name, at in names)
        there = (numbers >= 0) & (numbers < table.shape[0])
        (name, at), safe = names[0], torch.where(there, numbers, 0)
        given |= {name: safe} if name in given else {at: safe}
        rows = call(*(given[k] for k in range(len(args))), **{k: v for k, v in given.items() if isinstance(k, str)})
        return torch.where(there.unsqueeze(-1), rows, math.nan)


_EMBEDDINGS: dict[Any, tuple[tuple[str, int], tuple[str, int]]] = {  # where they take numbers, and the table
    nn.functional.embedding: (("input", 0), ("weight", 1)),
    torch.embedding: (("indices", 1), ("weight", 0)),
}


class Unrolled(nn.Module):  # type: ignore[misc]
    """``nn.GRU``, ``nn.LSTM`` and ``nn.RNN`` step by step: ``vmap`` has no rule for the fused ones.

    Attributes:
        way: goes through one layer in one direction, as ``unrolled`` does.
    """

    def __init__(self, old: Any) -> None:
        super().__init__()
        if old.proj_size or (old.dropout and old.num_layers > 1):
            raise CannotStack(f"a {type(old).__name__} with projections or dropout between layers")
        self.way: Callable[..., Any] = unrolled
        for name in old.__constants__:  # modules ask their layers for sizes
            setattr(self, name, getattr(old, name))
        for name, parameter in old.named_parameters():
            self.register_parameter(name, parameter)

    def flatten_parameters(self) -> None:
        """Nothing, on a CPU."""

    def forward(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """x: (time, rows, features), or (rows, time, features) with ``batch_first``."""
        if x.dim() != 3:
            raise CannotStack("a recurrent layer sees a row as one sequence, and no batch of them")
        if self.batch_first:
            x = x.transpose(0, 1)
        has_cell = self.mode == "LSTM"
        starts = (state if has_cell else (state,)) if state is not None else ()
        ends: list[Any] = []
        for layer in range(self.num_layers):
            both = []
            for turned in (False, True)[: 1 + self.bidirectional]:
                first = [given[len(ends)] for given in starts]
                out, *end = self.way(
                    self.mode, turned, x, *self._weights(layer, turned), *first, *[None] * (2 - len(first))
                )
                both.append(out)
                ends.append(end)
            x = torch.cat(both, -1) if self.bidirectional else both[0]
        out = x.transpose(0, 1) if self.batch_first else x
        h, c = (torch.stack(each) for each in zip(*ends, strict=True))
        return out, (h, c) if has_cell else h

    def _weights(self, layer: int, turned: bool) -> list[torch.Tensor | None]:
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, f"{kind}_l{layer}{'_reverse' * turned}", None) for kind in kinds]


def unrolled(
    mode: str, turned: bool, x: torch.Tensor, w_ih: torch.Tensor, w_hh: torch.Tensor, b_ih: torch.Tensor | None,
    b_hh: torch.Tensor | None, h: torch.Tensor | None, c: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """All states, the last one, and the last cell (that of an LSTM).

    Args:
        mode: as torch names a recurrent layer's. turned: from the last time to the first.
        x: (time, rows, features). h, c: (rows, units), noughts unless given.
    """
    inputs = nn.functional.linear(x, w_ih, b_ih)  # all times at once
    h = torch.zeros_like(inputs[0, :, : w_hh.shape[1]]) if h is None else h
    c = torch.zeros_like(h) if c is None else c
    times, out = inputs.unbind(0), []
    for now in reversed(times) if turned else times:
        h, c = _STEPS[mode](now, nn.functional.linear(h, w_hh, b_hh), h, c)
        out.append(h)
    return torch.stack(out[::-1] if turned else out), h, c


State = tuple[torch.Tensor, torch.Tensor]


def _gru(now: torch.Tensor, before: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> State:
    (ri, zi, ni), (rh, zh, nh) = now.chunk(3, -1), before.chunk(3, -1)
    r, z = torch.sigmoid(ri + rh), torch.sigmoid(zi + zh)
    n = torch.tanh(ni + r * nh)
    return n + z * (h - n), c


def _lstm(now: torch.Tensor, before: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> State:
    i, f, g, o = (now + before).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


_STEPS: dict[str, Callable[..., State]] = {
    "GRU": _gru,
    "LSTM": _lstm,
    "RNN_TANH": lambda now, before, h, c: (torch.tanh(now + before), c),
    "RNN_RELU": lambda now, before, h, c: (torch.relu(now + before), c),
}


_STACKED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), StackBatchNorm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), StackInstanceNorm),
    nn.LocalResponseNorm: StackLocalNorm,
    nn.Linear: StackLinear,
    nn.Dropout: lambda old: StackDropout(old.p),
}
_RECURRENT: dict[type[nn.Module], Callable[[Any], nn.Module]] = dict.fromkeys((nn.GRU, nn.LSTM, nn.RNN), Unrolled)


def stackable(module: nn.Module, together: bool = True) -> nn.Module:
    """A copy of ``module`` that can be stacked.

    Args:
        together: whether it is called for all models at once; for one at a time recurrent layers stay torch's own.

    Raises:
        CannotStack: it holds something that cannot be.
    """
    if why := own_ways(module):
        raise CannotStack(why)
    module = replace(module, {**_STACKED, **(_RECURRENT if together else {})})
    for part in module.modules():
        draws = isinstance(part, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._BatchNorm)
        if draws or getattr(part, "track_running_stats", False):
            raise CannotStack(f"a {type(part).__name__}, which draws or keeps numbers for a whole stack")
    return module

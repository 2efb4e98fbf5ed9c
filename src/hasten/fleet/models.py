"""Small networks for ``hasten fleet --model``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hasten.fleet.naive import Residual

HIDDEN = 64


def mlp(inputs: int, outputs: int, season: int = 0) -> nn.Module:
    """Two hidden layers of 64. X: (rows, inputs), prediction: (rows, outputs).

    Args:
        season: not 0 where rows are windows of a series: the network then gives what is added to the seasonal-naive
            forecast (``Residual``).
    """
    net = nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )
    return Residual(net, season) if season else net


class Conv(nn.Module):  # type: ignore[misc]
    """Two 1-d convolutions over the window, then a linear layer. X: (rows, inputs), prediction: (rows, outputs)."""

    def __init__(self, inputs: int, outputs: int, channels: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, channels, 5, padding=2)
        self.second = nn.Conv1d(channels, channels, 5, padding=2)
        self.last = nn.Linear(channels * inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.second(torch.relu(self.first(x.unsqueeze(1)))))
        out: torch.Tensor = self.last(h.flatten(1))
        return out


class Gru(nn.Module):  # type: ignore[misc]
    """A GRU over the window, then a linear layer on its last state. X: (rows, inputs), prediction: (rows, outputs)."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 32) -> None:
        super().__init__()
        self.gru = nn.GRU(1, hidden, batch_first=True)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen, _ = self.gru(x.unsqueeze(2))
        out: torch.Tensor = self.last(seen[:, -1])
        return out


def conv(inputs: int, outputs: int, season: int = 0) -> nn.Module:
    """A ``Conv``; ``season`` as in ``mlp``."""
    return Residual(Conv(inputs, outputs), season) if season else Conv(inputs, outputs)


def gru(inputs: int, outputs: int, season: int = 0) -> nn.Module:
    """A ``Gru``; ``season`` as in ``mlp``."""
    return Residual(Gru(inputs, outputs), season) if season else Gru(inputs, outputs)


BY_NAME: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "conv": conv, "gru": gru}


def of_notes(notes: Mapping[str, Any]) -> Callable[..., nn.Module] | None:
    """The factory of a fleet that the command has trained; None where it was another one than these.

    Args:
        notes: ``model``, its name; ``sizes``, inputs and outputs; ``season``.
    """
    make = BY_NAME.get(notes.get("model", ""))
    return functools.partial(make, *notes["sizes"], season=notes["season"]) if make else None

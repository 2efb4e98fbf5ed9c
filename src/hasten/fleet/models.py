"""Small networks for ``hasten fleet --model``."""

from __future__ import annotations

import torch
from torch import nn

HIDDEN = 64


def mlp(inputs: int, outputs: int) -> nn.Module:
    """Two hidden layers of 64. X: (rows, inputs), prediction: (rows, outputs)."""
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )


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


conv, gru = Conv, Gru

"""Small fleets that several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

FEATURES = 6

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 10), nn.ReLU(), nn.Dropout(0.2), nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 1)
    )


class Convolution(nn.Module):
    """A convolution with a norm, dropout, and a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3, padding=1, bias=False)  # the norm would leave its gradient rounding only
        self.norm = nn.LayerNorm(FEATURES)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(4 * FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.drop(torch.relu(self.norm(self.conv(x.unsqueeze(1))))).flatten(1))
        return out


class Branched(nn.Module):
    """What the kernel does not know: two ways from input to output, multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Convolution()
        self.past = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x) * self.past(x)
        return out


def rows(count: int, seed: int) -> Pair:
    """A task that can be learned. X: (count, FEATURES), y: (count,)."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(count, FEATURES)).astype(np.float32)
    return X, np.tanh(X @ random.normal(size=FEATURES)).astype(np.float32)


def ragged(keys: int = 5, least: int = 20) -> dict[str, Pair]:
    """Tasks of unequal lengths; no last batch is full."""
    return {f"s{i}": rows(least + 13 * i + 1, i) for i in range(keys)}


def weights(fleet: Any) -> dict[str, bytes]:
    """Every bit of every model."""
    return {key: fleet.weights_of(key).tobytes() for key in fleet}

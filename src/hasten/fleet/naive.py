"""The seasonal-naive forecast: as a module, as a loss to beat, and as what a network's output is added to."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hasten.core.errors import UsageError
from hasten.fleet.arrays import Array
from hasten.fleet.recipe import Recipe
from hasten.fleet.tasks import Task

LEAST_SCALE = 1e-6  # added to a window's scale, so that a flat window divides by something


def repeated(window: int, horizon: int, season: int) -> list[int]:
    """Which value of a window the seasonal-naive forecast gives for each step ahead."""
    season = min(max(season, 1), window)
    return [window - season + step % season for step in range(horizon)]


class SeasonalNaive(nn.Module):  # type: ignore[misc]
    """Repeats the last season of a window. X: (rows, window), prediction: (rows, horizon)."""

    def __init__(self, horizon: int, season: int = 1) -> None:
        super().__init__()
        self.horizon, self.season = horizon, season

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, window), float32."""
        return x[:, repeated(x.shape[1], self.horizon, self.season)]


class Residual(nn.Module):  # type: ignore[misc]
    """What ``net`` adds to the seasonal-naive forecast of each window.

    ``net`` sees the window less its last value, divided by the window's own scale (the mean distance from that value),
    and its output is multiplied by that scale. So level and scale need not be learned, a trend does not lead out of
    what was seen in training, and an output of nought is the seasonal-naive forecast. Windows are scaled each by itself
    as in Kim et al., "Reversible instance normalization" (ICLR 2022); the last value as origin is that of Zeng et al.,
    "Are transformers effective for time series forecasting?" (AAAI 2023).

    Args:
        net: (rows, window) to (rows, horizon). Where it ends in ``nn.Linear``, that layer is set to nought, so that
            training starts at the seasonal-naive forecast.
        season: rows of one season; 1 repeats the last value.

    Raises:
        UsageError: the season is no positive number.
    """

    def __init__(self, net: nn.Module, season: int = 1) -> None:
        super().__init__()
        if season < 1:
            raise UsageError(f"season={season!r}", "it counts rows", "season=24 for hours, season=1 for none")
        self.net, self.season = net, season
        last = next((m for m in reversed(list(net.modules())) if isinstance(m, nn.Linear)), None)
        if last is not None:
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, window), float32; (rows, horizon) comes back."""
        centred = x - x[:, -1:]
        scale = centred.abs().mean(1, keepdim=True) + LEAST_SCALE
        added: torch.Tensor = self.net(centred / scale)
        return x[:, repeated(x.shape[1], added.shape[1], self.season)] + scale * added


def naive_loss(recipe: Recipe, task: Task, X: Array, y: Array) -> float:
    """The mean loss of the seasonal-naive forecast. X: (rows, window), y: (rows, horizon)."""
    forecast = X[:, repeated(X.shape[1], y.shape[1], task.season)]
    return float(recipe.loss(torch.from_numpy(np.ascontiguousarray(forecast)), torch.from_numpy(np.array(y))))

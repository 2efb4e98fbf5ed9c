"""The loop over one small network that people write, for benches to compare with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loader_loop(make: Callable[[], nn.Module], task: tuple[Any, Any], batch: int, epochs: int) -> float:
    """DataLoader, Adam, mean squared error; seconds a step. task: X: (rows, ...), y: (rows,)."""
    net = make()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(*map(torch.from_numpy, task)), batch_size=batch, shuffle=True)
    start = time.perf_counter()
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(net(x), y[:, None]).backward()
            optimizer.step()
    return (time.perf_counter() - start) / (epochs * len(loader))

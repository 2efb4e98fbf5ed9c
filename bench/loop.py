"""A training loop in the bench's own process, with hasten's real seams in it. No seam can tell it from a user's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hasten.boot.agent import Session
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

ROWS, WIDTH, CLASSES, BATCH = 4096, 64, 10, 32
SIDE = 96  # of the filler's matrices


class Padded(nn.Module):
    """A small classifier that multiplies matrices until a step is as long as wanted."""

    def __init__(self, fillers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, CLASSES))
        self.fillers = fillers
        self.register_buffer("filler", torch.rand(SIDE, SIDE) / SIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        filler = self.filler
        for _ in range(self.fillers):
            filler = filler @ self.filler
        return self.layers(x) + 0.0 * filler[0, 0].detach()


def training(fillers: int = 0) -> Iterator[None]:
    """Yields after every optimizer step; every watched call of a usual loop is in it."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(ROWS, WIDTH), torch.randint(CLASSES, (ROWS,)))
    endless = RandomSampler(data, replacement=True, num_samples=1 << 40)  # one iterator for ever
    loader = DataLoader(data, batch_size=BATCH, sampler=endless)
    model = Padded(fillers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss_of = nn.CrossEntropyLoss()
    device = torch.device("cpu")
    running = 0.0
    for x, y in loader:
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        running += loss.item()
        yield


def fillers_for(seconds: float) -> int:
    """How many matrix products make a step this long (at least 0)."""
    times = {}
    for fillers in (0, 64):
        steps = training(fillers)
        samples = []
        for _ in range(40):
            start = time.perf_counter()
            next(steps)
            samples.append(time.perf_counter() - start)
        times[fillers] = sorted(samples)[len(samples) // 2]
    each = max(1e-7, (times[64] - times[0]) / 64)
    return max(0, round((seconds - times[0]) / each))


def watched(folder: Path, config: dict[str, Any]) -> Session:
    """hasten's seams, installed in this process as under ``hasten run``."""
    session = Session(folder, config, time.perf_counter_ns())
    session.install()
    return session

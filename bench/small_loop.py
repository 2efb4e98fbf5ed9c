"""A usual training loop whose step can be made as long as wanted. Knows nothing of hasten.

As a script it times itself over its second half; ``--tracer traceml`` adds the calls that TraceML asks for.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

ROWS, WIDTH, CLASSES, BATCH = 4096, 64, 10, 32
SIDE = 96  # of the filler's matrices


class Padded(nn.Module):  # type: ignore[misc]
    """A small classifier that multiplies matrices until a step is as long as wanted."""

    def __init__(self, fillers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, CLASSES))
        self.fillers = fillers
        self.filler = torch.rand(SIDE, SIDE) * 2 / SIDE  # its powers neither grow nor become subnormal, which is slow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        filler = self.filler
        for _ in range(self.fillers):
            filler = filler @ self.filler
        out: torch.Tensor = self.layers(x)
        return out + 0.0 * filler[0, 0]


def training(fillers: int = 0, around: Callable[[nn.Module], Any] = contextlib.nullcontext) -> Iterator[None]:
    """Yields after every step. Every call of a usual loop is in it: fetch, copies, forward, backward, step, item.

    Args:
        fillers: matrix products added to the forward pass.
        around: a context entered around every step, as some tracers ask for.
    """
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(ROWS, WIDTH), torch.randint(CLASSES, (ROWS,)))
    endless = RandomSampler(data, replacement=True, num_samples=1 << 40)  # one iterator for ever
    loader = DataLoader(data, batch_size=BATCH, sampler=endless)
    model = Padded(fillers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss_of = nn.CrossEntropyLoss()
    device = torch.device("cpu")
    total = 0.0
    for x, y in loader:
        with around(model):
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        yield


def fillers_for(seconds: float) -> int:
    """How many matrix products make a step this long (at least 0)."""
    times = {}
    for fillers in (0, 64):
        steps = training(fillers)
        samples = []
        for _ in range(60):
            start = time.perf_counter()
            next(steps)
            samples.append(time.perf_counter() - start)
        times[fillers] = min(samples)  # the least disturbed one
    each = max(1e-7, (times[64] - times[0]) / 64)
    return max(0, round((seconds - times[0]) / each))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrate", type=float, metavar="MS", help="print the fillers for this length of step")
    parser.add_argument("--fillers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--tracer", choices=["traceml"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.calibrate:
        print(fillers_for(args.calibrate / 1000))
        return
    around: Callable[[nn.Module], Any] = contextlib.nullcontext
    if args.tracer:
        import traceml_ai

        traceml_ai.init(mode="auto")
        around = traceml_ai.trace_step
    steps = training(args.fillers, around)
    start = time.perf_counter()
    while time.perf_counter() - start < args.seconds / 2:
        next(steps)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < args.seconds / 2:
        next(steps)
        count += 1
    print("seconds a step", (time.perf_counter() - start) / max(1, count))


if __name__ == "__main__":
    main()

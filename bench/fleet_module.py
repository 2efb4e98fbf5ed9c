"""How much faster is a user's module (convolution, norm, dropout) in a fleet than in the loop that people write?

The module goes into ``fleet.fit`` unchanged. Rounds in which the DataLoader loop, the native engine and the stacked
engine take turns; figures are wall time a step of one model, ratios are taken inside a round.

On one core: the loop with one thread, fleets with one worker. On all: the loop with as many threads as torch takes by
itself, in its one process; fleets with as many workers as ``fleet.fit`` takes by itself. A fleet's time is that of the
whole fit, with what it does once, divided by the steps: its models learn for as many epochs as the loop's.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import head, ratio, save, say, span
from loops import loader_loop
from torch import nn

from hasten import fleet
from hasten.measure import machine

CLAIM = "A module with convolution, norm and dropout, its code unchanged (goal: 15× the DataLoader loop)"
NAME = "fleet-module"
WINDOW, ROWS, BATCH = 48, 512, 64
ENGINES = ("native", "stacked")
Make = Callable[[], nn.Module]
LOOP_EPOCHS = 10  # of one model, timed in each round


class Net(nn.Module):  # type: ignore[misc]
    """Two convolutions with norm and dropout, then a linear layer. X: (rows, WINDOW)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 8, 5, padding=2), nn.Conv1d(8, 8, 5, padding=2)
        self.norm, self.drop = nn.LayerNorm(WINDOW), nn.Dropout(0.1)
        self.last = nn.Linear(8 * WINDOW, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm(self.b(torch.relu(self.a(x.unsqueeze(1))))))
        out: torch.Tensor = self.last(self.drop(h).flatten(1))
        return out


def data(models: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A task a key."""
    random = np.random.default_rng(0)
    X = random.standard_normal((models, ROWS, WINDOW), np.float32)
    return {str(k): (X[k], X[k, :, :3].mean(1)) for k in range(models)}


def trained(make: Make, tasks: dict[str, Any], epochs: int, **options: Any) -> fleet.Fleet:
    """A fleet of the bench's networks."""
    return fleet.fit(make, tasks, epochs=epochs, batch_size=BATCH, **options)


def arms(make: Make, tasks: dict[str, Any], epochs: int) -> dict[str, Callable[[], float]]:
    """What takes turns: name -> seconds a step of one model."""
    first, steps, cores = next(iter(tasks.values())), len(tasks) * epochs * -(-ROWS // BATCH), machine.cores()

    def loop(threads: int) -> float:
        torch.set_num_threads(threads)
        try:
            return loader_loop(make, first, BATCH, LOOP_EPOCHS)
        finally:
            torch.set_num_threads(1)

    def engine(name: str, workers: int) -> float:
        return trained(make, tasks, epochs, engine=name, workers=workers).summary().seconds / steps

    made: dict[str, Callable[[], float]] = {}
    for count in dict.fromkeys((1, cores)):
        made[f"DataLoader loop, {count} threads"] = lambda count=count: loop(count)  # type: ignore[misc]
        for name in ENGINES:
            made[f"{name}, {count} workers"] = lambda name=name, count=count: engine(name, count)  # type: ignore[misc]
    return made


def proofs(make: Make, tasks: dict[str, Any], epochs: int) -> list[Any]:
    """Two keys of each engine beside the plain loop with the same random numbers."""
    two = dict(list(tasks.items())[:2])
    found = [p for name in ENGINES for p in trained(make, two, epochs, engine=name, prove=2).summary().proof]
    for p in found:
        say(
            f"{p['engine']:7} {p['key']}: last loss {p['loss']:.6f}, the plain loop's {p['loop_loss']:.6f}; "
            f"gradient off by {p['gradient_error']:.1e}, torch's own by {p['torch_gradient_error']:.1e}; "
            f"{'holds' if p['holds'] else 'DOES NOT HOLD'}"
        )
    return found


def main(
    make: Make = Net,
    name: str = NAME,
    what: str = "networks with convolution, norm and dropout",
    models: int = 64,
    epochs: int = LOOP_EPOCHS,
) -> None:
    """The bench; ``fleet_gru`` calls it with another network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=models)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    head(f"{args.models} {what}: fleets against the DataLoader loop")
    torch.set_num_threads(1)
    tasks, cores = data(args.models), machine.cores()
    chosen = trained(make, tasks, 1).summary().engines
    say(f"the planner's choice: {'; '.join(chosen.values())}\n")
    turns = arms(make, tasks, args.epochs)
    rounds = []
    for _ in range(args.rounds):
        rounds.append({arm: take() for arm, take in turns.items()})
        say("  ".join(f"{arm} {1e6 * seconds:.0f} µs" for arm, seconds in rounds[-1].items()))
    say()
    figures: dict[str, Any] = {}
    for count in dict.fromkeys((1, cores)):
        for engine in ENGINES:
            loop, own = f"DataLoader loop, {count} threads", f"{engine}, {count} workers"
            figures[own] = ratio([math.log(each[loop] / each[own]) for each in rounds])
            say(f"{own}: {figures[own].value:5.1f}× ({span(figures[own], 1)}) the {loop}")
    proof = proofs(make, tasks, args.epochs)
    one, all_ = ([figures[f"{engine}, {count} workers"] for engine in ENGINES] for count in (1, cores))
    summary = (
        f"native engine {one[0].value:.0f}× ({span(one[0], 0)}) on one core, {all_[0].value:.0f}× ({span(all_[0], 0)}) "
        f"on {cores}; stacked engine {one[1].value:.1f}× and {all_[1].value:.1f}×; {args.models} models"
    )
    say(summary)
    save(name, summary, {**figures, "planner": dict(chosen), "proof": proof}, rounds)


if __name__ == "__main__":
    main()

"""How much faster is an arbitrary module (convolution, norm, dropout) in a stack than in the loop that people write?

The module goes into ``fleet.fit`` unchanged. A stack of models and the DataLoader loop take turns; both use one thread.
Ratios are of times a step of one model.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from common import head, ratio, save, say, span
from loops import loader_loop
from torch import nn

from hasten import fleet
from hasten.fleet.stacked import WIDTH

CLAIM = "An arbitrary module (convolution, norm, dropout) through the stacked engine (goal: 15× the DataLoader loop)"
NAME = "fleet-module"
WINDOW, ROWS, BATCH = 48, 512, 64


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    head(f"{args.models} networks with convolution, norm and dropout: the stack against the DataLoader loop")
    torch.set_num_threads(1)
    tasks = data(args.models)
    first = next(iter(tasks.values()))
    steps = args.models * args.epochs * -(-ROWS // BATCH)
    rounds = []
    for _ in range(args.rounds):
        loop = loader_loop(Net, first, BATCH, args.epochs)
        trained = fleet.fit(Net, tasks, epochs=args.epochs, batch_size=BATCH, engine="stacked", workers=1)
        rounds.append((loop, trained.summary().seconds / steps))
        say(f"loop {1e6 * loop:7.0f} µs, stack {1e6 * rounds[-1][1]:6.0f} µs a step of one model")
    found = ratio([math.log(loop / stack) for loop, stack in rounds])
    two = dict(list(tasks.items())[:2])
    proof = fleet.fit(Net, two, epochs=args.epochs, batch_size=BATCH, engine="stacked", prove=2).summary().proof
    for p in proof:
        say(f"last loss of {p['key']}: {p['loss']:.6f}, the plain loop's {p['loop_loss']:.6f}; holds: {p['holds']}")
    summary = f"{found.value:.1f}× ({span(found, 1)}), one core, {args.models} models in stacks of {WIDTH}"
    say(summary)
    save(NAME, summary, {"times": found, "proof": list(proof)}, rounds)


if __name__ == "__main__":
    main()

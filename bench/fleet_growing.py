"""Does an iteration's cost stay flat while the window grows, and what does that cost in error?

Some keys get new rows in every iteration. ``fleet.update`` is timed in each; now and then a fleet is also trained anew
on everything, and both predict the next block before it is learned. Once the law of the data stays, once it drifts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from common import head, save, say
from torch import nn

from hasten import fleet

CLAIM = "Growing windows, iteration 200 against 10 (goals: cost at most 1.05×, error at most 1.02× full retraining)"
NAME = "fleet-growing"
FEATURES, BLOCK, FIRST, NOISE = 16, 50, 200, 0.3
DRIFT = 0.15  # of a new direction, each iteration


def model() -> nn.Module:
    """16-32-1."""
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 1))


class World:
    """Keys whose law may drift."""

    def __init__(self, keys: int, drift: float) -> None:
        self.random = np.random.default_rng(0)
        self.laws = {f"k{i}": self.random.normal(size=FEATURES) for i in range(keys)}
        self.drift = drift

    def rows(self, count: int) -> dict[str, tuple[Any, Any]]:
        """New rows of every key, after a step of drift."""
        found = {}
        for key, law in self.laws.items():
            law += self.drift * self.random.normal(size=FEATURES)
            law *= np.sqrt(FEATURES) / np.linalg.norm(law)
            X = self.random.normal(size=(count, FEATURES)).astype(np.float32)
            y = np.tanh(X @ law) + NOISE * self.random.normal(size=count)
            found[key] = (X, y.astype(np.float32))
        return found


def run(keys: int, iterations: int, every: int, visits: int, drift: float) -> dict[str, Any]:
    """One world: seconds and errors of every iteration, and those of full retraining at some."""
    world = World(keys, drift)
    options: dict[str, Any] = {"epochs": 20, "batch_size": 64, "lr": 3e-3, "workers": 1}
    history = world.rows(FIRST)
    trained = fleet.fit(model, history, **options)
    seconds, errors, full = [], [], {}
    for i in range(1, iterations + 1):
        new = world.rows(BLOCK)
        if i % every == 0:
            start = time.perf_counter()
            anew = fleet.fit(model, history, **options)
            error = statistics.fmean(float(((anew.predict(k, X)[:, 0] - y) ** 2).mean()) for k, (X, y) in new.items())
            full[i] = (time.perf_counter() - start, error)
        update = trained.update(new, visits=visits)
        seconds.append(update.seconds)
        errors.append(update.error)
        history = {
            k: (np.concatenate([history[k][0], X]), np.concatenate([history[k][1], y])) for k, (X, y) in new.items()
        }
    return {"seconds": seconds, "errors": errors, "full": full, "shares": dict(update.shares)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="iterations between full trainings")
    parser.add_argument("--visits", type=int, default=2560)
    args = parser.parse_args()
    head(f"{args.keys} keys, {args.iterations} iterations of {BLOCK} new rows, {args.visits} visits each")
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    raw = {}
    for name, drift in (("no drift", 0.0), ("drift", DRIFT)):
        found = raw[name] = run(args.keys, args.iterations, args.every, args.visits, drift)
        early, late = found["seconds"][5:15], found["seconds"][-10:]
        growth = statistics.median(late) / statistics.median(early)
        ours = statistics.fmean(found["errors"][i - 1] for i in found["full"])
        theirs = statistics.fmean(error for _, error in found["full"].values())
        costs = [cost for cost, _ in found["full"].values()]
        figures[name] = {"growth": growth, "error": ours, "full_error": theirs, "full_growth": costs[-1] / costs[0]}
        say(
            f"{name:9} cost late / early {growth:.2f}; error {ours:.4f}, full retraining {theirs:.4f}: "
            f"{ours / theirs:.3f}×; shares {found['shares']}"
        )
    parts = [
        f"{n}: cost ×{f['growth']:.2f}, error {f['error'] / f['full_error']:.2f}× full" for n, f in figures.items()
    ]
    save(NAME, "; ".join(parts), figures, raw)


if __name__ == "__main__":
    main()

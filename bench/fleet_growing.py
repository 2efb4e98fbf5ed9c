"""Does an iteration's cost stay flat while the window grows, and what does that cost in error?

Some keys get new rows in every iteration; now and then a fleet is also trained anew on everything, and both predict the
next block before it is learned. At the end the same new rows go in turns to this fleet and to others that are only ten
iterations old: how much longer does it take? Once the law of the data stays, once it drifts.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any

import numpy as np
import torch
from common import head, ratio, save, say, span
from torch import nn

from hasten import fleet

CLAIM = "Growing windows, iteration 200 against 10 (goals: cost at most 1.05×, error at most 1.02× full retraining)"
NAME = "fleet-growing"
FEATURES, BLOCK, FIRST, NOISE = 16, 50, 200, 0.3
DRIFT = 0.15  # of a new direction, each iteration
YOUNG, TURNS, FLEETS = 10, 10, 4  # iterations of a young fleet, rows that it then gets, how many such fleets


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


OPTIONS: dict[str, Any] = {"epochs": 20, "batch_size": 64, "lr": 3e-3, "workers": 1}


def run(keys: int, iterations: int, every: int, visits: int, drift: float) -> dict[str, Any]:
    """One world: seconds and errors of every iteration, those of full retraining at some, and the old fleet's times
    beside a young one's."""
    world = World(keys, drift)
    history = world.rows(FIRST)
    trained = fleet.fit(model, history, **OPTIONS)
    seconds, errors, full = [], [], {}
    for i in range(1, iterations + 1):
        new = world.rows(BLOCK)
        if i % every == 0:
            start = time.perf_counter()
            anew = fleet.fit(model, history, **OPTIONS)
            error = statistics.fmean(float(((anew.predict(k, X)[:, 0] - y) ** 2).mean()) for k, (X, y) in new.items())
            full[i] = (time.perf_counter() - start, error)
        update = trained.update(new, visits=visits)
        seconds.append(update.seconds)
        errors.append(update.error)
        history = {
            k: (np.concatenate([history[k][0], X]), np.concatenate([history[k][1], y])) for k, (X, y) in new.items()
        }
    shares = dict(update.shares)
    pairs = [pair for number in range(FLEETS) for pair in _beside(trained, world, keys, visits, drift, number % 2)]
    return {"seconds": seconds, "errors": errors, "full": full, "shares": shares, "pairs": pairs}


def _beside(old: Any, world: World, keys: int, visits: int, drift: float, first: int) -> list[tuple[float, float]]:
    """Seconds of (a young fleet's, the old one's) update with the same rows; who begins alternates."""
    own = World(keys, drift)
    young = fleet.fit(model, own.rows(FIRST), **OPTIONS)
    for _ in range(YOUNG):
        young.update(own.rows(BLOCK), visits=visits)
    pairs = []
    for i in range(TURNS):
        new = world.rows(BLOCK)
        if (i + first) % 2:
            b = old.update(new, visits=visits).seconds
            pairs.append((young.update(new, visits=visits).seconds, b))
        else:
            a = young.update(new, visits=visits).seconds
            pairs.append((a, old.update(new, visits=visits).seconds))
    return pairs


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
    raw, parts = {}, []
    for name, drift in (("no drift", 0.0), ("drift", DRIFT)):
        found = raw[name] = run(args.keys, args.iterations, args.every, args.visits, drift)
        growth = ratio([math.log(old / young) for young, old in found["pairs"]])
        ours = statistics.fmean(found["errors"][i - 1] for i in found["full"])
        theirs = statistics.fmean(error for _, error in found["full"].values())
        costs = [cost for cost, _ in found["full"].values()]
        figures[name] = {"growth": growth, "error": ours, "full_error": theirs, "full_growth": costs[-1] / costs[0]}
        cost = f"{growth.value:.2f} ({span(growth)})"
        say(f"{name:9} cost {args.iterations} / {YOUNG} {cost}; error {ours:.4f}, full retraining {theirs:.4f}")
        say(f"{'':9} shares of the newest block that predict best, and for how many keys: {found['shares']}")
        parts.append(f"{name}: cost ×{cost}, error {ours / theirs:.2f}× full")
    save(NAME, "; ".join(parts), figures, raw)


if __name__ == "__main__":
    main()

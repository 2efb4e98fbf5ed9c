"""How much faster is a fleet than the loop over scikit-learn's ``MLPRegressor`` that people write?

Perceptrons 32-64-64-1 on 2000 rows each, batches of 64, Adam, 20 epochs, no penalty, no early stop, float32, initial
weights drawn as scikit-learn draws them. Some models by scikit-learn, in one process and with as many threads as it
likes, and a fleet on all cores take turns. Ratios are of times a model; beside them the mean squared errors on the rows
trained on, of the same keys.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from typing import Any

import numpy as np
import torch
from common import head, ratio, save, say, span
from fleet_1660 import BATCH, EPOCHS, WIDTHS, data, model
from torch import nn

from hasten import fleet
from hasten.measure import machine

CLAIM = "The same perceptrons against a loop over scikit-learn's MLPRegressor"
NAME = "fleet-sklearn"


def drawn_as_by_sklearn() -> nn.Module:
    """Uniform up to sqrt(6 / (inputs + outputs)), biases too: torch's own are smaller and learn faster here."""
    net = model()
    with torch.no_grad():
        for layer in net.children():
            if isinstance(layer, nn.Linear):
                bound = math.sqrt(6 / (layer.in_features + layer.out_features))
                layer.weight.uniform_(-bound, bound)
                layer.bias.uniform_(-bound, bound)
    return net


def by_sklearn(tasks: dict[str, tuple[Any, Any]]) -> tuple[float, list[float]]:
    """Seconds a model, and the error of each."""
    from sklearn.neural_network import MLPRegressor

    nets = []
    start = time.perf_counter()
    for X, y in tasks.values():
        net = MLPRegressor(
            hidden_layer_sizes=WIDTHS[1:-1], batch_size=BATCH, max_iter=EPOCHS, alpha=0.0, tol=0.0,
            n_iter_no_change=EPOCHS, random_state=0,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that more epochs might help
            net.fit(X, y)
        nets.append(net)
    seconds = (time.perf_counter() - start) / len(tasks)
    return seconds, [
        float(np.mean((net.predict(X) - y) ** 2)) for net, (X, y) in zip(nets, tasks.values(), strict=True)
    ]


def by_fleet(tasks: dict[str, tuple[Any, Any]], workers: int) -> tuple[float, list[float]]:
    """The same."""
    start = time.perf_counter()
    trained = fleet.fit(drawn_as_by_sklearn, tasks, epochs=EPOCHS, batch_size=BATCH, lr=1e-3, workers=workers)
    seconds = (time.perf_counter() - start) / len(tasks)
    return seconds, [float(np.mean((trained.predict(k, X)[:, 0] - y) ** 2)) for k, (X, y) in tasks.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=200, help="of the fleet")
    parser.add_argument("--peers", type=int, default=3, help="of scikit-learn, a round")
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    head(f"{args.models} perceptrons by a fleet, {args.peers} of them by MLPRegressor, in turns")
    tasks = data(args.models)
    some = dict(list(tasks.items())[: args.peers])
    by_fleet(some, 1)  # the kernel is compiled
    rounds, errors = [], []
    for number in range(args.rounds):
        first = by_sklearn(some) if number % 2 else None
        ours, our_errors = by_fleet(tasks, machine.cores())
        peer, peer_errors = first or by_sklearn(some)
        rounds.append((peer, ours))
        errors.append((float(np.mean(peer_errors)), float(np.mean(our_errors[: args.peers]))))
        say(f"MLPRegressor {1000 * peer:6.0f} ms, fleet {1000 * ours:5.1f} ms a model; errors {errors[-1]}")
    found = ratio([math.log(peer / ours) for peer, ours in rounds])
    peer_error, our_error = np.mean(errors, axis=0)
    summary = (
        f"{found.value:.0f}× ({span(found, 0)}); mean squared error {our_error:.4f}, MLPRegressor's {peer_error:.4f}"
    )
    say(summary)
    save(NAME, summary, {"times": found, "errors": [float(peer_error), float(our_error)]}, rounds)


if __name__ == "__main__":
    main()

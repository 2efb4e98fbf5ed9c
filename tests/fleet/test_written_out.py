"""Beside a loop that is written out here with torch alone: early stopping, optimizers, clipping, batch norm."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hasten import fleet
from hasten.fleet import streams
from hasten.fleet.native.build import NoCompiler, kernel

ROWS, HELD, EPOCHS, BATCH = 150, 30, 15, 16
OPTIMIZERS: dict[str, tuple[dict[str, Any], Any]] = {
    "adam": ({"weight_decay": 0.1}, lambda p: torch.optim.Adam(p, 0.02, weight_decay=0.1)),
    "adamw": (
        {"weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-6},
        lambda p: torch.optim.AdamW(p, 0.02, (0.8, 0.99), 1e-6, 0.1),
    ),
    "sgd": (
        {"weight_decay": 0.01, "momentum": 0.9, "nesterov": True},
        lambda p: torch.optim.SGD(p, 0.02, 0.9, weight_decay=0.01, nesterov=True),
    ),
}
try:
    kernel()
    ENGINES = ["native", "stacked", "loop"]
except NoCompiler:
    ENGINES = ["stacked", "loop"]


def noisy() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    X = random.normal(size=(ROWS, 6)).astype(np.float32)
    return X, (np.tanh(X @ random.normal(size=6)) + 0.8 * random.normal(size=ROWS)).astype(np.float32)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))


def written_out(make: Any, clip: float | None, patience: int, min_delta: float) -> tuple[nn.Module, int, int]:
    """The network, how many epochs it was trained for, and whose weights it has."""
    X, y = map(torch.from_numpy, noisy())
    stream = streams.stream_of(0, "a")
    torch.manual_seed(streams.torch_seed(stream, streams.INIT))
    model, best, bad, kept, of = net(), math.inf, 0, None, 0
    optimizer = make(model.parameters())
    for epoch in range(EPOCHS):
        model.train()
        for rows in torch.from_numpy(streams.permutation(stream, ROWS - HELD, epoch)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(X[rows])[:, 0], y[rows]).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            held = float(nn.functional.mse_loss(model(X[-HELD:])[:, 0], y[-HELD:]))
        if held < best - min_delta:
            best, bad, kept, of = held, 0, copy.deepcopy(model.state_dict()), epoch + 1
        else:
            bad += 1
            if bad == patience:
                break
    model.load_state_dict(kept or {})
    return model, epoch + 1, of


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("clip", "patience", "min_delta"), [(None, 3, 0.0), (0.3, 2, 0.05)])
def test_a_loop_written_out_ends_with_the_same(
    engine: str, name: str, clip: float | None, patience: int, min_delta: float
) -> None:
    torch.set_num_threads(1)
    options, make = OPTIMIZERS[name]
    stop = fleet.EarlyStop(patience, min_delta)
    found = fleet.fit(
        net, {"a": noisy()}, optimizer=name, lr=9.0, settings={"a": {"lr": 0.02}}, clip=clip, stop=stop,
        epochs=EPOCHS, batch_size=BATCH, engine=engine, **options,
    )  # fmt: skip
    model, epochs, best = written_out(make, clip, patience, min_delta)
    (row,) = found.summary().rows
    assert (row.epochs, row.best_epoch) == (epochs, best)
    X = noisy()[0]
    with torch.no_grad():
        ours, theirs = torch.from_numpy(found.predict("a", X)), model.eval()(torch.from_numpy(X))
    assert torch.allclose(ours, theirs, atol=0 if engine == "loop" else 1e-2, rtol=0)
    if engine == "loop":
        assert all(map(torch.equal, found["a"].state_dict().values(), model.state_dict().values()))

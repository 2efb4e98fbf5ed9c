"""Weights are moved by units in the last place, each way at random, and nothing else of the process is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from hasten.seams.state import Snapshot, optimizers

EPS = torch.finfo(torch.float32).eps


def moved(units: int, draw: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30))
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    Snapshot([model]).perturb(units, draw)
    return before, torch.cat([p.detach().flatten() for p in model.parameters()])


def test_every_weight_is_moved_by_so_many_units() -> None:
    before, after = moved(32, 0)
    there = before != 0  # a bias of zero has no last place
    apart = ((after - before).abs() / before.abs())[there] / EPS
    assert ((apart - 32).abs() <= 1).all()
    up = (after > before)[there].float().mean()
    assert 0.4 < up < 0.6


def test_draws_differ_and_each_is_the_same_again() -> None:
    assert torch.equal(moved(32, 1)[1], moved(32, 1)[1])
    assert not torch.equal(moved(32, 1)[1], moved(32, 2)[1])


def test_moving_draws_nothing_of_the_script(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    state, buffers = torch.get_rng_state(), [b.clone() for b in model.buffers()]
    snapshot = Snapshot([model])
    snapshot.perturb(32, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    snapshot.write(str(tmp_path / "weights"))
    written = np.fromfile(tmp_path / "weights", np.float32)
    assert len(written) == snapshot.layout().total and np.array_equal(written[:16], model[0].weight.detach().ravel())


def test_optimizers_are_known_before_they_step() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    assert any(found is optimizer for found in optimizers())

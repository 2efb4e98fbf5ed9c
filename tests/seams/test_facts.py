"""What is read from the process: subnormal numbers count by what they are a part of."""

from __future__ import annotations

import weakref

import torch

from hasten.seams.facts import _denormals
from hasten.seams.known import OptimizerRecord
from hasten.seams.watch import Watch


def test_subnormal_numbers_of_a_small_tensor_are_a_small_share() -> None:
    weight, bias = torch.nn.Parameter(torch.ones(100, 99)), torch.nn.Parameter(torch.ones(100))
    optimizer = torch.optim.SGD([weight, bias], lr=1.0)
    watch = Watch()
    watch.optimizers[id(optimizer)] = OptimizerRecord(weakref.ref(optimizer))
    assert _denormals(watch) == (0.0, "")
    with torch.no_grad():
        bias[:50] = 1e-40
    assert _denormals(watch) == (50 / 10_000, "weight")
    optimizer.state[bias]["momentum_buffer"] = torch.full((100,), 1e-40)
    assert _denormals(watch) == (1.0, "momentum_buffer")

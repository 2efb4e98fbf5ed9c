"""Fused steps beside a script's own scaler of gradients: the same updates, and a step is left out as before."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import hasten


def trained(remedy: Any, switch: str) -> tuple[list[torch.Tensor], int]:
    """Weights after some steps, one of which overflows, and two of which come after parameters were added; and how
    often the optimizer has stepped."""
    torch.manual_seed(0)
    first, second = nn.Linear(4, 3), nn.Linear(3, 1)
    late = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))  # which a CPU has no fused kernel for
    optimizer = torch.optim.Adam(first.parameters(), lr=0.1)
    if remedy is not None:
        getattr(remedy, switch)(*([None] if switch == "on_seam" else []), optimizer)
    called: list[Any] = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for step in range(6):
        optimizer.zero_grad()
        loss = (second(first(torch.ones(2, 4)).tanh()) * late).sum() * (math.inf if step == 1 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if step == 3:
            optimizer.add_param_group({"params": [*second.parameters(), late]})
    return [p.detach() for p in (*first.parameters(), *second.parameters(), late)], len(called)


@pytest.mark.parametrize("switch", ["on", "on_seam"])
def test_updates_are_those_without(switch: str) -> None:
    plain, steps = trained(None, "")
    found, again = trained(hasten.FusedOptimizer(), switch)
    assert steps == again == 5
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a, b)

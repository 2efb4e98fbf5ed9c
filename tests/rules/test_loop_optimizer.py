"""The foreach implementation is taken where it gives the same bits, by torch's own optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import hasten
from hasten.core.errors import Unsuited
from hasten.rules.o401_loop_optimizer import SAME_BITS

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
    "Adam": [{}, {"amsgrad": True}],
    "AdamW": [{}, {"amsgrad": True}],
    "RMSprop": [{}, {"momentum": 0.9, "centered": True}],
}


def trained(kind: str, foreach: bool, **options: Any) -> list[torch.Tensor]:
    """Weights and state after some steps, in some of which a layer has no gradient."""
    torch.manual_seed(0)
    model, extra = nn.Sequential(nn.Linear(7, 33), nn.Tanh(), nn.Linear(33, 5)), nn.Linear(7, 5)
    parameters = [*model.parameters(), *extra.parameters()]
    optimizer = getattr(torch.optim, kind)(parameters, lr=0.01, foreach=False, **options)
    if foreach:
        hasten.ForeachOptimizer()(optimizer)
    for step in range(12):
        x = torch.randn(16, 7)
        optimizer.zero_grad()
        (model(x) + (extra(x) if step % 3 else 0)).square().mean().backward()
        optimizer.step()
    state = [v for p in parameters for k, v in sorted(optimizer.state[p].items()) if k != "step" and v is not None]
    return [*parameters, *state]


@pytest.mark.parametrize("kind", SAME_BITS)
def test_the_same_bits(kind: str) -> None:
    for options in OPTIONS.get(kind, [{}]):
        for more in ({}, {"maximize": True}, {} if kind == "Rprop" else {"weight_decay": 0.1}):
            found, expected = (trained(kind, foreach, **options, **more) for foreach in (True, False))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), (options, more)


@pytest.mark.parametrize("kind", ["NAdam", "RAdam", "ASGD", "Adafactor"])
def test_others_are_left_alone(kind: str) -> None:
    with pytest.raises(Unsuited, match="rounds elsewhere"):
        hasten.ForeachOptimizer()(getattr(torch.optim, kind)([nn.Parameter(torch.ones(2))], foreach=False))

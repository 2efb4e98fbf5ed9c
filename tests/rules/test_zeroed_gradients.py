"""Gradients that are dropped instead of zeroed: what is learned and seen is the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import hasten
from hasten.core.errors import Unsuited


def trained(drops: bool, *, hold: bool = False, view: bool = False) -> Any:
    """Two layers, one of which has a gradient in every third step only, and is frozen in the end."""
    torch.manual_seed(0)
    always, seldom = nn.Linear(4, 2), nn.Linear(4, 2)
    parameters = [*always.parameters(), *seldom.parameters()]
    flat = torch.zeros(sum(p.numel() for p in parameters))
    if view:
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)
    undo = hasten.ZeroGradToNone().on(optimizer) if drops else lambda: None
    seen: list[Any] = []
    held: list[Any] = []
    for step in range(12):
        optimizer.zero_grad(set_to_none=False)
        x = torch.randn(3, 4)
        out = always(x) + (seldom(x) if step % 3 == 0 else 0)
        out.square().sum().backward()
        if hold and step == 4:
            held = [p.grad for p in parameters]
        seen.append([None if p.grad is None else p.grad.clone() for p in (*parameters, *held)])
        seen.append(flat.clone())
        optimizer.step()
        if step == 8:
            always.weight.requires_grad_(False)
    undo()
    return seen, [p.detach() for p in parameters]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b


@pytest.mark.parametrize("options", [{}, {"hold": True}, {"view": True}])
def test_weights_and_gradients_are_the_same(options: Any) -> None:
    assert same(trained(True, **options), trained(False, **options))


def test_gradients_are_dropped() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = hasten.ZeroGradToNone()(torch.optim.SGD([p], lr=0.1))
    p.sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is None
    optimizer.step()
    assert p.grad is not None and not p.grad.any()


def test_an_optimizer_that_zeroes_in_its_own_way_is_left_alone() -> None:
    class Own(torch.optim.SGD):
        def zero_grad(self) -> None:  # type: ignore[override]
            super().zero_grad(set_to_none=False)

    optimizer = Own([nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(Unsuited, match="zero_grad of its own"):
        hasten.ZeroGradToNone()(optimizer)
    optimizer.zero_grad()

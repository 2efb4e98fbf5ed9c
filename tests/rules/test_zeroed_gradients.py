"""Gradients that are dropped instead of zeroed: what is learned and seen is the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import hasten
from hasten.core.errors import Unsuited
from hasten.rules import o403_zeroed_gradients


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


READ = torch._C.TensorBase.grad  # reads a gradient unseen


def made(*parameters: Any) -> Any:
    return hasten.ZeroGradToNone()(torch.optim.SGD(parameters, lr=0.1))


def test_gradients_are_dropped() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = made(p)
    p.sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert READ.__get__(p) is None
    optimizer.step()
    assert p.grad is not None and not p.grad.any()


def test_a_script_that_reads_gradients_in_between_finds_zeros() -> None:
    """The norm of gradients is logged, or a gradient is added to by hand."""
    p, q, x = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3)), torch.ones(2, requires_grad=True)
    first, second = made(p), made(q)
    (p.sum() + q.sum() + x.sum()).backward()
    first.zero_grad(set_to_none=False)
    second.zero_grad(set_to_none=False)
    assert x.grad is not None and READ.__get__(p) is None
    assert not p.grad.norm() and READ.__get__(q) is None  # type: ignore[union-attr]
    p.grad += 3  # type: ignore[assignment, operator]
    p.grad.data.add_(1)  # type: ignore[union-attr]
    (p.sum() + q.sum()).backward()
    assert p.grad.tolist() == [5, 5] and q.grad.tolist() == [1, 1, 1]  # type: ignore[union-attr]


def test_reads_are_seen_while_it_is_on_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(o403_zeroed_gradients, "_READS", o403_zeroed_gradients._Reads())
    before = vars(torch.Tensor).get("grad")
    optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1) for _ in range(2)]
    undos = [hasten.ZeroGradToNone().on(optimizer) for optimizer in optimizers]
    undos[0]()
    assert vars(torch.Tensor)["grad"] is not before
    undos[1]()
    assert vars(torch.Tensor).get("grad") is before


def test_models_that_are_trained_one_after_the_other_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(o403_zeroed_gradients, "_READS", o403_zeroed_gradients._Reads())
    before, plain = vars(torch.Tensor).get("grad"), torch.autograd.backward
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(1200)]  # more than Python's calls may be deep
    for p in parameters:
        optimizer = made(p)
        p.sum().backward()
        optimizer.zero_grad(set_to_none=False)
        p.sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in parameters[:-1])
    assert len(o403_zeroed_gradients._READS.all) == 1
    del optimizer
    assert vars(torch.Tensor).get("grad") is before and torch.autograd.backward is plain


def bits(p: Any) -> list[int]:
    return p.grad.detach().view(torch.int32).tolist()  # type: ignore[no-any-return]


def test_a_gradient_of_minus_zero_is_what_it_is_when_added_to_zeros() -> None:
    found = []
    for make in (made, lambda *p: torch.optim.SGD(p, lr=0.1)):
        p, q = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        optimizer = make(p, q)
        for create_graph in (False, True, False):
            optimizer.zero_grad(set_to_none=False)
            (-(p * torch.tensor([0.0, 1.0, 0.0])).sum() + q.square().sum() * -0.0).backward(create_graph=create_graph)
            found.append((bits(p), bits(q)))
            if create_graph:
                p.grad = q.grad = None
    assert found[:3] == found[3:]


def test_a_sparse_gradient_after_a_dense_one_is_added_to_zeros() -> None:
    layer = nn.Embedding(4, 2)
    optimizer = made(layer.weight)
    layer(torch.tensor([1])).sum().backward()
    optimizer.zero_grad(set_to_none=False)
    layer.sparse = True
    layer(torch.tensor([2])).sum().backward()
    assert layer.weight.grad is not None and not layer.weight.grad.is_sparse and layer.weight.grad.sum() == 2


def test_sparse_gradients_are_left_alone() -> None:
    layer = nn.Embedding(4, 2, sparse=True)
    optimizer = made(layer.weight)
    layer(torch.tensor([1])).sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert READ.__get__(layer.weight).is_sparse


def test_an_optimizer_that_zeroes_in_its_own_way_is_left_alone() -> None:
    class Own(torch.optim.SGD):
        def zero_grad(self) -> None:  # type: ignore[override]
            super().zero_grad(set_to_none=False)

    optimizer = Own([nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(Unsuited, match="zero_grad of its own"):
        hasten.ZeroGradToNone()(optimizer)
    optimizer.zero_grad()

"""Without a graph, and differentiable all the same: bits and gradients are those of the plain call."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hasten.seams.on_demand import OnDemand

Make = Callable[[], nn.Module]


class Several(nn.Module):
    """A dict of a list, a number, a detached tensor and one of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> dict[str, Any]:
        h = self.a(x).relu() * scale
        return {"parts": [h, self.b(h)], "scale": scale, "probabilities": h.softmax(1).detach(), "best": h.argmax(1)}


class Draws(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.a(x), 0.5, training=True)


class Keeps(nn.Module):
    """Depends on a leaf that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.patch = torch.zeros(4, requires_grad=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x + self.patch)  # type: ignore[no-any-return]


class View(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), x[:2]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)).eval()


def summed(out: Any) -> torch.Tensor:
    if isinstance(out, dict):
        out = out["parts"]
    if isinstance(out, (tuple, list)):
        return torch.stack([summed(o) for o in out]).sum()
    total: torch.Tensor = (out * torch.arange(1.0, out.numel() + 1).view(out.shape)).sum()
    return total


def calls(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


def third(run: OnDemand, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """A call that is no longer the first."""
    for _ in range(2):
        run(calls, module, args, kwargs)
    return run(calls, module, args, kwargs)


def node(tensor: torch.Tensor) -> str:
    return type(tensor.grad_fn).__name__


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(5, 4)


@pytest.mark.parametrize("make", [net, Several])
@pytest.mark.parametrize("of_input", [False, True])
def test_gradients_are_those_of_the_plain_call(make: Make, of_input: bool, x: torch.Tensor) -> None:
    module = make().eval()
    x.requires_grad_(of_input)
    ends = [*module.parameters(), *([x] if of_input else [])]
    plain = torch.autograd.grad(summed(module(x)), ends)
    out = third(OnDemand(), module, x)
    assert torch.equal(summed(out), summed(module(x)))
    for found, expected in zip(torch.autograd.grad(summed(out), ends), plain, strict=True):
        assert torch.equal(found, expected)


def test_backward_accumulates(x: torch.Tensor) -> None:
    module = net()
    twin = copy.deepcopy(module)
    summed(third(OnDemand(), module, x)).backward()
    summed(twin(x)).backward()
    for a, b in zip(module.parameters(), twin.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.equal(a.grad, b.grad)


def test_no_graph_is_recorded(x: torch.Tensor) -> None:
    out = third(OnDemand(), net(), x)
    assert node(out) == "AgainBackward"
    assert {type(n).__name__ for n, _ in out.grad_fn.next_functions} == {"AccumulateGrad"}


def test_what_is_not_differentiable_stays_so(x: torch.Tensor) -> None:
    out = third(OnDemand(), Several().eval(), x, scale=2.0)
    assert not out["probabilities"].requires_grad and not out["best"].requires_grad
    assert out["probabilities"].numpy().shape == (5, 3)
    assert (out["scale"], [p.requires_grad for p in out["parts"]]) == (2.0, [True, True])


def test_random_numbers_are_the_same_when_it_runs_again(x: torch.Tensor) -> None:
    module = Draws().eval()
    run = OnDemand()
    run(calls, module, (x,), {})
    torch.manual_seed(3)
    out = run(calls, module, (x,), {})
    after = torch.get_rng_state()
    found = torch.autograd.grad(summed(out), module.a.weight)[0]  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(3)
    plain = module(x)
    assert torch.equal(out, plain)
    assert torch.equal(found, torch.autograd.grad(summed(plain), module.a.weight)[0])  # type: ignore[arg-type]


def test_second_derivatives(x: torch.Tensor) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).eval()

    def penalty(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return slope.square().sum()

    x.requires_grad_()
    plain = torch.autograd.grad(penalty(module(x), x), list(module.parameters()), allow_unused=True)
    found = torch.autograd.grad(penalty(third(OnDemand(), module, x), x), list(module.parameters()), allow_unused=True)
    for a, b in zip(found, plain, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b)


def test_a_module_that_is_differentiated_is_left_alone(x: torch.Tensor) -> None:
    module, run = net(), OnDemand()
    summed(third(run, module, x)).backward()
    assert node(run(calls, module, (x,), {})) != "AgainBackward"


@pytest.mark.parametrize("make", [Keeps, View])
def test_what_cannot_be_made_again_is_left_alone(make: Make, x: torch.Tensor) -> None:
    out = third(OnDemand(), make().eval(), x)
    assert node(out[0] if isinstance(out, tuple) else out) != "AgainBackward"


def test_another_form_of_output_is_left_alone(x: torch.Tensor) -> None:
    module, run = Several().eval(), OnDemand()

    def some(module: nn.Module, x: torch.Tensor, short: bool) -> Any:
        out = module(x)
        return out["parts"][:1] if short else out["parts"]

    for _ in range(2):
        run(some, module, (x, False), {})
    out = run(some, module, (x, True), {})
    assert len(out) == 1 and node(out[0]) != "AgainBackward"
    assert node(run(some, module, (x, False), {})[0]) != "AgainBackward"


def test_weights_that_were_written_to_are_torchs_error(x: torch.Tensor) -> None:
    module = net()
    out = third(OnDemand(), module, x)
    with torch.no_grad():
        module[0].weight.add_(1)  # type: ignore[index,operator]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        summed(out).backward()


def test_arguments_that_were_written_to_and_another_mode_make_no_difference(x: torch.Tensor) -> None:
    """A buffer that batches are copied into, a list that is used again, a model that is trained on meanwhile."""

    def last(module: nn.Module, parts: list[Any]) -> Any:
        return module(parts[-1] + 1)

    module, run, parts = net(), OnDemand(), [x.clone()]
    plain = torch.autograd.grad(summed(last(module, parts)), list(module.parameters()))
    for _ in range(2):
        out = run(last, module, (parts,), {})
    parts[0].zero_()
    parts.append(torch.full_like(x, 7))
    module.train()
    found = torch.autograd.grad(summed(out), list(module.parameters()))
    assert all(map(torch.equal, found, plain)) and all(m.training for m in module.modules())


def test_running_means_that_training_has_moved_on_are_used_as_torch_does(x: torch.Tensor) -> None:
    """torch itself differentiates the old call with the new running means, and says nothing."""
    gradients, buffers = [], []
    for call in (lambda m: third(OnDemand(), m, x), lambda m: m(x)):
        torch.manual_seed(5)
        module = net()
        out = call(module)
        for _ in range(3):
            module.train()(3 * x + 1)
        gradients.append(torch.autograd.grad(summed(out), list(module.parameters())))
        buffers.append([b.clone() for b in module.buffers()])
        assert module[1].num_batches_tracked == 3 and module.training
    assert all(map(torch.equal, *gradients)) and all(map(torch.equal, *buffers))


def test_other_buffers_that_were_written_to_are_an_error(x: torch.Tensor) -> None:
    module = net()
    module.register_buffer("scale", torch.ones(2))
    out = third(OnDemand(), module, x)
    module.scale.add_(1)  # type: ignore[operator, union-attr]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        summed(out).backward()


def test_frozen_modules_and_transforms_of_functions(x: torch.Tensor) -> None:
    module = net().requires_grad_(False)
    assert not third(OnDemand(), module, x).requires_grad
    run, trained = OnDemand(), nn.Linear(4, 1).eval()
    third(run, trained, x)
    slopes = torch.func.vmap(torch.func.grad(lambda row: run(calls, trained, (row,), {}).sum()))(x)
    assert torch.equal(slopes, trained.weight.expand(5, 4))


def test_nothing_is_kept_alive(x: torch.Tensor) -> None:
    module, run = net(), OnDemand()
    out = third(run, module, x)
    gone = weakref.ref(module)
    del module, out
    gc.collect()
    assert gone() is None


class Forces(nn.Module):
    """Differentiates inside of its call, as models of energies do for forces."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 1)
        self.inside = False

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not self.inside:
            return (self.a(x).tanh(),)
        x = x.clone().requires_grad_()
        energy = self.a(x).tanh()
        return energy, torch.autograd.grad(energy.sum(), x, create_graph=True)[0]


class KeepsFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)
        self.features: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.features = self.a(x)
        return self.b(self.features)  # type: ignore[no-any-return]


def test_a_call_that_needs_its_graph_has_one(x: torch.Tensor) -> None:
    module, run = Forces().eval(), OnDemand()
    third(run, module, x)
    module.inside = True
    state = torch.get_rng_state()
    energy, forces = run(calls, module, (x,), {})
    assert torch.equal(forces, module(x)[1]) and node(energy) == "TanhBackward0"
    assert torch.equal(torch.get_rng_state(), state)


def test_features_that_a_module_keeps_have_their_graph(x: torch.Tensor) -> None:
    module = KeepsFeatures().eval()
    out = third(OnDemand(), module, x)
    module.features.retain_grad()
    summed(out).backward()
    assert module.features.grad is not None


def test_what_hooks_see_has_its_graph(x: torch.Tensor) -> None:
    module, run, seen = net(), OnDemand(), []
    third(run, module, x)
    hook = module[0].register_forward_hook(lambda *args: seen.append(args[2]))  # type: ignore[index]
    run(calls, module, (x,), {})
    hook.remove()
    assert seen[0].requires_grad
    assert node(run(calls, module, (x,), {})) == "AgainBackward"

"""Losses scaled from outside: gradients stay true, overflow leaves a step out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import hasten
from hasten.seams import scaling
from hasten.seams.scaling import SCALER


@pytest.fixture(autouse=True)
def fresh(monkeypatch: Any) -> Any:
    """The process's scaler begins anew, and is out of the way again at the end."""
    SCALER.__init__()  # type: ignore[misc]
    before = torch.Tensor.backward, torch.autograd.backward
    yield
    after, on = (torch.Tensor.backward, torch.autograd.backward), SCALER._take_off is not None
    SCALER._end()
    assert (after, on) == (before, False)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))


def data() -> torch.Tensor:
    return torch.randn(32, 8, generator=torch.Generator().manual_seed(1))


def gradients(net: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def close(a: list[torch.Tensor], b: list[torch.Tensor], tolerance: float) -> bool:
    return len(a) == len(b) and all(
        torch.linalg.norm(x - y) <= tolerance * torch.linalg.norm(y) for x, y in zip(a, b, strict=True)
    )


def test_tiny_gradients_do_not_vanish() -> None:
    """Of 1e-8, float16 keeps nothing; scaled it keeps all of its bits, and the script sees true gradients."""
    plain, half = model(), model()
    (plain(data()).mean() * 1e-6).backward()
    with torch.autocast("cpu", dtype=torch.float16):
        out = half(data())
    (out.float().mean() * 1e-6).backward()
    assert not close(gradients(half), gradients(plain), 0.05)
    half.zero_grad()
    undo = hasten.Autocast("float16").on(half)
    (half(data()).mean() * 1e-6).backward()
    assert close(gradients(half), gradients(plain), 0.01)
    undo()
    assert "forward" not in vars(half)


def test_accumulated_gradients_are_summed_at_their_true_size() -> None:
    plain, half = model(), model()
    SCALER.scale = 2.0**10  # a sum over the batch fits into float16
    undo = hasten.Autocast("float16").on(half)
    for net in (plain, half):
        net(data()).mean().backward()
        torch.autograd.backward([net(2 * data()).mean()], [torch.tensor(0.5)])
    assert close(gradients(half), gradients(plain), 0.01)
    undo()


def test_an_overflow_leaves_the_step_out_and_halves_the_scale() -> None:
    net = model()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    undo = hasten.Autocast("float16").on(net)
    before = [p.detach().clone() for p in net.parameters()]
    scale = SCALER.scale
    (net(data()).mean() * 1e6).backward()
    held = gradients(net)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not optimizer.state
    assert (SCALER.scale, SCALER.left_out) == (scale / 2, 1)
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(held, gradients(net), strict=True))
    optimizer.zero_grad()
    net(data()).mean().backward()
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert SCALER.left_out == 1
    undo()


def test_training_goes_where_float32_goes_and_the_scale_grows(monkeypatch: Any) -> None:
    monkeypatch.setattr(scaling, "GROWTH_STEPS", 5)
    SCALER.scale = 2.0**6
    losses = {}
    for half in (False, True):
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        undo = hasten.Autocast("float16").on(net) if half else (lambda: None)
        for _ in range(20):
            optimizer.zero_grad()
            loss = (net(data()) - data().sum(1, keepdim=True)).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        losses[half] = loss.item()
        undo()
    assert losses[True] == pytest.approx(losses[False], rel=0.01)
    assert SCALER.scale == 2.0**10 and not SCALER.left_out


def test_gradients_of_an_input_are_left_as_they_are() -> None:
    """What is not a parameter cannot be divided again, so such a loss is not scaled."""
    net = model()
    undo = hasten.Autocast("float16").on(net)
    x = data().requires_grad_()
    for _ in range(2 * scaling.LOOKS):
        x.grad = None
        net(x).mean().backward()
        assert x.grad is not None and 0 < float(x.grad.abs().max()) < 1
    undo()


def test_parameters_outside_of_the_model_get_their_true_gradients() -> None:
    """Known from the optimizer's first step on; a penalty on the weights is scaled and divided with the rest."""
    net = model()
    factor = torch.nn.Parameter(torch.tensor(2.0))
    optimizer = torch.optim.SGD([*net.parameters(), factor], lr=0.0)
    undo = hasten.Autocast("float16").on(net)
    for _ in range(3):
        optimizer.zero_grad()
        (factor * net(data()).mean() + sum(p.square().sum() for p in net.parameters())).backward()
        with torch.no_grad():
            expected = net(data()).mean()
        assert factor.grad is not None
        assert factor.grad.item() == pytest.approx(expected.item(), rel=0.01)
        optimizer.step()
    undo()

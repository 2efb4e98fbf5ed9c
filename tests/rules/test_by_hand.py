"""Remedies on the user's own objects: undo brings back what was there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import hasten
from hasten.core.errors import Unsuited
from hasten.measure import machine


def test_workers_go_from_a_loader_with_a_timeout_and_come_back() -> None:
    loader = DataLoader(TensorDataset(torch.arange(3)), num_workers=1, timeout=5)
    undo = hasten.LoaderWorkers(0).on(loader)
    assert len(list(loader)) == 3
    undo()
    assert (loader.num_workers, loader.timeout) == (1, 5)


def test_workers_that_the_script_prepares_stay() -> None:
    loader = DataLoader(TensorDataset(torch.arange(3)), num_workers=1, worker_init_fn=print)
    with pytest.raises(Unsuited, match="prepared"):
        hasten.LoaderWorkers(0)(loader)
    assert loader.num_workers == 1


@pytest.mark.parametrize("remedy", [hasten.Autocast(), hasten.Autocast("float16"), hasten.NoGradEvaluation()])
def test_a_forward_of_the_scripts_own_is_there_again(remedy: Any) -> None:
    model = torch.nn.Linear(2, 2)

    def own(x: Any) -> Any:
        return x

    model.forward = own  # type: ignore[method-assign]
    undo = remedy.on(model)
    with pytest.raises(Unsuited):
        remedy.on(model)
    undo()
    assert model.forward is own


def test_flushing_that_the_script_has_switched_on_stays_on() -> None:
    torch.set_flush_denormal(True)
    try:
        with pytest.raises(Unsuited):
            hasten.FlushDenormals().on()
        assert not torch.tensor(1e-310, dtype=torch.float64).mul(1).item()
    finally:
        torch.set_flush_denormal(False)


class Own(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).relu()  # type: ignore[no-any-return]


@pytest.mark.skipif(not machine.has_compiler(), reason="nothing is compiled without a compiler")
@pytest.mark.parametrize("make", [Own, lambda: torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())])
def test_modules_that_are_torchs_own_alone_are_compiled_too(
    make: Callable[[], torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        seen.append(sum(node.op.startswith("call") for node in graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    model, x = make(), torch.ones(3, 2)
    plain = model(x)
    undo = hasten.Compile().on(model)
    assert torch.equal(model(x), plain)
    assert seen == [2]  # the whole model is one graph
    with pytest.raises(Unsuited, match="already"):
        hasten.Compile().on(model)
    undo()
    assert torch.equal(model(x), plain)
    assert seen == [2]


@pytest.mark.skipif(not machine.has_compiler(), reason="nothing is compiled without a compiler")
@pytest.mark.parametrize("trains_in_eval_mode", [False, True])
def test_what_is_no_training_is_not_compiled(trains_in_eval_mode: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shape of samples and evaluations would be compiled anew, in the middle of the job."""
    compiled: list[bool] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        compiled.append(torch.is_grad_enabled())
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    model = Own().train(not trains_in_eval_mode)
    undo = hasten.Compile().on(model)
    with torch.no_grad():
        for rows in (3, 4, 5):
            model(torch.ones(rows, 2))
    assert compiled == []
    model.eval()
    model(torch.ones(3, 2))  # with a graph that nobody needs, unless it is what trains
    assert compiled == [True] * trains_in_eval_mode
    model.train(not trains_in_eval_mode)
    model(torch.ones(3, 2))
    assert compiled == [True]
    undo()


def test_anomaly_mode_off_still_finds_nan_and_says_what_the_script_asked_for() -> None:
    plain = (torch.is_anomaly_enabled, torch.set_anomaly_enabled, torch.autograd.backward)
    undo = hasten.AnomalyOff().on()
    try:
        with pytest.raises(Unsuited):
            hasten.AnomalyOff().on()
        assert not torch.is_anomaly_enabled()
        torch.autograd.set_detect_anomaly(True)  # as a script does after a plan was applied
        assert torch.is_anomaly_enabled()
        x = torch.zeros(2, requires_grad=True)
        root = (x * 0).sum().sqrt() * 0  # its gradient is NaN
        assert "traceback_" not in (root.grad_fn.metadata or {})  # no stack was recorded
        with pytest.warns(UserWarning, match="Error detected"), pytest.raises(RuntimeError, match="returned nan"):
            root.backward()
        torch.autograd.set_detect_anomaly(False)
        (x * 0).sum().sqrt().mul(0).backward()
        with torch.autograd.detect_anomaly(check_nan=False):
            assert torch.is_anomaly_enabled() and not torch.is_anomaly_check_nan_enabled()
    finally:
        undo()
        torch.autograd.set_detect_anomaly(False)
    assert (torch.is_anomaly_enabled, torch.set_anomaly_enabled, torch.autograd.backward) == plain


def test_weights_whose_memory_is_held_elsewhere_keep_it() -> None:
    model = torch.nn.Conv2d(2, 3, 2)
    hasten.ChannelsLast().on(model)()
    best = model.state_dict()  # no copy: it follows the weights
    with pytest.raises(Unsuited, match="elsewhere"):
        hasten.ChannelsLast()(model)
    del best
    hasten.ChannelsLast()(model)
    with pytest.raises(Unsuited, match="elsewhere"):
        hasten.ChannelsLast()(torch.nn.Conv2d(2, 3, 2).share_memory())

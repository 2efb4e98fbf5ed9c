"""Recurrent layers as one operation of a tape, beside torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet import planner, stack_trial, stacked
from hasten.fleet.models import Gru
from hasten.fleet.modules import Factory
from hasten.fleet.native.build import kernel
from hasten.fleet.recipe import Recipe
from hasten.fleet.tape import step
from hasten.fleet.tasks import Task, jobs_of
from tests.fleet.common import weights
from tests.fleet.tape.test_tape import ISAS, WIDTH, Own, apart

CELLS: dict[str, Callable[..., nn.Module]] = {
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "rnn": nn.RNN,
    "rnn of relu": lambda *sizes, **of: nn.RNN(*sizes, nonlinearity="relu", **of),
}
USES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {  # of states (rows, time, …) and of the ends
    "last": lambda out, end: out[:, -1],
    "one between": lambda out, end: out[:, out.shape[1] // 2],
    "mean": lambda out, end: out.mean(1),
    "all": lambda out, end: out.flatten(1),
    "product": lambda out, end: (out * out[:, -1:]).sum(1),
    "end": lambda out, end: end[-1],
    "ends": lambda out, end: end.transpose(0, 1).flatten(1),
    "last and end": lambda out, end: torch.cat([out[:, -1], end[0]], 1),
}
STARTS = ("none", "noughts", "learned", "computed")


class Net(nn.Module):
    """A recurrent layer, of whose states something is made. X: (rows, WIDTH)."""

    def __init__(self, cell: str, features: int, units: int, use: str = "last", start: str = "none", **of: Any) -> None:
        super().__init__()
        self.cell = CELLS[cell](features, units, **of)
        self.use, self.start, self.kept = use, start, len(self.cell.all_weights)  # type: ignore[arg-type]
        self.learned = nn.Parameter(torch.randn(self.kept, 1, units)) if start == "learned" else None
        self.computed = nn.Linear(WIDTH, self.kept * units) if start == "computed" else None
        self.last = nn.Linear(self.made(torch.zeros(2, WIDTH)).shape[1], 3)

    def first(self, x: torch.Tensor) -> torch.Tensor | None:
        if self.start == "noughts":
            return torch.zeros(self.kept, x.shape[0], self.cell.hidden_size)
        if self.learned is not None:
            return self.learned.expand(-1, x.shape[0], -1).contiguous()
        if self.computed is not None:
            return torch.tanh(self.computed(x)).reshape(len(x), self.kept, -1).transpose(0, 1).contiguous()
        return None

    def made(self, x: torch.Tensor) -> torch.Tensor:
        self.cell.flatten_parameters()
        steps = WIDTH // self.cell.input_size
        seen = x[:, : steps * self.cell.input_size].reshape(len(x), steps, -1)
        given = seen if self.cell.batch_first else seen.transpose(0, 1)
        start = self.first(x)
        if self.cell.mode == "LSTM":
            out, (end, cell) = self.cell(given, None if start is None else (start, start * 0.5))
            end = end + cell
        else:
            out, end = self.cell(given, start)
        return USES[self.use](out if self.cell.batch_first else out.transpose(0, 1), end)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.made(x))
        return out


@settings(max_examples=30)
@given(
    cell=st.sampled_from(sorted(CELLS)), features=st.integers(1, 7), units=st.integers(1, 37),
    layers=st.integers(1, 3), bias=st.booleans(), first=st.booleans(), two=st.booleans(),
    use=st.sampled_from(sorted(USES)), start=st.sampled_from(STARTS), batch=st.integers(1, 40),
)  # fmt: skip
def test_any_recurrent_layer(
    cell: str, features: int, units: int, layers: int, bias: bool, first: bool, two: bool, use: str, start: str,
    batch: int,
) -> None:  # fmt: skip
    of = {"num_layers": layers, "bias": bias, "batch_first": first, "bidirectional": two}
    found = apart(lambda: Net(cell, features, units, use, start, **of), batch=batch)
    assert max(found.values()) < 2e-5, found


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [5, 16, 33])
def test_every_instruction_set(cell: str, units: int, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "kernel", lambda: kernel(isa))
    found = apart(lambda: Net(cell, 2, units, "product", "computed", num_layers=2, bidirectional=True))
    assert max(found.values()) < 2e-5, found


def filled(make: Callable[[], nn.Module], width: int, outputs: int = 1) -> stacked.Stack:
    """A stack of two models over rows of so many numbers."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((2, 40, width), np.float32)
    tasks = {f"k{i}": Task(X, X[:, :outputs].copy()) for i, X in enumerate(rows)}
    recipe, factory = Recipe(batch_size=16), Factory(make)
    jobs = jobs_of(tasks, recipe, {})
    return stack_trial.filled(planner.kinds_of(jobs, factory)[0][0], jobs, factory, recipe, 2)


def test_a_window_of_any_length_is_one_operation() -> None:
    lengths = []
    for window in (12, 300):
        stack = filled(lambda window=window: Gru(window, 1), window)  # type: ignore[misc]
        assert stack.tape is not None, stack.why_no_tape
        lengths.append(stack.tape.program.words[2])
    assert lengths[0] == lengths[1] < 20


@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_depends_on_nothing_that_was_there_before(cell: str) -> None:
    """Pads behind the last unit, and all scratch space, may hold anything."""
    make = lambda: Net(cell, 3, 21, "all", "learned", num_layers=2, bidirectional=True)  # noqa: E731
    stack = filled(make, WIDTH, 3)
    stack.step()
    before = stack.backward()[0].clone(), stack.tape.gradients[0].clone()  # type: ignore[union-attr]
    stack.flat[0, 1] = np.nan
    stack.backward()
    after = stack.backward()[0], stack.tape.gradients[0]  # type: ignore[union-attr]
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(before, after, strict=True))


def series(count: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    made = {}
    for k in range(count):
        X = draw.standard_normal((30 + 11 * k, WIDTH), np.float32)
        made[f"s{k}"] = X, np.tanh(X[:, -3:].sum(1, keepdims=True) * np.ones(3, np.float32))
    return made


@pytest.mark.parametrize("cell", CELLS)
def test_the_fleet_trains_as_the_loop_does_whatever_is_beside_a_model(cell: str) -> None:
    def make() -> nn.Module:
        return Net(cell, 2, 9, "last and end", bidirectional=True, batch_first=True)

    tasks, options = series(4), {"epochs": 3, "batch_size": 16, "lr": 0.01}
    whole = fleet.fit(make, tasks, engine="stacked", prove=2, workers=1, **options)
    assert all(proof["holds"] for proof in whole.summary().proof)
    turned = fleet.fit(make, dict(reversed(tasks.items())), engine="stacked", workers=3, **options)
    assert weights(turned) == weights(whole)
    loop = fleet.fit(make, tasks, engine="loop", **options)
    assert all(np.allclose(whole.weights_of(key), loop.weights_of(key), atol=1e-4) for key in tasks)


def sizes(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.cell.flatten_parameters()
    start = torch.zeros(m.cell.num_layers, x.size(0), m.cell.hidden_size)
    return m.last(m.cell(x.unsqueeze(2), start)[0][:, -1])


def test_a_forward_may_ask_its_layer_for_sizes() -> None:
    found = apart(lambda: Own(sizes, cell=nn.GRU(1, 5, 2, batch_first=True), last=nn.Linear(5, 3)))
    assert max(found.values()) < 2e-5


def test_a_batch_norm_before_a_recurrent_layer_keeps_its_statistics() -> None:
    """What a step writes is read by a second trace."""

    def normed(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.last(m.cell(torch.relu_(m.norm(x)).unsqueeze(2))[0][:, -1])

    parts = {"norm": nn.BatchNorm1d(WIDTH), "cell": nn.GRU(1, 6, batch_first=True), "last": nn.Linear(6, 3)}
    found = apart(lambda: Own(normed, **parts))
    assert "norm.running_mean" in found and max(found.values()) < 2e-5


OTHERS = {
    "dropout between layers": (lambda m, x: m.last(m.cell(x[..., None])[0][:, -1]), {"num_layers": 2, "dropout": 0.1}),
    "projections": (lambda m, x: m.last(m.cell(x[..., None])[0][:, -1]), {"proj_size": 5}),
    "no batch of them": (lambda m, x: m.last(m.cell(x[:, :1])[0]), {}),
}


@pytest.mark.parametrize("why", OTHERS)
def test_other_kinds_and_uses_are_left_to_the_loop(why: str) -> None:
    forward, of = OTHERS[why]
    units = 6 if "proj_size" in of else 5

    def make() -> nn.Module:
        return Own(forward, cell=nn.LSTM(1, units, batch_first=True, **of), last=nn.Linear(5, 3))

    with pytest.raises(UsageError, match=why):
        fleet.fit(make, series(2), engine="stacked", epochs=1)

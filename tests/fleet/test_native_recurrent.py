"""The kernel computes what torch computes, through GRU and LSTM."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hasten import fleet
from hasten.fleet import models, naive
from hasten.fleet.loop import drive, fresh
from hasten.fleet.native.chain import ACTIVATION, DROPOUT, LINEAR, RECURRENT, TURN
from hasten.fleet.native.reader import NotAChain, chain_of
from hasten.fleet.recipe import EarlyStop, Recipe
from hasten.fleet.state import State
from tests.fleet.common import weights
from tests.fleet.test_native import ISAS, both, job, same_after_nan, same_alone, same_gradient, same_training

CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class Net(nn.Module):
    """A recurrent layer over rows of numbers, then a linear layer. X: (rows, steps * features)."""

    def __init__(
        self, cell: str, features: int, units: int, outputs: int = 2, rest: nn.Module | None = None, **of: Any
    ):
        super().__init__()
        self.cell = CELLS[cell](features, units, batch_first=True, **of)
        self.rest = rest or nn.Identity()
        self.head = nn.Linear(units, outputs)
        self.features = features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.cell(x.view(x.size(0), -1, self.features))
        made: torch.Tensor = self.head(self.rest(out[:, -1]))
        return made


class Own(nn.Module):
    """A forward of its own over recurrent layers of one and two layers. X: (rows, 6)."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.gru, self.deep = nn.GRU(1, 3, batch_first=True), nn.GRU(1, 3, 2, batch_first=True)
        self.lstm, self.lin = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 1)
        self.next, self.drop, self.all = nn.GRU(3, 3, batch_first=True), nn.Dropout(0.3), nn.Linear(18, 1)
        self.six = nn.Linear(6, 6)
        self.units, self.own = 3, forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(self, x)


@settings(max_examples=25)
@given(
    cell=st.sampled_from(sorted(CELLS)), features=st.integers(1, 20), units=st.integers(1, 40),
    layers=st.integers(1, 3), steps=st.integers(1, 12), rows=st.integers(1, 70), bias=st.booleans(),
)  # fmt: skip
def test_gradients_of_any_recurrent_layer(
    cell: str, features: int, units: int, layers: int, steps: int, rows: int, bias: bool
) -> None:
    torch.manual_seed(0)
    module = Net(cell, features, units, num_layers=layers, bias=bias)
    same_gradient(module, Recipe(batch_size=rows), steps * features, 2, rows)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("units", "rows", "layers"), [(32, 64, 1), (20, 37, 2), (5, 70, 3), (1, 1, 1)])
def test_gradients_by_every_instruction_set(isa: str, cell: str, units: int, rows: int, layers: int) -> None:
    torch.manual_seed(0)
    same_gradient(Net(cell, 1, units, num_layers=layers), Recipe(batch_size=rows), 19, 2, rows, isa)


def _last_and_mean(out: torch.Tensor) -> torch.Tensor:
    return out[:, -1] + out.mean(1)


def _sum_of_two(last: torch.Tensor) -> torch.Tensor:
    return last[0] + last[1]


READ = {
    "all states": lambda m, x: m.all(m.gru(x.unsqueeze(-1))[0].flatten(1)),
    "dropout between": lambda m, x: m.lin(m.next(m.drop(m.gru(x[..., None])[0]))[0][:, -1]),
    "one after the other": lambda m, x: m.lin(m.next(m.deep(x.unsqueeze(2))[0])[1][-1]),
    "all states of two": lambda m, x: m.all(torch.relu(m.next(m.gru(x.unsqueeze(2))[0])[0]).reshape(x.size(0), -1)),
    "the last as one position": lambda m, x: m.lin(m.next(m.gru(x.unsqueeze(2))[0][:, -1].unsqueeze(1))[0][:, -1]),
    "other positions": lambda m, x: m.lin(m.lstm(m.gru(x.unsqueeze(2))[0].reshape(-1, 9, 2))[0][:, -1]),
    "a state in between": lambda m, x: m.lin(m.gru(x.unsqueeze(2))[0][:, 2]),
    "the last and the mean": lambda m, x: m.lin(_last_and_mean(m.gru(x.unsqueeze(2))[0])),
    "each layer's last": lambda m, x: m.lin(_sum_of_two(m.deep(x.unsqueeze(2))[1])),
    "behind a linear layer": lambda m, x: m.lin(m.gru(m.six(x).unsqueeze(2))[0][:, -1]),
    "several features": lambda m, x: m.lin(m.drop(m.lstm(x.view(-1, 3, 2))[1][0].squeeze(0))),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", READ)
def test_gradients_of_what_is_done_with_the_states(name: str, isa: str) -> None:
    torch.manual_seed(0)
    module = Own(READ[name])
    module.requires_grad_(True)
    used = {n.split(".")[0] for layer in chain_of(module, (6,)).layers for n in (layer.weight,) if n}
    for unused in {"gru", "deep", "lstm", "lin", "next", "all", "six"} - used:
        setattr(module, unused, nn.Identity())
    same_gradient(module, Recipe(batch_size=32), 6, 1, 30, isa)


@pytest.mark.parametrize("forward", [
    lambda m, x: m.lin(m.gru(x.unsqueeze(-1))[0][:, -1]),
    lambda m, x: m.lin(m.gru(x.unsqueeze(-1))[0][:, -1, :]),
    lambda m, x: m.lin(m.gru(x[:, :, None])[0][:, 5]),
    lambda m, x: m.lin(m.gru(x[..., None])[1][-1]),
    lambda m, x: m.lin(m.gru(x[..., None])[1][0]),
    lambda m, x: m.lin(m.gru(x[..., None])[1].squeeze(0)),
    lambda m, x: m.lin(torch.squeeze(m.gru(x[..., None])[1], 0)),
    lambda m, x: m.lin(m.gru(x[..., None])[1][-1, :, :]),
    lambda m, x: m.lin(m.gru(x[..., None], torch.zeros(1, x.size(0), m.units))[1][-1]),
    lambda m, x: m.lin(m.gru(x[..., None], torch.zeros((1, len(x), m.units), device=x.device).to(x.device))[1][-1])
    if isinstance(x, torch.Tensor) else m.lin(m.gru(x[..., None], x.new_zeros(1, x.shape[0], 3))[1][-1]),
    lambda m, x: m.lin(m.gru(x[..., None], hx=torch.zeros(1, x.size(0), 3).requires_grad_())[1][-1]),
    lambda m, x: m.lin(m.gru(x[..., None], None)[1][-1]),
    lambda m, x: m.lin(m.lstm(x.view(-1, 3, 2), (x.new_zeros(1, x.size(0), 3), x.new_zeros(1, len(x), 3)))[0][:, -1])
    if isinstance(x, torch.Tensor) else m.lin(m.lstm(x.view(-1, 3, 2), [x.new_zeros(1, x.size(0), 3)] * 2)[0][:, -1]),
])  # fmt: skip
def test_the_last_state_however_it_is_taken(forward: Callable[..., torch.Tensor]) -> None:
    module = Own(forward)
    assert module(torch.zeros(4, 6)).shape == (4, 1)
    assert [layer.kind for layer in chain_of(module, (6,)).layers] == [RECURRENT, LINEAR]


def test_layers_of_a_recurrent_module_are_layers_of_the_chain() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        out, _ = m.deep(x.unsqueeze(-1))
        made: torch.Tensor = m.lin(m.drop(torch.relu(out[:, -1])))
        return made

    layers = chain_of(Own(forward), (6,)).layers
    assert [layer.kind for layer in layers] == [RECURRENT, RECURRENT, ACTIVATION, DROPOUT, LINEAR]
    assert [(a.inputs, a.outputs) for a in layers[:2]] == [(6, 18), (18, 3)]
    assert layers[1].state_bias == "deep.bias_hh_l1"
    assert TURN not in [layer.kind for layer in layers]


@pytest.mark.parametrize("forward", [
    lambda m, x: m.lin(m.gru(x.unsqueeze(-1))[0]),
    lambda m, x: m.lin(m.gru(x.unsqueeze(-1))[0][:, 6]),
    lambda m, x: m.lin(m.gru(x.unsqueeze(-1))[0][-1]),
    lambda m, x: m.lin(m.deep(x.unsqueeze(-1))[1][0]),
    lambda m, x: m.lin(m.deep(x.unsqueeze(-1))[1].squeeze(0)),
    lambda m, x: m.gru(x.unsqueeze(-1))[1],
    lambda m, x: m.gru(x.unsqueeze(-1)),
    lambda m, x: m.lin(m.lstm(x.view(-1, 3, 2))[1][1][-1]),
    lambda m, x: m.lin(m.lstm(x.view(-1, 3, 2))[1][-1]),
    lambda m, x: m.lin(m.gru(x.unsqueeze(-1), torch.ones(1, x.size(0), 3))[0][:, -1]),
    lambda m, x: m.lin(m.gru(x.unsqueeze(-1), torch.zeros(1, x.size(1), 3))[0][:, -1]),
    lambda m, x: m.lin(m.gru(x.unsqueeze(0))[0][:, -1]),
    lambda m, x: m.lin(m.gru(x.view(-1, 3, 2))[0][:, -1]),
    lambda m, x: m.lin(m.next(m.gru(x[..., None])[0], m.gru(x[..., None])[1])[0][:, -1]),
    lambda m, x: m.lin(m.gru(x[..., None])[0][:, -1] + torch.zeros(1, 3)),
])  # fmt: skip
def test_other_uses_are_refused(forward: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(NotAChain):
        chain_of(Own(forward), (6,))


@pytest.mark.parametrize("options", [
    {"bidirectional": True}, {"batch_first": False}, {"num_layers": 2, "dropout": 0.1}, {"proj_size": 2},
], ids=str)  # fmt: skip
def test_other_kinds_are_refused(options: dict[str, Any]) -> None:
    module = Own(lambda m, x: m.lin(m.lstm(x.view(-1, 3, 2))[0][:, -1]))
    module.lstm = nn.LSTM(2, 3, **{"batch_first": True, **options})
    with pytest.raises(NotAChain):
        chain_of(module, (6,))


@pytest.mark.parametrize("season", [0, 4])
def test_the_commands_own_gru(season: int) -> None:
    torch.manual_seed(0)
    module = models.gru(24, 6, season)
    last = module.net.last if isinstance(module, naive.Residual) else module.last
    nn.init.normal_(last.weight, std=0.1)
    same_gradient(module, Recipe(batch_size=32), 24, 6, 30)


@pytest.mark.parametrize("options", [
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}, {"optimizer": "adam", "clip": 0.1},
    {"optimizer": "adamw", "weight_decay": 0.1, "loss": "huber"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("cell", CELLS)
def test_training_ends_where_torch_ends(cell: str, options: dict[str, Any]) -> None:
    recipe = Recipe(**{"lr": 0.003, "epochs": 3, "batch_size": 16, "stop": EarlyStop(patience=2), **options})
    torch.manual_seed(3)
    module = Net(cell, 2, 9, 1, nn.Dropout(0.1), num_layers=2).train()
    same_training(module, recipe, 20, 60)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_row_alone_is_predicted_as_among_others(cell: str, isa: str) -> None:
    torch.manual_seed(0)
    same_alone(Net(cell, 1, 21, num_layers=2).train(), 17, isa, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_saturated_gates_and_far_off_inputs(cell: str) -> None:
    """Where the exponential ends, gates are 0 or 1 as torch's are."""
    torch.manual_seed(0)
    module = Net(cell, 1, 7, 1).train()
    recipe = Recipe(batch_size=16)
    task = job(9, 1, 16, recipe)
    native, loop, layout = both(module, task, recipe)
    native.load(fresh(module, layout, recipe))
    X = (task.task.X * np.logspace(-6, 6, 16)[:, None]).astype(np.float32)
    with torch.no_grad():
        assert np.allclose(native.predict(X), loop.module.eval()(torch.from_numpy(X)), atol=1e-6)
    X[3, 4] = np.nan
    assert np.isnan(native.predict(X)[3]).all() and np.isfinite(native.predict(X)[[2, 4]]).all()


@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_depends_on_nothing_that_was_there_before(cell: str) -> None:
    """Pads behind the last unit, and all scratch space, may hold anything."""
    same_after_nan(Net(cell, 3, 21, 2, nn.Dropout(0.5), num_layers=2).train(), 15)


def test_a_resumed_training_goes_on_to_the_same_bits() -> None:
    recipe = Recipe(lr=0.01, epochs=4, batch_size=16)
    module = Net("gru", 1, 9, 2, nn.Dropout(0.2), num_layers=2).train()
    task = job(13, 2, 53, recipe)
    native, _, layout = both(module, task, recipe)
    kept: list[State] = []
    whole = drive(task, fresh(module, layout, recipe), recipe, native, lambda state: kept.append(copy.deepcopy(state)))
    for state in kept:
        again, _, _ = both(module, task, recipe)
        assert drive(task, state, recipe, again).flat.tobytes() == whole.flat.tobytes()


def tasks(count: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    made = {}
    for k in range(count):
        X = random.normal(size=(30 + 11 * k, 12)).astype(np.float32)
        made[f"s{k}"] = (X, np.tanh(X[:, -3:].sum(1)))
    return made


def test_neighbours_order_and_workers_change_no_bit() -> None:
    def make() -> nn.Module:
        return Net("gru", 1, 10, 1)

    given = tasks(5)
    whole = weights(fleet.fit(make, given, epochs=3, batch_size=16, engine="native", workers=2))
    alone = weights(fleet.fit(make, {"s3": given["s3"]}, epochs=3, batch_size=16, engine="native", workers=1))
    spoilt = {**dict(reversed(given.items())), "s1": (given["s1"][0], given["s1"][1] * np.float32(1e38))}
    other = fleet.fit(make, spoilt, epochs=3, batch_size=16, engine="native", workers=1)
    assert alone["s3"] == whole["s3"] and "s1" in other.failed
    assert all(weights(other)[key] == whole[key] for key in given if key != "s1")


@pytest.mark.parametrize("cell", CELLS)
def test_the_planner_takes_the_kernel_and_the_plain_loop_proves_it(cell: str) -> None:
    trained = fleet.fit(lambda: Net(cell, 1, 12, 1), tasks(3), epochs=3, batch_size=16, prove=2)
    summary = trained.summary()
    assert all(said.startswith("native") for said in summary.engines.values())
    assert all(proof["holds"] and proof["engine"] == "native" for proof in summary.proof)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [10, 50, 100])
@pytest.mark.parametrize("after", [lambda m, x: m.norm(x).mean(1), lambda m, x: x.mean(1)])
def test_states_that_come_to_lie_side_by_side(
    after: Callable[[Any, torch.Tensor], torch.Tensor], rows: int, isa: str
) -> None:
    """Rows that a vector lacks are filled behind the last one, where there must be room for them."""

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.norm, self.head = nn.GRU(1, 32, batch_first=True), nn.LayerNorm(32), nn.Linear(32, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(after(self, self.cell(x.unsqueeze(2))[0]))

    torch.manual_seed(0)
    module = Norm()
    if "norm" not in {layer.weight.partition(".")[0] for layer in chain_of(module, (24,)).layers}:
        module.norm = nn.Identity()
    same_gradient(module, Recipe(batch_size=rows), 24, 1, rows, isa)

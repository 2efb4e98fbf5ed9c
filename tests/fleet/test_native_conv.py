"""The kernel computes what torch computes, where rows have channels and positions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from hasten import fleet
from hasten.fleet import models, naive
from hasten.fleet.loop import drive, fresh
from hasten.fleet.recipe import EarlyStop, Recipe
from hasten.fleet.state import State
from tests.fleet.test_native import ISAS, both, job, same_after_nan, same_alone, same_gradient, same_training


def conv(length: int, *layers: nn.Module, outputs: int = 2) -> nn.Module:
    """Rows of ``length`` numbers through a convolution to 4 channels, ``layers``, and a linear layer."""
    head = nn.Sequential(nn.Unflatten(1, (1, length)), nn.Conv1d(1, 4, 3, padding=1), nn.Tanh(), *layers, nn.Flatten())
    with torch.no_grad():
        width = head.eval()(torch.zeros(1, length)).shape[1]
    return nn.Sequential(*head, nn.Linear(width, outputs)).train()


@settings(max_examples=25)
@given(
    taps=st.integers(1, 7), stride=st.integers(1, 4), pad=st.integers(0, 5), dilation=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]), filters=st.integers(1, 15), length=st.integers(1, 20), rows=st.integers(1, 100),
    bias=st.booleans(), relu=st.booleans(),
)  # fmt: skip
def test_gradients_of_any_convolution(
    taps: int, stride: int, pad: int, dilation: int, groups: int, filters: int, length: int, rows: int, bias: bool,
    relu: bool,
) -> None:  # fmt: skip
    assume(length + 2 * pad > dilation * (taps - 1))
    torch.manual_seed(0)
    layer = nn.Conv1d(4, filters * groups, taps, stride, pad, dilation, groups, bias)
    module = conv(length, layer, nn.ReLU() if relu else nn.Identity())
    same_gradient(module, Recipe(batch_size=rows), length, 2, rows)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("taps", "filters", "rows"), [(5, 8, 64), (3, 13, 37), (1, 3, 5), (9, 30, 130)])
def test_gradients_by_every_instruction_set(isa: str, padding: str, taps: int, filters: int, rows: int) -> None:
    torch.manual_seed(0)
    layers = nn.Conv1d(4, filters, taps, padding=padding), nn.ReLU(), nn.Conv1d(filters, 5, 3)
    same_gradient(conv(19, *layers), Recipe(batch_size=rows), 19, 2, rows, isa)


LAYERS = {
    "layer-norm": nn.LayerNorm(11), "layer-norm-plain": nn.LayerNorm(11, elementwise_affine=False),
    "layer-norm-of-all": nn.LayerNorm([4, 11]), "dropout": nn.Dropout(0.3), "gelu": nn.GELU(), "sigmoid": nn.Sigmoid(),
    "batch-norm": nn.BatchNorm1d(4), "batch-norm-plain": nn.BatchNorm1d(4, affine=False),
}  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rows", [13, 64, 70])
def test_gradients_of_layers_over_channels(name: str, isa: str, rows: int) -> None:
    torch.manual_seed(0)
    same_gradient(conv(11, LAYERS[name], nn.Conv1d(4, 3, 3)), Recipe(batch_size=rows), 11, 2, rows, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("after", [nn.LayerNorm(44), nn.BatchNorm1d(44), nn.Dropout(0.2)], ids=repr)
def test_layers_behind_the_flattened_channels(after: nn.Module, isa: str) -> None:
    torch.manual_seed(0)
    module = conv(11)
    same_gradient(nn.Sequential(*module[:-1], after, nn.Linear(44, 20), nn.Tanh(), nn.Linear(20, 6)),
                  Recipe(batch_size=32), 11, 6, 30, isa)  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
def test_convolutions_between_linear_layers(isa: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(7, 22), nn.Sigmoid(), nn.Unflatten(1, (2, 11)), nn.Conv1d(2, 3, 4, 2), nn.ReLU(),
                           nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Unflatten(1, (1, 9)), nn.Conv1d(1, 1, 9),
                           nn.Flatten())  # fmt: skip
    same_gradient(module, Recipe(batch_size=40), 7, 1, 33, isa)


@pytest.mark.parametrize("season", [0, 4])
def test_the_commands_own_convolution(season: int) -> None:
    torch.manual_seed(0)
    module = models.conv(24, 6, season)
    last = module.net.last if isinstance(module, naive.Residual) else module.last
    nn.init.normal_(last.weight, std=0.1)
    same_gradient(module, Recipe(batch_size=32), 24, 6, 30)


@pytest.mark.parametrize("options", [
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}, {"optimizer": "adam", "clip": 0.1},
    {"optimizer": "adamw", "weight_decay": 0.1, "loss": "huber"},
], ids=str)  # fmt: skip
def test_training_ends_where_torch_ends(options: dict[str, Any]) -> None:
    recipe = Recipe(**{"lr": 0.003, "epochs": 3, "batch_size": 16, "stop": EarlyStop(patience=2), **options})
    torch.manual_seed(3)
    layers = nn.Conv1d(4, 6, 5, stride=2, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.1)
    module = conv(20, *layers, outputs=1)
    ours, theirs, layout = same_training(module, recipe, 20, 60, atol=1e-4)
    kept = slice(layout.trained, layout.total)  # running statistics
    assert np.allclose(ours[kept], theirs[kept], atol=1e-5) and ours[-1] == theirs[-1]


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_alone_is_predicted_as_among_others(isa: str) -> None:
    torch.manual_seed(0)
    same_alone(conv(17, nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.GELU()), 17, isa)


def test_a_gradient_depends_on_nothing_that_was_there_before() -> None:
    """Lanes beyond the last row, and all scratch space, may hold anything."""
    module = conv(13, nn.Conv1d(4, 5, 4, stride=3), nn.BatchNorm1d(5), nn.LayerNorm(4), nn.Dropout(0.5))
    same_after_nan(module, 13)


def test_a_model_goes_on_from_any_epoch_to_the_same_bits() -> None:
    recipe = Recipe(lr=0.01, epochs=4, batch_size=16)
    module = conv(13, nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5), nn.LayerNorm(11), nn.Dropout(0.2))
    task = job(13, 2, 53, recipe)
    native, _, layout = both(module, task, recipe)
    kept: list[State] = []
    whole = drive(task, fresh(module, layout, recipe), recipe, native, lambda state: kept.append(copy.deepcopy(state)))
    for state in kept:
        again, _, _ = both(module, task, recipe)
        assert drive(task, state, recipe, again).flat.tobytes() == whole.flat.tobytes()


def test_rows_that_have_channels_already() -> None:
    random = np.random.default_rng(0)
    tasks = {"a": (random.normal(size=(40, 3, 8)).astype(np.float32), random.normal(size=40).astype(np.float32))}
    make = lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 1))  # noqa: E731
    ours, theirs = (fleet.fit(make, tasks, epochs=2, engine=e).weights_of("a") for e in ("native", "loop"))
    assert np.allclose(ours, theirs, atol=1e-5)

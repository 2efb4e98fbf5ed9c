"""The stack beside the plain loop: padded batches, unused parameters, targets of odd shapes, dropouts anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet.native.build import NoCompiler, kernel
from hasten.fleet.state import Floats
from tests.fleet.common import FEATURES, Branched, ragged, rows

OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 0.01}
try:
    kernel()
    ENGINES = ["native", "stacked"]
except NoCompiler:
    ENGINES = ["stacked"]


class Own(nn.Module):
    """A forward of its own over two layers and a dropout. X: (rows, FEATURES)."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(FEATURES, 5), nn.Linear(5, 1), nn.Linear(3, 2)
        self.drop, self.own = nn.Dropout(0.5), forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(self, x)


def plain(m: Any, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = m.last(m.first(x))
    return made


def scaled_by_its_mean(m: Any, x: torch.Tensor) -> torch.Tensor:
    size = x.mean(1, keepdim=True)
    made: torch.Tensor = size * m.last(m.first(x / size))
    return made


def features_first(m: Any, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = m.last(m.drop(m.first(x).t()).t())
    return made


def trained(make: Callable[[], nn.Module], tasks: Any, engine: str, **options: Any) -> dict[str, Floats]:
    found = fleet.fit(make, tasks, engine=engine, **{**OPTIONS, **options})
    assert not found.failed
    return {key: found.weights_of(key) for key in found}


def test_a_short_batch_is_padded_by_nothing_that_could_be_nan() -> None:
    tasks = {key: (np.abs(X) + 1, y) for key, (X, y) in ragged(3).items()}
    ours, theirs = (trained(lambda: Own(scaled_by_its_mean), tasks, engine) for engine in ("stacked", "loop"))
    assert all(np.allclose(ours[key], theirs[key], atol=1e-5) for key in tasks)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_parameters_that_no_forward_uses_stay_as_they_are(optimizer: str, engine: str) -> None:
    torch.set_num_threads(1)
    options: dict[str, Any] = {"optimizer": optimizer, "weight_decay": 0.1, "stop": fleet.EarlyStop(patience=1)}
    found = [
        fleet.fit(lambda: Own(plain), ragged(2), engine=engine, **OPTIONS, **options) for engine in (engine, "loop")
    ]
    ours, theirs = (each["s1"].unused.weight for each in found)
    assert torch.equal(ours, theirs) and ours.abs().sum() > 0


def test_a_dropout_that_sees_rows_elsewhere_is_left_to_the_loop() -> None:
    found = fleet.fit(lambda: Own(features_first), ragged(3), **OPTIONS)
    assert {row.engine for row in found.summary().rows} == {"loop"}
    assert "along its first dimension" in next(iter(found.summary().engines.values()))


def test_one_column_is_one_number_a_row_whatever_others_have() -> None:
    tasks = ragged(3)
    other = {**tasks, "s0": (tasks["s0"][0], tasks["s0"][1][:, None])}
    ours, theirs = (trained(Branched, each, "stacked") for each in (tasks, other))
    assert all(np.array_equal(ours[key], theirs[key]) for key in tasks)


@pytest.mark.parametrize("size", [20, 21, 64])
def test_keys_of_a_single_batch_are_stacked(size: int) -> None:
    assert len(fleet.fit(Branched, {f"k{i}": rows(20, i) for i in range(3)}, engine="stacked", batch_size=size)) == 3


def test_a_wrong_target_fails_its_own_key_although_it_is_the_longest() -> None:
    tasks = {**{f"k{i}": rows(20 + i, i) for i in range(40)}, "wrong": (rows(90, 0)[0], rows(90, 0)[0][:, :2])}
    found = fleet.fit(Branched, tasks, engine="stacked", epochs=1)
    assert list(found.failed) == ["wrong"] and "the target has 2" in found.failed["wrong"]


@pytest.mark.parametrize("engine", [*ENGINES, "loop"])
def test_classes_beyond_the_models_are_named(engine: str) -> None:
    tasks = {key: (X, np.arange(len(X)) % 3) for key, (X, _) in ragged(2).items()}
    tasks["many"] = tasks["s0"][0], np.arange(len(tasks["s0"][0])) % 4
    found = fleet.fit(
        lambda: nn.Sequential(nn.Linear(FEATURES, 3)), tasks, loss="cross_entropy", engine=engine, epochs=1
    )
    assert list(found.failed) == ["many"] and "class 3" in found.failed["many"]


def test_targets_of_a_binary_cross_entropy_are_probabilities() -> None:
    """Of 0, 1 and 2 the loss fell below nought, without a word."""
    tasks = {
        f"top {top}": (X, np.arange(len(X)) % 3 / 2 * top)
        for top, (X, _) in zip((1, 2), ragged(2).values(), strict=True)
    }
    found = fleet.fit(lambda: nn.Linear(FEATURES, 1), tasks, loss="bce", epochs=1)
    assert list(found.failed) == ["top 2"] and "between 0 and 1, and holds 2" in found.failed["top 2"]


@pytest.mark.parametrize("engine", ENGINES)
def test_classes_beyond_all_models_are_named(engine: str) -> None:
    tasks = {key: (X, np.arange(len(X)) % 3) for key, (X, _) in ragged(2).items()}
    with pytest.raises(UsageError, match="class 2, and the model knows 2"):
        fleet.fit(lambda: nn.Linear(FEATURES, 2), tasks, loss="cross_entropy", engine=engine, epochs=1)


@pytest.mark.parametrize("engine", [*ENGINES, "loop"])
def test_a_batch_norm_that_meets_a_single_row_says_so(engine: str) -> None:
    tasks = {"whole": rows(20, 0), "one": rows(33, 1)}  # the longest one

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    found = fleet.fit(make, tasks, engine=engine, **OPTIONS)
    assert list(found.failed) == ["one"] and ("one row" in found.failed["one"] or "more than 1" in found.failed["one"])


class Bare(nn.Module):
    """Raises without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise AssertionError
        made: torch.Tensor = self.last(x)
        return made


def test_an_error_without_words_is_named_by_its_type() -> None:
    found = fleet.fit(Bare, ragged(2), epochs=1)
    assert found.failed == {"s0": "AssertionError", "s1": "AssertionError"}
    assert "inf" not in next(iter(found.summary().engines.values()))


@pytest.mark.parametrize("batch", [8, 16, 64])
@pytest.mark.parametrize("seen", [lambda x: x.mean(0), lambda x: x[-1:], lambda x: x.amax(0)])
def test_rows_that_see_each_other_are_left_to_the_loop(seen: Any, batch: int) -> None:
    def make() -> nn.Module:
        return Own(lambda m, x: m.last(m.first(x - seen(x))))

    found = fleet.fit(make, ragged(3), **{**OPTIONS, "epochs": 1, "batch_size": batch})
    assert "rows of a batch depend on each other" in next(iter(found.summary().engines.values()))

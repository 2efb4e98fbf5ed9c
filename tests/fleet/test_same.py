"""The promise: a model's bits do not depend on neighbours, order, chunk, threads, nor on a kill; engines agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet import stack_trial, streams
from hasten.fleet.native.build import NoCompiler, kernel
from hasten.fleet.native.engine import NativeTrainer
from hasten.fleet.update_rows import Updater
from tests.fleet.common import Branched, Convolution, mlp, ragged, rows, weights

try:
    kernel()
    ENGINES = ["native", "stacked", "loop"]
except NoCompiler:
    ENGINES = ["stacked", "loop"]

OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "lr": 0.01, "stop": fleet.EarlyStop(patience=1)}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("make", [mlp, Convolution])
@pytest.mark.parametrize("engine", ENGINES)
def test_bits_do_not_depend_on_neighbours_order_or_workers(engine: str, make: Any) -> None:
    tasks = ragged()
    whole = weights(fleet.fit(make, tasks, engine=engine, workers=1, **OPTIONS))
    turned = dict(reversed(tasks.items()))
    assert weights(fleet.fit(make, turned, engine=engine, workers=3, shortest_first=True, **OPTIONS)) == whole
    two = {key: tasks[key] for key in ("s1", "s3")}
    assert weights(fleet.fit(make, two, engine=engine, workers=1, **OPTIONS)) == {k: whole[k] for k in two}
    one = {"s2": tasks["s2"]}
    assert weights(fleet.fit(make, one, engine=engine, **OPTIONS)) == {"s2": whole["s2"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_failures_stay_local(engine: str) -> None:
    tasks = ragged()
    whole = weights(fleet.fit(mlp, tasks, engine=engine, **OPTIONS))
    bad = dict(tasks)
    bad["nan"] = (np.full((30, 6), np.nan, np.float32), rows(30, 9)[1])
    bad["empty"] = (np.empty((0, 6), np.float32), np.empty(0, np.float32))
    bad["constant"] = (rows(30, 9)[0], np.ones(30, np.float32))
    bad["huge"] = (rows(30, 9)[0], rows(30, 9)[1] * np.float32(1e30))
    bad["short"] = (rows(1, 9)[0], rows(1, 9)[1] * 0)
    trained = fleet.fit(mlp, bad, engine=engine, **OPTIONS)
    assert weights(trained) == whole
    causes = trained.failed
    assert set(causes) == {"nan", "empty", "constant", "huge", "short"}
    assert "NaN" in causes["nan"] and "30 of 30" in causes["nan"]
    assert "empty" in causes["empty"] and "constant" in causes["constant"] and "too short" in causes["short"]
    assert "loss became" in causes["huge"]
    with pytest.raises(KeyError, match="constant target"):
        trained["constant"]


@pytest.mark.parametrize(("engine", "make"), [(e, mlp) for e in ENGINES if e != "loop"] + [(ENGINES[0], Convolution)])
def test_one_per_cent_of_poisoned_models(engine: str, make: Any) -> None:
    """300 models: one with NaN in its data, one in its targets, one that becomes NaN in training."""
    tasks = {f"m{i:03d}": rows(20 + i % 30, i) for i in range(300)}
    whole = weights(fleet.fit(make, tasks, epochs=2, batch_size=16, engine=engine))
    for key, part in (("m007", 0), ("m150", 1)):
        spoilt = [np.array(array) for array in tasks[key]]
        spoilt[part][-1:] = np.nan
        tasks[key] = (spoilt[0], spoilt[1])
    X, y = tasks["m299"]
    tasks["m299"] = (X * np.float32(1e30), y * np.float32(1e30))
    poisoned = fleet.fit(make, tasks, epochs=2, batch_size=16, engine=engine)
    assert set(poisoned.failed) == {"m007", "m150", "m299"}
    assert weights(poisoned) == {key: bits for key, bits in whole.items() if key not in poisoned.failed}


@pytest.mark.parametrize("make", [mlp, Convolution])
def test_engines_agree_to_rounding(make: Any) -> None:
    found = {e: fleet.fit(make, ragged(), engine=e, **OPTIONS) for e in ENGINES}
    for key in found["loop"]:
        for name in ENGINES:
            assert np.allclose(found[name].weights_of(key), found["loop"].weights_of(key), atol=1e-4), (name, key)


def test_the_stack_trains_what_the_kernel_cannot() -> None:
    with pytest.raises(UsageError, match="native engine cannot"):
        fleet.fit(Branched, ragged(), engine="native", **OPTIONS)
    chosen = fleet.fit(Branched, ragged(), **OPTIONS)
    assert {row.engine for row in chosen.summary().rows} <= {"stacked", "loop"}
    stack = fleet.fit(Branched, ragged(), engine="stacked", **OPTIONS)
    loop = fleet.fit(Branched, ragged(), engine="loop", **OPTIONS)
    for key in loop:
        assert np.allclose(stack.weights_of(key), loop.weights_of(key), atol=1e-4)


class Recurrent(torch.nn.Module):
    def __init__(self, cell: str) -> None:
        super().__init__()
        self.cell = getattr(torch.nn, cell)(1, 5, 2, batch_first=True)
        self.last = torch.nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.cell(x.unsqueeze(2))[0][:, -1])
        return out


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_recurrent_layers_can_be_stacked(cell: str) -> None:
    found = [fleet.fit(lambda: Recurrent(cell), ragged(3), engine=e, **OPTIONS) for e in ("stacked", "loop")]
    for key in found[0]:
        assert np.allclose(found[0].weights_of(key), found[1].weights_of(key), atol=1e-4)


def test_the_loop_is_the_loop_that_people_write() -> None:
    """Nothing of hasten but the key's numbers: their order of rows and their initial weights."""
    X, y = rows(50, 3)
    make = lambda: torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.ReLU(), torch.nn.Linear(9, 1))  # noqa: E731
    stream = streams.stream_of(5, "a")
    torch.manual_seed(streams.torch_seed(stream, streams.INIT))
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(2):
        order = streams.permutation(stream, 50, epoch)
        for start in range(0, 50, 16):
            batch = torch.from_numpy(order[start : start + 16])
            optimizer.zero_grad()
            prediction = model(torch.from_numpy(X)[batch])
            loss = torch.nn.functional.mse_loss(prediction, torch.from_numpy(y)[batch, None])
            loss.backward()
            optimizer.step()
    ours = fleet.fit(make, {"a": (X, y)}, epochs=2, batch_size=16, lr=0.01, seed=5, engine="loop")
    for mine, theirs in zip(model.parameters(), ours["a"].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_any_callable_goes_through_the_loop() -> None:
    trained = fleet.fit(
        mlp, ragged(2), loss=lambda p, y: (p[:, 0] - y).abs().mean(),
        optimizer=lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3), epochs=2,
    )  # fmt: skip
    assert not trained.failed
    assert {row.engine for row in trained.summary().rows} == {"loop"}
    assert "callable" in next(iter(trained.summary().engines.values()))


def test_proof_by_the_plain_loop() -> None:
    proof = fleet.fit(mlp, ragged(), prove=2, **OPTIONS).summary().proof
    assert len(proof) == 2 and all(found["holds"] for found in proof)
    again = fleet.fit(mlp, ragged(), prove=9, engine="loop", **OPTIONS).summary().proof
    assert len(again) == 5 and all(found["identical"] for found in again)


@pytest.fixture(params=[engine for engine in ENGINES if engine != "loop"])
def judged(request: pytest.FixtureRequest) -> Any:
    return request.param


def wrong_gradients(monkeypatch: pytest.MonkeyPatch, factor: Any) -> None:
    """Let engines say a gradient times ``factor(epoch, step)``."""
    right, whole = NativeTrainer.gradient, stack_trial.gradient

    def native(self: Any, rows: Any, epoch: int = 0, step: int = 0) -> Any:
        found, loss = right(self, rows, epoch, step)
        return found * np.float32(factor(epoch, step)), loss

    def stack(kind: Any, job: Any, recipe: Any, state: Any, step: int = 0) -> Any:
        return whole(kind, job, recipe, state, step) * np.float32(factor(state.epoch, step))

    monkeypatch.setattr(NativeTrainer, "gradient", native)
    monkeypatch.setattr(stack_trial, "gradient", stack)


@pytest.mark.parametrize(
    "factor",
    [lambda *_: 1.001, lambda epoch, _: 1.001 if epoch else 1.0, lambda _, step: 1.001 if step else 1.0],
    ids=["everywhere", "later", "behind the first batch"],
)
def test_a_wrong_gradient_is_not_proved(judged: str, factor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = fleet.fit(mlp, ragged(2), engine=judged, **OPTIONS)
    wrong_gradients(monkeypatch, factor)
    assert not any(found["holds"] for found in trained.prove(2))


def test_a_sum_on_the_other_side_of_a_bend_is_no_wrong_gradient(judged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = fleet.fit(mlp, ragged(1), engine=judged, **OPTIONS)
    asked: list[int] = []
    wrong_gradients(monkeypatch, lambda *_: 1.001 if not asked.append(0) and len(asked) == 1 else 1.0)
    assert all(found["holds"] and found["gradients"] >= 8 for found in trained.prove(1))


def test_a_wrong_optimizer_is_not_proved(judged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradients are right wherever one looks."""
    right, whole = NativeTrainer.take, Updater.__call__
    monkeypatch.setattr(NativeTrainer, "take", lambda self, job: right(self, replace(job, lr=job.lr * 1.001)))
    monkeypatch.setattr(
        Updater, "__call__",
        lambda self, flat, params, jobs, taken: whole(
            self, flat, params, [job and replace(job, lr=job.lr * 1.001) for job in jobs], taken
        ),
    )  # fmt: skip
    proof = fleet.fit(mlp, ragged(2), engine=judged, prove=2, **OPTIONS).summary().proof
    assert all(not found["holds"] and "optimizer's step is off" in found["cause"] for found in proof)


def test_weights_that_the_engine_does_not_come_to_are_not_proved(judged: str) -> None:
    trained = fleet.fit(mlp, ragged(2), engine=judged, **OPTIONS)
    trained.weights_of("s1")[3] += np.float32(1e-3)
    found = {each["key"]: each for each in trained.prove(2)}
    assert found["s0"]["holds"] and not found["s1"]["holds"] and "other bits" in found["s1"]["cause"]


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"optimizer": "adam", "weight_decay": 0.01}, {"optimizer": "adamw", "weight_decay": 0.1, "clip": 0.5},
    ],
)  # fmt: skip
def test_every_optimizer_is_proved(judged: str, recipe: dict[str, Any]) -> None:
    proof = fleet.fit(mlp, ragged(3), engine=judged, prove=3, **OPTIONS, **recipe).summary().proof
    assert all(found["holds"] and (found["identical"] or found["step_error"] > 0) for found in proof)


class Begun(torch.nn.Module):
    """A recurrent layer that is given its first state; ``dtype``: what its forward makes it of."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.cell, self.last = torch.nn.GRU(1, 4, batch_first=True), torch.nn.Linear(4, 1)
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.zeros(1, x.size(0), 4, dtype=self.dtype)
        out: torch.Tensor = self.last(self.cell(x.unsqueeze(2), first)[0][:, -1])
        return out


@pytest.mark.skipif("native" not in ENGINES, reason="no C++ compiler here")
def test_tensors_that_a_forward_makes_do_not_stop_a_proof() -> None:
    assert all(found["holds"] for found in fleet.fit(Begun, ragged(2), prove=2, **OPTIONS).summary().proof)
    proof = fleet.fit(lambda: Begun(torch.float32), ragged(2), prove=2, **OPTIONS).summary().proof
    assert all(not found["holds"] and "no gradient in float64" in found["cause"] for found in proof)

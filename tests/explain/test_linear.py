"""A loss is read from its graph only where it is understood; a layer counts only where it is all that is trained."""

from __future__ import annotations

import contextlib
import dataclasses
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hasten.core.facts import LinearFacts
from hasten.core.trace import Trace
from hasten.explain import linear
from hasten.explain.linear import _batches, mean_loss, trained_layer
from hasten.explain.losses import BINARY, SOFTMAX, SQUARED, target_of
from hasten.rules.w802_linear_by_loop import RULE, solve
from hasten.seams.watch import Watch

ROWS = 6
Y = torch.arange(ROWS * 3.0).reshape(ROWS, 3)
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
MARKS = torch.tensor([0.0, 1, 1, 0, 1, 0])

READ: dict[str, tuple[int, str, Callable[[Any], Any], Any]] = {
    "mse": (3, SQUARED, lambda s: F.mse_loss(s, Y), Y),
    "mse of a column": (1, SQUARED, lambda s: F.mse_loss(s.squeeze(1), MARKS) / 4, MARKS[:, None]),
    "by hand": (3, SQUARED, lambda s: 0.5 * ((s - Y) ** 2).mean(), Y),
    "by hand, turned": (3, SQUARED, lambda s: (Y - s).square().sum() / ROWS, Y),
    "by hand, multiplied": (3, SQUARED, lambda s: ((d := s - Y) * d).mean(), Y),
    "by hand, a column": (1, SQUARED, lambda s: ((s[:, 0] - MARKS) ** 2).mean(), MARKS[:, None]),
    "cross-entropy": (3, SOFTMAX, lambda s: F.cross_entropy(s, CLASSES), CLASSES),
    "nll": (3, SOFTMAX, lambda s: F.nll_loss(F.log_softmax(s, 1), CLASSES), CLASSES),
    "logits": (1, BINARY, lambda s: F.binary_cross_entropy_with_logits(s, MARKS[:, None]), MARKS[:, None]),
    "probabilities": (1, BINARY, lambda s: F.binary_cross_entropy(s.sigmoid()[:, 0], MARKS), MARKS[:, None]),
}
NOT_READ: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "penalty": (3, lambda s: F.mse_loss(s, Y) + s.square().mean()),
    "rows weighted": (3, lambda s: (MARKS * F.mse_loss(s, Y, reduction="none").mean(1)).mean()),
    "classes weighted": (3, lambda s: F.cross_entropy(s, CLASSES, weight=torch.ones(3))),
    "classes ignored": (3, lambda s: F.cross_entropy(s, CLASSES, ignore_index=2)),
    "labels smoothed": (3, lambda s: F.cross_entropy(s, CLASSES, label_smoothing=0.1)),
    "something behind": (3, lambda s: F.mse_loss(s.tanh(), Y)),
    "something behind, by hand": (3, lambda s: ((s.tanh() - Y) ** 2).mean()),
    "turned round": (3, lambda s: F.mse_loss(s.T.contiguous(), Y.T)),
    "rows against rows": (1, lambda s: ((s - MARKS) ** 2).mean()),
    "absolute": (3, lambda s: F.l1_loss(s, Y)),
    "softmax twice": (3, lambda s: F.cross_entropy(s.softmax(1), CLASSES)),
    "soft marks": (1, lambda s: F.binary_cross_entropy_with_logits(s[:, 0], MARKS / 2)),
}


def scores(outputs: int) -> Any:
    torch.manual_seed(0)
    return nn.Linear(4, outputs)(torch.randn(ROWS, 4))


@pytest.mark.parametrize("name", READ)
def test_what_a_loss_compares_with_is_read(name: str) -> None:
    outputs, kind, loss, wanted = READ[name]
    s = scores(outputs)
    found = target_of(loss(s), s)
    assert found is not None and found[0] == kind
    assert found[1].shape == wanted.shape and torch.allclose(found[1].float(), wanted.float(), atol=1e-6)


@pytest.mark.parametrize("name", NOT_READ)
def test_other_losses_are_left_alone(name: str) -> None:
    outputs, loss = NOT_READ[name]
    s = scores(outputs)
    assert target_of(loss(s), s) is None


@pytest.mark.parametrize("name", ["mse", "cross-entropy", "logits"])
def test_the_mean_loss_is_torchs(name: str) -> None:
    outputs, kind, loss, target = READ[name]
    torch.manual_seed(1)
    x, layer = torch.randn(ROWS, 4), nn.Linear(4, outputs)
    found = mean_loss(kind, x.numpy(), target.numpy(), layer.weight.detach().numpy().T, layer.bias.detach().numpy())
    assert found == pytest.approx(loss(layer(x)).item(), rel=1e-5)


def watch_of(model: nn.Module, *trained: nn.Module) -> Watch:
    watch = Watch()
    watch.module_called(model, True)
    watch.kept = [model]  # type: ignore[attr-defined]
    for module in trained:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        watch.optimizer_entered(optimizer)
        watch.optimizer_left(optimizer)
        watch.kept.append(optimizer)  # type: ignore[attr-defined]
    return watch


def behind(*modules: nn.Module, frozen: bool = True) -> nn.Sequential:
    model = nn.Sequential(*modules, nn.Linear(8, 2))
    model[:-1].requires_grad_(not frozen)
    return model


def test_a_layer_that_is_all_that_is_trained() -> None:
    for model, trained, frozen in (
        (plain := nn.Linear(8, 2), plain, 0),
        (flat := behind(nn.Flatten()), flat, 0),
        (deep := behind(nn.Linear(5, 8), nn.ReLU()), deep, 48),
        (kept := behind(nn.Linear(5, 8), nn.ReLU(), frozen=False), kept[-1], 48),
    ):
        found = trained_layer(watch_of(model, trained))
        assert found is not None and found.module.out_features == 2 and found.frozen == frozen


def test_a_layer_that_is_not() -> None:
    deep = behind(nn.Linear(5, 8), nn.ReLU(), frozen=False)
    assert trained_layer(watch_of(deep, deep)) is None
    assert trained_layer(watch_of(deep, deep[0], deep[-1])) is None
    assert trained_layer(watch_of(deep)) is None
    assert trained_layer(watch_of(dropped := behind(nn.Dropout()), dropped)) is None
    assert trained_layer(watch_of(quiet := behind(nn.Dropout()).eval(), quiet)) is not None


@pytest.mark.parametrize(("steps", "forks"), [(1000, False), (100_000, True), (-1, True)])
def test_no_pass_is_made_that_takes_as_long_as_the_loop(
    steps: int, forks: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A pass of 10 s is half of a loop of 20 s; one of 1 s is sooner done by itself."""

    def go(*_: Any, **__: Any) -> Any:
        raise OSError("asked")

    monkeypatch.setattr(linear, "_pass_seconds", lambda _: 10.0)
    monkeypatch.setattr(linear, "_mean_seconds", lambda _: 0.001)
    monkeypatch.setattr(linear, "exchange_folder", lambda _: str(tmp_path))
    monkeypatch.setattr(linear.fork, "go", go)
    model = behind()
    layer = linear.Linear(watch_of(model, model))
    with pytest.raises(OSError, match="asked") if forks else contextlib.nullcontext():
        layer.measure(steps)
    assert layer.facts is None


class Said:
    """What a child sends."""

    def __init__(self) -> None:
        self.kinds: list[int] = []

    def row(self, kind: int) -> None:
        self.kinds.append(kind)

    def leave(self) -> None:
        raise SystemExit


def test_making_ready_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a busy machine took 5 s to import and to compile what solves, nothing was said of the loop."""
    said, model, left = Said(), behind(), []
    monkeypatch.setattr(torch.Tensor, "backward", torch.Tensor.backward)
    layer = linear.Layer(model[-1], 0)
    recorder = linear.Recorder(said, watch_of(model, model), layer, str(tmp_path), 7.0)  # type: ignore[arg-type]
    recorder.loss, recorder.inputs, recorder.targets = SQUARED, [np.random.default_rng(0).random((50, 8))], [
        np.random.default_rng(1).random((50, 2))
    ]  # fmt: skip
    monkeypatch.setattr(linear, "ready", lambda _: said.kinds.append(0))
    monkeypatch.setattr(linear.signal, "setitimer", lambda _, seconds: left.append(seconds))
    with pytest.raises(SystemExit):
        recorder._solve(3.0)
    assert said.kinds == [linear.fork.READY, 0, linear.fork.READY, linear.fork.DONE] and left == [4.0, 0]
    assert (tmp_path / "facts.json").exists()


def test_a_child_is_waited_for_while_it_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waited: list[float] = []

    class Child:
        drain = waited.append

    model = behind()
    monkeypatch.setattr(linear, "_pass_seconds", lambda _: 0.1)
    monkeypatch.setattr(linear, "_mean_seconds", lambda _: 0.001)
    monkeypatch.setattr(linear, "exchange_folder", lambda _: str(tmp_path / "gone"))
    monkeypatch.setattr(linear.fork, "go", lambda *_, **__: Child)
    linear.Linear(watch_of(model, model)).measure(1000)
    assert waited == [float("inf")]


def test_how_long_the_loop_takes_is_foreseen_with_the_steps_that_wait_for_a_core(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As it is judged in the end; by the median, the pass of a job of 15 epochs was given up on a busy machine."""
    enough: list[float] = []

    class Child:
        drain = list

    def go(_watch: Any, recorder: Any, **_: Any) -> Child:
        enough.append(recorder(None))
        return Child()

    model = behind()
    watch = watch_of(model, model)
    watch.rows, watch.steps = array("q"), 0
    for wall in [1_000_000] * 90 + [71_000_000] * 10:
        watch.add(wall, [0] * (linear.WIDTH - 1))
    monkeypatch.setattr(linear, "exchange_folder", lambda _: str(tmp_path / "gone"))
    monkeypatch.setattr(linear, "Recorder", lambda *given: given[-1])
    monkeypatch.setattr(linear.fork, "go", go)
    linear.Linear(watch).measure(1000)
    assert enough == [pytest.approx(1000 * 0.008 / linear.LEAST_GAIN)]


FACTS = LinearFacts(4, 1, 0, SQUARED, 100, "lstsq", 10.0, 0.1, 0.01, 1.01, 1.0)


def test_the_finding_says_what_was_measured() -> None:
    (finding,) = RULE.detect(Trace("train.py", linear=FACTS))
    assert "10 s by a loop" in finding.message and "100 rows in 10 ms" in finding.message
    assert "1.01 after the loop, 1 solved" in finding.notes[0]
    assert (round(finding.predicted.low), finding.predicted.high) == (91, 900)
    assert finding.advice == "hasten.solve.lstsq(X, y)"


@pytest.mark.parametrize("change", [{"loop_loss": 0.9}, {"loop_seconds": 0.2}, {"solved_loss": np.nan}])
def test_no_finding_where_nothing_is_gained(change: dict[str, float]) -> None:
    assert not list(RULE.detect(Trace("train.py", linear=dataclasses.replace(FACTS, **change))))


def test_a_loop_that_is_no_part_of_the_job_worth_saving_is_left_alone() -> None:
    """73 ms of a job that takes seconds to import its libraries."""
    short = dataclasses.replace(FACTS, loop_seconds=0.073, pass_seconds=0.005)
    assert not list(RULE.detect(Trace("train.py", linear=short, wall_seconds=4.0)))
    assert list(RULE.detect(Trace("train.py", linear=short, wall_seconds=0.5)))


def test_classes_that_do_not_occur_are_never_the_answer() -> None:
    x = np.random.default_rng(0).standard_normal((200, 3))
    y = np.where(x[:, 0] > 0, 3, 1)
    weight, bias, _ = solve(x, y, SOFTMAX, 4)
    assert set(np.argmax(x @ weight + bias, axis=1)) == {1, 3}
    assert mean_loss(SOFTMAX, x, y, weight, bias) < 0.3


@pytest.mark.parametrize(("loss", "call"), [(SQUARED, "y, fit_intercept=False)"), (SOFTMAX, "(fit_intercept=False)")])
def test_a_layer_without_bias_is_solved_without_one(loss: str, call: str) -> None:
    x = np.random.default_rng(0).standard_normal((200, 3))
    y = (x[:, :1] > 0).astype(float) + 10 if loss == SQUARED else np.where(x[:, 0] > 0.5, 1, 0)
    assert not np.any(solve(x, y, loss, 1 if loss == SQUARED else 2, False)[1])
    (finding,) = RULE.detect(Trace("train.py", linear=dataclasses.replace(FACTS, loss=loss, bias=False)))
    assert call in finding.advice


class Stream(torch.utils.data.IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(10))


@pytest.mark.parametrize("data", [range(10), Stream()])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_the_script_did_not_keep_has_a_whole_pass_all_the_same(data: Any, workers: int) -> None:
    iterator = iter(torch.utils.data.DataLoader(data, batch_size=4, num_workers=workers))
    next(iterator)
    assert [batch.tolist() for batch in _batches(iterator)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert next(iterator).tolist() == [4, 5, 6, 7]

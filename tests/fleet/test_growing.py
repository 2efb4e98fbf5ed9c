"""Growing windows: an iteration's cost is flat, the history counts, candidates are chosen by what they predicted."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet import growing
from hasten.fleet.growing import Growing, _mixed
from hasten.fleet.history import Rows
from hasten.fleet.session import Session
from tests.fleet.common import FEATURES, mlp, ragged, rows, weights
from tests.fleet.test_fit import series_net, waves


def test_an_array_that_grows() -> None:
    grown = Rows(np.zeros((2, 3), np.float32))
    for i in range(1, 40):
        grown.add(np.full((i % 4, 3), i, np.float32))
    assert grown.rows.shape == (2 + sum(i % 4 for i in range(1, 40)), 3)
    assert grown.rows[-1, 0] == 39 and len(grown.space) < 4 * len(grown.rows)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_visits_do_not_grow_with_the_history(share: float) -> None:
    for first in (10, 1000, 100_000):
        order = _mixed(7, first, first + 8, 128, share, 3, 0)
        new = order[order >= first]
        assert len(order) == 128 and len(new) == round(128 * share) and order.min() >= 0
        assert np.bincount(new - first, minlength=8).min() >= len(new) // 8  # each new row as often as any other


def learn(trained: fleet.Fleet, iterations: int, seed: int = 50, **options: Any) -> list[Any]:
    found = []
    for i in range(iterations):
        new = {key: rows(12, seed + i) for key in trained}
        found.append(trained.update(new, **options))
    return found


@pytest.mark.parametrize("engine", ["auto", "stacked", "loop"])
def test_updates_learn_and_do_not_depend_on_neighbours(engine: str) -> None:
    tasks = ragged(3)
    whole = fleet.fit(mlp, tasks, epochs=2, batch_size=8, engine=engine)
    before = weights(whole)
    found = learn(whole, 2)
    assert all(u.rows == 36 and u.visits == 160 and not u.failed for u in found)
    assert sum(found[-1].shares.values()) == 3 and weights(whole) != before
    alone = fleet.fit(mlp, {"s1": tasks["s1"]}, epochs=2, batch_size=8, engine=engine)
    learn(alone, 2)
    assert alone.weights_of("s1").tobytes() == whole.weights_of("s1").tobytes()


def thinned() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 1, bias=False))


def kept(trained: fleet.Fleet) -> Any:
    """Which inputs the dropout let through in an update of one step: others' weights have no gradient."""
    before = trained.weights_of("a").copy()
    trained.update({"a": (np.ones((1, 64), np.float32), np.full(1, 9, np.float32))}, visits=1, shares=(1.0,))
    return trained.weights_of("a") != before


@pytest.mark.parametrize("engine", ["native", "stacked", "loop"])
def test_each_update_draws_dropouts_of_its_own(engine: str, tmp_path: Path) -> None:
    one = {"a": (np.ones((1, 64), np.float32), np.zeros(1, np.float32))}
    known: dict[str, Any] = {"optimizer": "sgd", "lr": 1e-3, "batch_size": 1, "engine": engine}
    begun = torch.full((64,), 0.5)

    def make() -> nn.Module:
        module = thinned()
        nn.init.constant_(module[1].weight, 0.5)
        return module

    trained = fleet.fit(make, one, epochs=1, **known)
    masks = [trained.weights_of("a") != begun.numpy(), kept(trained), kept(trained)]
    trained.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", make)
    masks += [kept(trained), kept(trained)]
    assert all(10 < mask.sum() < 54 for mask in masks)
    assert len({mask.tobytes() for mask in masks}) == 5
    assert (kept(again) == masks[3]).all() and (kept(again) == masks[4]).all()
    assert again.weights_of("a").tobytes() == trained.weights_of("a").tobytes()


def noisy() -> nn.Module:
    """Its projection is drawn when it is made, and no tensor that a fleet keeps."""
    module = nn.Sequential(nn.Linear(FEATURES, 4), nn.Linear(4, 1))
    shift = torch.randn(4)
    module[0].register_forward_hook(lambda layer, given, out: out + shift)
    return module


def test_every_making_of_a_module_draws_the_same_numbers(tmp_path: Path) -> None:
    trained = fleet.fit(noisy, {"a": rows(16, 0)}, epochs=1)
    new = rows(16, 1)
    loss = float(np.mean((trained.predict("a", new[0])[:, 0] - new[1]) ** 2))
    assert trained.update({"a": new}, visits=16).error == pytest.approx(loss, rel=1e-5)
    trained.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", noisy)
    out = trained.predict("a", new[0])
    for same in (trained["a"], again["a"]):
        assert same(torch.from_numpy(new[0])).detach().numpy() == pytest.approx(out, rel=1e-5)
    assert again.predict("a", new[0]).tobytes() == out.tobytes()


def test_updates_do_not_depend_on_when_neighbours_learn(tmp_path: Path) -> None:
    tasks, new = ragged(2), [rows(12, seed) for seed in range(3)]
    whole, alone = (fleet.fit(mlp, {key: tasks[key] for key in keys}, epochs=1) for keys in (("s0", "s1"), ("s1",)))
    whole.update({"s0": new[0]})
    whole.update({"s0": new[1], "s1": (new[1][0] * np.nan, new[1][1])})
    for trained in (whole, alone):
        trained.update({"s1": new[1]})
    whole.save(tmp_path / "f")
    for trained in (alone, whole, again := fleet.Fleet.load(tmp_path / "f", mlp)):
        trained.update({"s1": new[2]})
    assert weights(alone)["s1"] == weights(whole)["s1"] == weights(again)["s1"]


def test_the_error_is_of_rows_not_yet_learned() -> None:
    trained = fleet.fit(mlp, {"a": rows(200, 0)}, epochs=20, lr=0.01, batch_size=16)
    strange = {"a": (rows(40, 1)[0], np.full(40, 5.0, np.float32) + rows(40, 1)[1])}
    first = trained.update(strange, visits=4000, shares=(1.0,))
    second = trained.update(strange)
    assert first.error > 10 and second.error < first.error / 2


def test_shares_are_chosen_once() -> None:
    trained = fleet.fit(mlp, ragged(1), epochs=1)
    trained.update({"s0": rows(9, 3)}, shares=(0.5, 1.0))
    assert set(trained.update({"s0": rows(9, 3)}).shares) == {0.5, 1.0}
    with pytest.raises(UsageError, match=r"shares=\(1\.0,\), and this fleet follows \(0\.5, 1\.0\)"):
        trained.update({"s0": rows(9, 3)}, shares=(1.0,))


def test_series_grow_at_their_end() -> None:
    tasks = waves(2, 120)
    trained = fleet.fit(series_net, {k: w[:100] for k, w in tasks.items()}, window=8, horizon=3, epochs=2)
    update = trained.update({k: w[100:] for k, w in tasks.items()})
    assert update.rows == 40 and np.isfinite(update.error)
    line = trained._growing.lines["w1"]
    task = line.task()
    assert np.allclose(task.y[-1] * task.scale + task.shift, tasks["w1"][-3:], atol=1e-3)
    assert np.allclose(task.X[-1] * task.scale + task.shift, tasks["w1"][-11:-3], atol=1e-3)


def test_full_retraining_is_what_fit_would_have_given() -> None:
    tasks, new = ragged(2), {key: rows(12, 50) for key in ("s0", "s1")}
    trained = fleet.fit(mlp, tasks, epochs=2)
    update = trained.update(new, refit="full")
    both = {k: tuple(np.concatenate(pair) for pair in zip(tasks[k], new[k], strict=True)) for k in tasks}
    assert weights(trained) == weights(fleet.fit(mlp, both, epochs=2))
    assert update.predicted[100] > update.predicted[10] > update.predicted[1] > 0


def test_what_cannot_be_learned_is_named() -> None:
    trained = fleet.fit(mlp, ragged(2), epochs=1)
    with pytest.raises(UsageError, match="not in the fleet"):
        trained.update({"x": rows(3, 0)})
    with pytest.raises(UsageError, match="refit"):
        trained.update({"s0": rows(3, 0)}, refit="half")
    before = weights(trained)
    assert trained.update({}).rows == 0 and weights(trained) == before
    update = trained.update({"x": rows(3, 0), "s0": (np.full((3, 6), np.nan, np.float32), np.zeros(3))})
    assert "new key" in update.failed["x"] and "NaN" in update.failed["s0"] and weights(trained) == before


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_a_loaded_fleet_learns_as_if_it_had_never_been_saved(engine: str, after: int, tmp_path: Path) -> None:
    """However many updates lie between ``fit`` and ``save``."""
    tasks = {**ragged(3), "flat": (rows(9, 0)[0], np.ones(9))}
    settings = {"s1": {"lr": 0.1, "seed": 3}}
    whole = fleet.fit(mlp, tasks, epochs=2, batch_size=8, engine=engine, settings=settings)
    learn(whole, after)
    whole.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", mlp)
    assert again.session is None
    again.save(tmp_path / "g.safetensors")  # history included, though nothing was done with it
    again = fleet.Fleet.load(tmp_path / "g.safetensors", mlp)
    for trained in (whole, again):
        learn(trained, 2, seed=70)
    assert weights(again) == weights(whole)
    assert [u["shares"] for u in again.summary().updates[-2:]] == [u["shares"] for u in whole.summary().updates[-2:]]
    assert again.update({"s0": rows(9, 8)}, refit="full").rows == 9


def test_series_of_a_loaded_fleet_grow_at_their_end(tmp_path: Path) -> None:
    tasks = waves(2, 120)
    whole = fleet.fit(series_net, {k: w[:100] for k, w in tasks.items()}, window=8, horizon=3, epochs=2)
    whole.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", series_net)
    for trained in (whole, again):
        assert trained.update({k: w[100:] for k, w in tasks.items()}).rows == 40
    assert weights(again) == weights(whole)
    assert (again._growing.lines["w1"].parts[0].rows == whole._growing.lines["w1"].parts[0].rows).all()


def test_callables_are_asked_for_again(tmp_path: Path) -> None:
    options = {"loss": nn.functional.smooth_l1_loss, "optimizer": lambda p: torch.optim.RMSprop(p, lr=1e-3)}
    trained = fleet.fit(lambda: nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), ragged(2), epochs=1, **options)
    trained.save(tmp_path / "f.safetensors")
    load = functools.partial(fleet.Fleet.load, tmp_path / "f.safetensors", trained.session.factory.make_model)
    with pytest.raises(UsageError, match="loss and optimizer"):
        load().update({"s0": rows(9, 3)})
    again = load(**options)
    for one in (trained, again):
        one.update({"s0": rows(9, 3)}, visits=8)
    assert weights(again) == weights(trained)
    moved = np.abs(again.weights_of("s0") - load().weights_of("s0")).max()
    assert 0 < moved < 0.1  # it went on from the weights it had


def test_a_naive_forecast_stands_in_until_a_network_beats_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    walk, t = np.cumsum(random.normal(size=200)), np.arange(600)
    later = 10 * np.sin(t / 3) + random.normal(size=600) / 10  # from a walk nobody can foresee to what can be learned
    options = {"window": 8, "horizon": 3, "epochs": 3, "lr": 0.01, "stop": fleet.EarlyStop(), "baseline": "keep"}
    trained = fleet.fit(series_net, {"a": walk}, **options)
    assert trained.is_naive("a") and trained.summary().rows[0].source == "naive"
    assert trained.predict("a", walk[None, :8]) == pytest.approx(walk[7], rel=1e-5)
    trained.save(tmp_path / "f.safetensors")
    trained = fleet.Fleet.load(tmp_path / "f.safetensors", series_net)
    assert trained.is_naive("a") and trained.predict("a", walk[None, :8]) == pytest.approx(walk[7], rel=1e-5)
    for start in range(0, 600, 100):
        trained.update({"a": later[start : start + 100]}, visits=6400)
    assert not trained.is_naive("a") and trained.summary().rows[0].source == "own"


def test_a_key_keeps_its_weights_where_an_update_fails() -> None:
    trained = fleet.fit(mlp, ragged(2), epochs=1)
    before = weights(trained)
    update = trained.update({"s0": (rows(3, 3)[0], np.full(3, 1e35, np.float32)), "s1": rows(9, 3)})
    assert set(update.failed) == {"s0"}
    after = weights(trained)
    assert after["s0"] == before["s0"] and after["s1"] != before["s1"]
    assert isinstance(trained._growing, Growing)


def aligned(trained: fleet.Fleet, key: str) -> bool:
    task = trained._growing.lines[key].task()
    return len(task.X) == len(task.y) and np.allclose(task.X[:, 0], task.y)


def echo(count: int, seed: int) -> Any:
    X = rows(count, seed)[0]
    return X, X[:, 0].copy()


def test_rows_that_do_not_fit_leave_every_history_as_it_was() -> None:
    trained = fleet.fit(mlp, {"a": echo(30, 0), "b": echo(30, 1)}, epochs=1)
    X, y = echo(9, 3)
    strange: list[Any] = [
        (X, y[:8]), (X, np.stack([y, y], 1)), (X[:, :5], y), (X[0], y[0]), X, 3, "xy", (X, ["x"] * 9),
        (X[None], y[None]),
    ]  # fmt: skip
    for given in strange:
        update = trained.update({"b": echo(7, 4), "a": given})
        assert list(update.failed) == ["a"] and update.rows == 7, given
    assert aligned(trained, "a") and aligned(trained, "b")
    lines = trained._growing.lines
    assert lines["a"].task().rows == 30 and lines["b"].task().rows == 30 + 7 * len(strange)
    assert trained.update({"a": (X, y[:, None])}).rows == 9 and aligned(trained, "a")  # one column is one number a row
    for options in ({"visits": -1}, {"shares": ()}, {"shares": (2.0,)}):
        with pytest.raises(UsageError):
            trained.update({"a": (X, y)}, **options)
    assert lines["a"].task().rows == 39


def test_a_series_that_does_not_fit_is_named() -> None:
    trained = fleet.fit(series_net, waves(2), window=8, horizon=3, epochs=1)
    update = trained.update({"w0": np.zeros((5, 2)), "w1": np.arange(5.0)})
    assert "(5, 2)" in update.failed["w0"] and update.rows == 5


def test_classes_that_are_none_are_named() -> None:
    tasks = {key: (X, (y > 0).astype(np.int64)) for key, (X, y) in ragged(2).items()}
    trained = fleet.fit(lambda: nn.Linear(6, 2), tasks, loss="cross_entropy", epochs=1)
    X = rows(4, 0)[0]
    update = trained.update({"s0": (X, [0, 1, 0, 9]), "s1": (X, [0, 1, 0, 0.5])})
    assert "the model knows 2" in update.failed["s0"] and "whole numbers" in update.failed["s1"] and update.rows == 0
    assert trained._growing.lines["s0"].task().rows == len(tasks["s0"][1])


@pytest.mark.parametrize("refit", ["flat", "full"])
def test_an_update_that_is_interrupted_has_changed_nothing(refit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = (fleet.fit(mlp, {"a": echo(30, 0), "b": echo(30, 1)}, epochs=1) for _ in range(2))
    new = {"a": echo(9, 3), "b": echo(5, 4)}
    for again in range(2):  # before the first update, and behind one

        def interrupted(*given: Any, right: Any = growing._train) -> Any:
            right(*given)
            raise KeyboardInterrupt

        def broken(*given: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(growing, "_train", interrupted)
        if refit == "full":
            monkeypatch.setattr(Session, "train", broken)
        with pytest.raises(KeyboardInterrupt):
            cut.update(new, refit=refit)
        monkeypatch.undo()
        assert len(cut.summary().updates) == again
        whole.update(new)
        cut.update(new)
        assert weights(cut) == weights(whole) and aligned(cut, "a")


def test_what_full_retraining_will_cost_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    trained = fleet.fit(mlp, ragged(2), epochs=1)
    trained.update({"s0": rows(9, 3)})
    assert not capsys.readouterr().out
    trained.update({"s0": rows(9, 3)}, refit="full")
    said = capsys.readouterr().out
    assert "the next 100" in said and said.strip() in str(trained.summary())


def test_full_retraining_asks_nothing_of_keys_that_failed() -> None:
    tasks = {**ragged(2), "bad": (np.full((5, 6), np.nan, np.float32), np.arange(5.0))}
    trained = fleet.fit(mlp, tasks, epochs=1, settings={"bad": {"lr": 0.1}})
    assert not trained.update({"s0": rows(12, 50)}, refit="full").failed


def test_after_full_retraining_no_naive_forecast_stands_in(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    walks = {f"w{i}": random.normal(size=120).cumsum() for i in range(3)}
    options: dict[str, Any] = {"window": 8, "horizon": 3, "epochs": 1, "lr": 1e-6, "stop": 3, "baseline": "keep"}
    trained = fleet.fit(series_net, walks, **options)
    assert any(trained.is_naive(key) for key in trained)
    trained.update({key: walk[-20:] for key, walk in walks.items()}, refit="full")
    assert not trained.stand_ins and all(len(line.errors) == 3 for line in trained._growing.lines.values())


def test_an_error_without_words_does_not_stop_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = fleet.fit(mlp, ragged(2), epochs=1)

    def bare(*_: object) -> float:
        raise AssertionError

    monkeypatch.setattr(growing, "_loss", bare)
    assert set(trained.update({"s0": rows(12, 50)}).failed.values()) == {"AssertionError"}

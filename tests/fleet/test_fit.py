"""Tasks in, fleet out: shapes, settings, frames, series, predictions, files."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hasten import fleet
from hasten.core.errors import HastenError, UsageError
from hasten.fleet import streams
from tests.fleet.common import Branched, mlp, ragged, rows, weights

pd = pytest.importorskip("pandas")


def series_net(window: int = 8, horizon: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(window, 6), nn.Tanh(), nn.Linear(6, horizon))


def waves(keys: int = 3, length: int = 90) -> dict[str, Any]:
    random = np.random.default_rng(0)
    t = np.arange(length)
    return {f"w{i}": 50 * i + 10 * np.sin(t / (2 + i)) + random.normal(size=length) for i in range(keys)}


def test_a_key_is_a_plain_module() -> None:
    trained = fleet.fit(mlp, ragged(3), epochs=2)
    assert list(trained) == ["s0", "s1", "s2"] and len(trained) == 3 and "s1" in trained
    module = trained["s1"]
    assert isinstance(module, nn.Sequential) and not module.training
    X = ragged(3)["s1"][0]
    with torch.no_grad():
        assert np.allclose(trained.predict("s1", X), module(torch.from_numpy(X)).numpy(), atol=1e-6)
    many = trained.predict(["s0", "s1"], [X[:4], X[:4]])
    assert many.shape == (2, 4, 1) and np.allclose(many[1], trained.predict("s1", X[:4]))
    assert isinstance(trained.predict(["s0", "s1"], [X[:4], X[:5]]), list)
    with pytest.raises(KeyError, match="there is no key 'x'"):
        trained["x"]
    with pytest.raises(UsageError, match="2 keys and 1 arrays"):
        trained.predict(["s0", "s1"], [X])


def test_settings_of_a_key() -> None:
    def make(width: int = 4, key: str = "") -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 1))

    settings = {"s0": {"width": 9}, "s1": {"lr": 0.5, "weight_decay": 0.1}, "s2": {"seed": 8}}
    trained = fleet.fit(make, ragged(4), epochs=2, settings=settings)
    plain = fleet.fit(make, ragged(4), epochs=2)
    assert trained["s0"][0].out_features == 9 and trained["s1"][0].out_features == 4
    same = {key: trained.weights_of(key).tobytes() == plain.weights_of(key).tobytes() for key in trained}
    assert same == {"s0": False, "s1": False, "s2": False, "s3": True}


def test_a_factory_that_raises_for_a_key_fails_that_key_alone() -> None:
    bad = streams.torch_seed(streams.stream_of(0, "s2"), streams.INIT)

    def make() -> nn.Module:
        if torch.initial_seed() == bad:
            raise ValueError("no widths for s2")
        return mlp()

    tried = fleet.fit(make, ragged(5), epochs=2, engine="native", workers=1)
    assert tried.failed == {"s2": "ValueError: no widths for s2"}
    alone = {key: fleet.fit(mlp, {key: ragged(5)[key]}, epochs=2, engine="native").weights_of(key) for key in tried}
    assert all((tried.weights_of(key) == alone[key]).all() for key in tried) and len(alone) == 4


def test_a_factory_that_counts_is_found_out() -> None:
    widths = iter(range(3, 99))

    def counting() -> nn.Module:
        return nn.Sequential(nn.Linear(6, next(widths)), nn.ReLU()).append(nn.Identity())

    trained = fleet.fit(counting, ragged(2), epochs=1, engine="loop")
    assert set(trained.failed) == {"s0", "s1"} and "another module" in trained.failed["s0"]


def test_models_in_training_are_those_that_have_left_the_queue() -> None:
    told: list[fleet.Progress] = []
    fleet.fit(mlp, ragged(6), epochs=2, engine="stacked", workers=1, progress=told.append)
    assert [(p.done, p.training, p.left) for p in told] == [(n, 6 - n, 0) for n in range(1, 7)]  # side by side
    told.clear()
    fleet.fit(mlp, ragged(6), epochs=2, engine="loop", workers=1, progress=told.append)
    assert [(p.done, p.training, p.left) for p in told] == [(n, 0, 6 - n) for n in range(1, 7)]

    def make(branched: bool = False) -> nn.Module:
        return Branched() if branched else mlp()

    told.clear()
    odd = {f"s{i}": {"branched": True} for i in range(3)}
    found = fleet.fit(make, ragged(6), epochs=1, workers=1, progress=told.append, settings=odd)
    engines = {row.engine for row in found.summary().rows}
    assert len(engines) == 2 or "native" not in engines
    assert [p.done + p.training + p.left for p in told] == [6] * 6 and all(p.training <= 3 for p in told)


def test_frames_of_rows_and_of_series() -> None:
    table = {key: rows(30 + i, i) for i, key in enumerate(("a", "b"))}
    frame = pd.concat(
        [pd.DataFrame({"key": k, **{f"x{j}": X[:, j] for j in range(6)}, "y": y}) for k, (X, y) in table.items()]
    ).sample(frac=1, random_state=0)
    by_frame = fleet.fit(
        mlp, frame.sort_index(kind="stable"), by="key", features=[f"x{j}" for j in range(6)], target="y", epochs=1
    )
    assert weights(by_frame) == weights(fleet.fit(mlp, table, epochs=1))
    long = pd.DataFrame([{"k": k, "t": t, "v": v} for k, w in waves().items() for t, v in enumerate(w)])
    shuffled = long.sample(frac=1, random_state=1)
    options = {"window": 8, "horizon": 3, "epochs": 2}
    by_time = fleet.fit(series_net, shuffled, by="k", target="v", time_column="t", **options)
    assert weights(by_time) == weights(fleet.fit(series_net, waves(), **options))


def test_series_are_predicted_in_their_own_units_and_never_copied_out() -> None:
    tasks = waves(3, 400)
    trained = fleet.fit(series_net, tasks, window=8, horizon=3, epochs=30, lr=0.01, stop=fleet.EarlyStop())
    task = trained.session.tasks["w2"]
    assert task.X.base is not None and task.X.strides == (4, 4) and task.gap == 2
    found = trained.predict("w2", tasks["w2"][None, -11:-3])
    assert found.shape == (1, 3) and np.abs(found - tasks["w2"][-3:]).max() < 15
    job = next(j for j in trained.session.jobs if j.key == "w2")
    assert job.train is not None and job.held[0] - job.train[-1] == 3  # no target is in both parts


def test_a_series_is_held_as_it_was_given_and_standardised_when_asked_for() -> None:
    tasks = {key: values.astype(np.float32) for key, values in waves(2, 90).items()}
    found = fleet.fit(series_net, tasks, window=8, horizon=3, epochs=1).session.tasks
    for key, values in tasks.items():
        task, mean = found[key], values.astype(np.float64).mean()
        assert np.shares_memory(task.values, values) and task.held() is None  # nothing beside it is kept
        assert (task.rows, task.row, task.columns) == (80, (8,), 3)
        X, y = task.X, task.y
        assert task.held() is not None and X.tobytes() == task.X.tobytes() and not X.flags.writeable
        expected = ((values - mean) / values.astype(np.float64).std()).astype(np.float32)
        assert np.allclose(X[5], expected[5:13]) and np.allclose(y[5], expected[13:16])


def test_what_is_held_out_does_not_shape_the_scale() -> None:
    tasks = waves(1, 100)
    changed = {"w0": np.concatenate([tasks["w0"][:85], 1e6 + tasks["w0"][85:]])}
    options = {"window": 8, "horizon": 3, "epochs": 1, "stop": fleet.EarlyStop()}
    scales = [fleet.fit(series_net, t, **options).scales for t in (tasks, changed)]
    assert scales[0] == scales[1]


def test_too_short_constant_and_broken_series() -> None:
    tasks = {**waves(1), "short": np.arange(9.0), "flat": np.ones(50), "gap": np.r_[waves(1)["w0"], np.nan]}
    trained = fleet.fit(series_net, tasks, window=8, horizon=3, epochs=1)
    assert list(trained) == ["w0"]
    failed = trained.failed
    assert "9 rows" in failed["short"] and "constant" in failed["flat"] and "1 of 91" in failed["gap"]


def test_saved_and_loaded(tmp_path: Path) -> None:
    tasks = {**ragged(3), "bad": (np.empty((0, 6), np.float32), np.empty(0, np.float32))}
    trained = fleet.fit(mlp, tasks, epochs=2, stop=fleet.EarlyStop(), loss=fleet.Quantile(0.9))
    trained.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", mlp)
    assert weights(again) == weights(trained) and again.failed == trained.failed
    assert again.recipe == trained.recipe and str(again.summary()) == str(trained.summary())
    assert pd.read_parquet(tmp_path / "f.safetensors.parquet").set_index("key").loc["s1", "epochs"] == 2
    with pytest.raises(UsageError, match="another factory"):
        fleet.Fleet.load(tmp_path / "f.safetensors", lambda: nn.Sequential(nn.Linear(6, 2)))
    trained.save(tmp_path / "bare.safetensors", history=False)
    with pytest.raises(UsageError, match="no history"):
        fleet.Fleet.load(tmp_path / "bare.safetensors", mlp).update(ragged(1))
    (tmp_path / "f.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match="cannot read"):
        fleet.Fleet.load(tmp_path / "f.safetensors", mlp)


def test_another_factory_or_another_version_is_told(tmp_path: Path) -> None:
    """Tensors of the same names and shapes may belong to another activation."""
    path = tmp_path / "f.safetensors"
    fleet.fit(lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)), ragged(2), epochs=1).save(path)
    with pytest.raises(UsageError, match=r"make_model has ReLU at .1., .* has Tanh(.|\n)*another factory"):
        fleet.Fleet.load(path, lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)))
    raw = path.read_bytes()
    assert raw.count(b"hasten fleet 1") == 1
    path.write_bytes(raw.replace(b"hasten fleet 1", b"hasten fleet 9"))
    with pytest.raises(UsageError, match="another version"):
        fleet.Fleet.load(path, mlp)
    path.write_bytes(raw)
    with pytest.raises(UsageError, match="a factory of your own"):
        fleet.Fleet.load(path)
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UsageError, match="missing or torn"):
        fleet.Fleet.load(path, mlp)


def test_series_keep_their_scale_in_a_file(tmp_path: Path) -> None:
    trained = fleet.fit(series_net, waves(), window=8, horizon=3, epochs=1)
    trained.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", series_net)
    X = np.stack([w[None, :8] for w in waves().values()])
    assert (again.predict(list(again), X) == trained.predict(list(trained), X)).all()


def test_a_pipe_or_a_folder_is_not_replaced_by_a_fleet(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    trained = fleet.fit(mlp, ragged(2), epochs=1)
    for path in (pipe, folder):
        with pytest.raises(HastenError, match="it is no file"):
            trained.save(path)
    assert pipe.is_fifo() and folder.is_dir()


def test_a_full_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = fleet.fit(mlp, ragged(1), epochs=1)
    path = tmp_path / "f.safetensors"
    trained.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HastenError, match="still in memory"):
        trained.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_baselines_say_for_how_many_keys_it_is_worth_it() -> None:
    trained = fleet.fit(
        series_net, waves(4, 300), window=8, horizon=3, season=6, epochs=10, stop=fleet.EarlyStop(), baseline="keep"
    )
    worth = trained.summary().worth
    assert worth is not None and worth["own"] + worth["global"] + worth["naive"] == 4
    assert {"own", "global", "naive"} == set(worth["losses"]["w1"])
    best = {key: min(found, key=found.__getitem__) for key, found in worth["losses"].items()}
    assert {r.key: r.source for r in trained.summary().rows} == best
    assert "of 4 keys" in str(trained.summary())


@pytest.mark.parametrize(("options", "said"), [
    ({"loss": "hinge"}, "no loss"), ({"optimizer": "lion"}, "no optimizer"), ({"epochs": 0}, "epochs"),
    ({"batch_size": 1.5}, "batch_size"), ({"lr": float("nan")}, "lr"), ({"engine": "gpu"}, "engine"),
    ({"clip": 0.0}, "clip"),
    ({"baseline": "report"}, "held out"), ({"window": 3}, "both"), ({"settings": {"x": {}}}, "no task"),
    ({"loss": "quantile:2"}, "share"),
], ids=str)  # fmt: skip
def test_wrong_arguments_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fleet.fit(mlp, ragged(2), **options)


@pytest.mark.parametrize("tasks", [{"a": 3}, {"a": (np.zeros(3), np.zeros(3))}, {"a": (np.zeros((3, 2)), [1.0])}, 7])
def test_wrong_tasks_are_named(tasks: Any) -> None:
    with pytest.raises(UsageError):
        fleet.fit(mlp, tasks)


def test_an_empty_fleet_is_no_error() -> None:
    trained = fleet.fit(mlp, {})
    assert len(trained) == 0 and "0 of 0" in str(trained.summary())


def test_wrong_widths_fail_by_key() -> None:
    tasks = {"a": rows(20, 0), "b": (rows(20, 0)[0], np.zeros((20, 2), np.float32) + np.arange(20)[:, None])}
    trained = fleet.fit(mlp, tasks, epochs=1)
    assert list(trained) == ["a"] and "target" in trained.failed["b"]


@pytest.mark.parametrize("horizon", [1, 3, 8])
def test_no_held_out_target_shapes_the_scale(horizon: int) -> None:
    series = waves(1, 120)["w0"]
    changed = series.copy()
    count = len(series) - 8 - horizon + 1
    changed[8 + count - round(0.2 * count) :] += 1e6  # from the first target that is held out
    options = {"window": 8, "horizon": horizon, "epochs": 1, "stop": fleet.EarlyStop()}
    make = functools.partial(series_net, 8, horizon)
    scales = [fleet.fit(make, {"w": values}, **options).scales for values in (series, changed)]
    assert scales[0] == scales[1]


def test_a_series_that_is_constant_until_rows_are_held_out_is_named() -> None:
    series = np.r_[np.full(160, 19.99), waves(1, 40)["w0"]]
    trained = fleet.fit(series_net, {"w": series}, window=8, horizon=3, epochs=1, stop=fleet.EarlyStop())
    assert "constant: every value before those held out is 19.99" in trained.failed["w"]


def test_modules_that_no_fleet_can_hold_are_named() -> None:
    with pytest.raises(UsageError, match=r"0\.weight has no shape yet"):
        fleet.fit(lambda: nn.Sequential(nn.LazyLinear(1)), ragged(1), epochs=1)
    with pytest.raises(UsageError, match=r"0\.weight is on meta"):
        fleet.fit(lambda: mlp().to("meta"), ragged(1), epochs=1)


def test_predictions_that_are_no_tensor_are_named() -> None:
    class Pair(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), x

    tasks = ragged(1)
    trained = fleet.fit(lambda: Pair(6, 1), tasks, epochs=1, loss=lambda p, y: (p[0][:, 0] - y).square().mean())
    with pytest.raises(UsageError, match=r"gives a tuple, and no tensor\n.*\n.*fleet\['s0'\]\(X\)"):
        trained.predict("s0", tasks["s0"][0])


def test_what_is_expected_of_the_plain_loop_holds_the_making_of_models() -> None:
    """It counts where steps are few, and the fleet's own time holds it, too."""

    def slow() -> nn.Module:
        time.sleep(0.02)
        return mlp()

    trained = fleet.fit(slow, ragged(3), epochs=1, workers=1)
    assert trained.summary().loop_seconds > 3 * 0.02
    assert repr(trained) == "<Fleet of 3 models, 0 failed>"


LOADS = """
import os, sys
import pyarrow.parquet
from hasten import fleet
from tests.fleet.common import mlp
before = len(os.listdir("/proc/self/task"))
fleet.Fleet.load(sys.argv[1], mlp)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are not counted here")
def test_loading_starts_no_threads(tmp_path: Path) -> None:
    """Those of pyarrow abort about one process in a hundred that ends soon after they have been started."""
    pytest.importorskip("pyarrow")
    fleet.fit(mlp, ragged(2), epochs=1, engine="loop", workers=1).save(tmp_path / "f")
    command = [sys.executable, "-c", LOADS, str(tmp_path / "f")]
    found = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout.split()) == (0, ["0"]), found.stderr

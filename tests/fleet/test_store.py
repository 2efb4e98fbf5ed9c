"""The journal: torn records, kills at any moment, full disks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from hasten import fleet
from hasten.core.errors import HastenError, UsageError
from hasten.fleet.modules import Factory
from hasten.fleet.recipe import Recipe
from hasten.fleet.schedule import Queue
from hasten.fleet.state import DONE, State
from hasten.fleet.store import Store
from hasten.fleet.tasks import from_mapping, jobs_of
from hasten.fleet.workers import Child, Run, _hand_out
from tests.fleet.common import Convolution, mlp, ragged, weights

ROOT = Path(__file__).parents[2]


def store(folder: Path | None, **identity: object) -> Store:
    return Store([5, 9, 3], 4, 2, folder, identity)


def state(total: int, steps: int, status: int = 0) -> State:
    made = State(4, total)
    made.numbers[:2], made.numbers[5] = (1, steps), status
    made.flat[:] = np.arange(4 * total).reshape(4, total) + steps
    return made


def test_finished_models_come_back(tmp_path: Path) -> None:
    first = store(tmp_path)
    kept = state(9, 7, DONE)
    kept.cause = "because é"
    first.finish(1, kept)
    again = store(tmp_path)
    found = again.finished(1)
    assert again.resumed and found is not None and again.finished(0) is None
    assert (found.flat[0] == kept.flat[0]).all() and found.steps == 7 and found.cause == "because é"


def test_a_torn_record_does_not_count(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.finish(1, state(9, 7, DONE))
    first.row(1)[3] += 1
    assert store(tmp_path).finished(1) is None


def test_the_newer_half_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    first = store(tmp_path)
    for steps in (1, 2, 3):
        first.save(1, 2, state(3, steps))
    slot, found = store(tmp_path).in_flight_states()[2]
    assert slot == 1 and found.steps == 3
    halves = [first._head(2), first._head(3)]
    max(halves, key=lambda h: h[0])[0] = 0  # killed while it was written
    assert store(tmp_path).in_flight_states()[2][1].steps == 2


def test_a_half_that_a_power_cut_has_torn_does_not_count(tmp_path: Path) -> None:
    """Its number has reached the disk, and not all that was written before it."""
    first = store(tmp_path)
    for steps in (1, 2):
        first.save(1, 2, state(3, steps))
    newest = max((2, 3), key=lambda half: first._head(half)[0])
    first._flat(newest, 2)[1] = 0
    assert store(tmp_path).in_flight_states()[2][1].steps == 1


def test_another_fleets_journal_is_refused(tmp_path: Path) -> None:
    store(tmp_path, recipe="a")
    with pytest.raises(UsageError, match="recipe differ"):
        store(tmp_path, recipe="b")
    (tmp_path / "fleet.json").write_text("{torn")
    with pytest.raises(UsageError, match="cannot read"):
        store(tmp_path, recipe="a")


def test_a_full_disk_is_an_error_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(HastenError, match="disk is full"):
        fleet.fit(mlp, ragged(), epochs=2, journal=tmp_path / "j")
    assert list((tmp_path / "j").iterdir()) == []
    monkeypatch.undo()
    assert len(fleet.fit(mlp, ragged(), epochs=2, journal=tmp_path / "j")) == 5


def test_a_finished_journal_trains_nothing_again(tmp_path: Path) -> None:
    told: list[int] = []
    options = {"epochs": 2, "journal": tmp_path}
    first = fleet.fit(mlp, ragged(), **options, progress=lambda p: told.append(p.done))
    again = fleet.fit(mlp, ragged(), **options, progress=lambda p: told.append(-1))
    assert sorted(told) == [1, 2, 3, 4, 5] and weights(again) == weights(first)
    with pytest.raises(UsageError, match="recipe differ"):
        fleet.fit(mlp, ragged(), epochs=3, journal=tmp_path)


def tanh() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 1))


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(6, 1), lambda x: x * by

    def forward(self, x: object) -> object:
        return self.scale(self.linear(x))


def test_a_journal_answers_for_no_other_data_and_no_other_model(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "engine": "loop", "workers": 1}
    tasks = ragged(2)
    fleet.fit(mlp, tasks, **options, journal=tmp_path / "a")
    with pytest.raises(UsageError, match="fleet: data differ"):
        fleet.fit(mlp, {key: (X, -y) for key, (X, y) in tasks.items()}, **options, journal=tmp_path / "a")
    with pytest.raises(UsageError, match="fleet: data differ"):
        fleet.fit(mlp, {key: (X[::-1], y) for key, (X, y) in tasks.items()}, **options, journal=tmp_path / "a")
    relu = lambda: nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 1))  # noqa: E731
    relu.__qualname__ = "tanh"
    fleet.fit(relu, tasks, **options, journal=tmp_path / "b")
    with pytest.raises(UsageError, match="fleet: model differ"):
        fleet.fit(tanh, tasks, **options, journal=tmp_path / "b")
    fleet.fit(lambda: Scaled(2.0), tasks, **options, journal=tmp_path / "c")
    with pytest.raises(UsageError, match="fleet: model differ"):
        fleet.fit(lambda: Scaled(3.0), tasks, **options, journal=tmp_path / "c")
    losses = [lambda p, y: (p[:, 0] - y).abs().mean(), lambda p, y: (p[:, 0] - y).square().mean()]
    fleet.fit(mlp, tasks, **options, loss=losses[0], journal=tmp_path / "d")
    with pytest.raises(UsageError, match="fleet: model differ"):
        fleet.fit(mlp, tasks, **options, loss=losses[1], journal=tmp_path / "d")


def test_a_series_journal_knows_its_values(tmp_path: Path) -> None:
    make = lambda: nn.Linear(8, 3)  # noqa: E731
    series = {"a": np.random.default_rng(0).normal(size=60)}
    options: dict[str, Any] = {"window": 8, "horizon": 3, "epochs": 1, "journal": tmp_path}
    first = fleet.fit(make, series, **options)
    assert weights(fleet.fit(make, {"a": series["a"].copy()}, **options)) == weights(first)
    with pytest.raises(UsageError, match="data differ"):
        fleet.fit(make, {"a": series["a"][::-1]}, **options)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from hasten import fleet
from tests.fleet.common import *
fleet.fit(globals()[sys.argv[4]], ragged(6, 200), epochs=40, batch_size=8, engine=sys.argv[1], workers=int(sys.argv[3]),
          stop=fleet.EarlyStop(patience=30), journal=sys.argv[2])
"""


def run(engine: str, folder: Path, workers: int, make: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, engine, str(folder), str(workers), make], env=env, cwd=ROOT)


def kill_again_and_again(engine: str, folder: Path, kills: int, make: str) -> int:
    """Kill the run at random moments after it has begun to train; how many kills met it alive."""
    met = 0
    moments = random.Random(0)
    for i in range(kills):
        process = run(engine, folder, 1 + i % 2, make)
        deadline = time.monotonic() + 100
        before = looks(folder)
        while process.poll() is None and looks(folder) in (0, before) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.05)
        met += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    return met


def looks(folder: Path) -> int:
    """Changes with every epoch kept."""
    try:
        return zlib.crc32((folder / "fleet.state").read_bytes())
    except OSError:
        return 0


def killed(engine: str, tmp_path: Path, kills: int, make: Callable[[], nn.Module] = mlp) -> None:
    options = {"epochs": 40, "batch_size": 8, "engine": engine, "stop": fleet.EarlyStop(patience=30)}
    whole = fleet.fit(make, ragged(6, 200), **options)
    assert kill_again_and_again(engine, tmp_path / "j", kills, make.__name__) >= 1
    again = fleet.fit(make, ragged(6, 200), **options, workers=2, journal=tmp_path / "j")
    assert weights(again) == weights(whole)
    mine, theirs = ({r.key: (r.loss, r.held, r.epochs) for r in f.summary().rows} for f in (again, whole))
    assert mine == theirs


@pytest.mark.parametrize("engine", ["native", "loop"])
def test_a_journal_takes_one_process_at_a_time(engine: str, tmp_path: Path) -> None:
    options = {"epochs": 40, "batch_size": 8, "engine": engine, "stop": fleet.EarlyStop(patience=30)}
    again: dict[str, Any] = {**options, "journal": tmp_path, "workers": 2}
    process = run(engine, tmp_path, 2, "mlp")
    while process.poll() is None and not looks(tmp_path):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(UsageError, match="at work on the journal"):
        fleet.fit(mlp, ragged(6, 200), **again)
    os.kill(process.pid, signal.SIGKILL)  # and nothing is left that would have to be removed
    resumed = fleet.fit(mlp, ragged(6, 200), **again)
    process.wait()
    assert weights(resumed) == weights(fleet.fit(mlp, ragged(6, 200), **options))


def test_a_journal_takes_one_call_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.fleet.whole.PATIENCE", 0.0)
    refused: list[str] = []

    def once_more(_: Any) -> None:
        with pytest.raises(UsageError) as why:
            fleet.fit(mlp, ragged(), epochs=2, journal=tmp_path)
        refused.append(why.value.what)

    trained = fleet.fit(mlp, ragged(), epochs=2, journal=tmp_path, progress=once_more)
    assert len(refused) == 5 and all("at work on the journal" in what for what in refused)
    assert weights(fleet.fit(mlp, ragged(), epochs=2, journal=tmp_path)) == weights(trained)


def test_killed_once_and_resumed(tmp_path: Path) -> None:
    killed("loop", tmp_path, 1)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # ten processes begin anew, each of which loads torch
@pytest.mark.parametrize(
    ("engine", "make"), [("native", mlp), ("native", Convolution), ("stacked", mlp), ("loop", mlp)]
)
def test_killed_ten_times_and_resumed(engine: str, make: Callable[[], nn.Module], tmp_path: Path) -> None:
    killed(engine, tmp_path, 10, make)


def test_a_worker_that_dies_takes_only_its_model_with_it() -> None:
    class Deadly(__import__("torch").nn.Module):  # type: ignore[misc]
        def __init__(self, dies: bool = False) -> None:
            super().__init__()
            self.inside, self.dies = mlp(), dies

        def forward(self, x: object) -> object:
            if self.dies and os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            return self.inside(x)

    parent = os.getpid()
    options = {"epochs": 2, "engine": "loop"}
    whole = fleet.fit(Deadly, ragged(), **options)
    trained = fleet.fit(Deadly, ragged(), **options, settings={"s2": {"dies": True}})
    assert list(trained.failed) == ["s2"] and "SIGKILL" in trained.failed["s2"]
    assert weights(trained) == {k: w for k, w in weights(whole).items() if k != "s2"}


def test_what_was_trained_before_counts_as_done_and_in_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fleet.fit(mlp, ragged(), epochs=2)
    real, told = Store.finish, []

    def finish(self: Store, index: int, made: State) -> None:
        if sum(self.statuses() >= 0) == 3:
            raise KeyboardInterrupt
        real(self, index, made)

    monkeypatch.setattr(Store, "finish", finish)
    options: dict[str, Any] = {"epochs": 2, "journal": tmp_path, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        fleet.fit(mlp, ragged(), **options)
    monkeypatch.undo()
    again = fleet.fit(mlp, ragged(), **options, progress=told.append)
    assert weights(again) == weights(whole)
    assert [(p.done, p.before, p.left) for p in told] == [(4, 3, 1), (5, 3, 0)]
    summary = again.summary()
    assert summary.before == 3 and summary.bound <= summary.seconds and "3 of them" in str(summary)
    nothing = fleet.fit(mlp, ragged(), **options).summary()
    assert (nothing.before, nothing.bound, nothing.work, nothing.loop_seconds) == (5, 0, 0, 0)


def test_a_journal_says_by_what_it_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "journal": tmp_path}
    fleet.fit(mlp, ragged(2), **options, engine="loop")
    assert fleet.fit(mlp, ragged(2), **options).summary().engines == {"k0": "loop: as the journal was begun"}
    assert fleet.fit(mlp, ragged(2), **options, engine="loop").summary().engines == {"k0": "loop: asked for"}
    with pytest.raises(UsageError, match="engines differ"):
        fleet.fit(mlp, ragged(2), **options, engine="native")


def cut_short(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A journal in which one model is finished."""
    real = Store.finish

    def finish(self: Store, index: int, made: State) -> None:
        if (self.statuses() >= 0).any():
            raise KeyboardInterrupt
        real(self, index, made)

    monkeypatch.setattr(Store, "finish", finish)
    with pytest.raises(KeyboardInterrupt):
        fleet.fit(mlp, ragged(), **options, journal=folder)
    monkeypatch.undo()


@pytest.mark.parametrize("changed", [{"torch": "1.0"}, {"kernel": "fleet-avx2-0"}, {"hasten": ""}, None], ids=str)
def test_other_arithmetic_does_not_go_on_with_a_journal(
    changed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"epochs": 2, "workers": 1, "engine": "native"}
    cut_short(tmp_path, monkeypatch, **options)
    head = tmp_path / "fleet.json"
    begun = head.read_text()
    known = json.loads(begun)
    if changed is None:  # a version that did not say so
        del known["rounding"]
    else:
        known["rounding"] |= changed
    head.write_text(json.dumps(known))
    named = "hasten, kernel, torch" if changed is None else next(iter(changed))
    with pytest.raises(UsageError, match=rf"other arithmetic \({named} differ\)"):
        fleet.fit(mlp, ragged(), **options, journal=tmp_path)
    head.write_text(begun)
    whole = fleet.fit(mlp, ragged(), **options, journal=tmp_path)
    assert weights(whole) == weights(fleet.fit(mlp, ragged(), **options))
    head.write_text(json.dumps(known))  # all is trained: nothing is left to be rounded
    assert weights(fleet.fit(mlp, ragged(), **options, journal=tmp_path)) == weights(whole)


def test_slots_of_what_was_in_flight_are_kept_for_it(tmp_path: Path) -> None:
    """A worker that has room for more of its kind waits while all slots are taken or spoken for."""
    recipe = Recipe()
    jobs = jobs_of(from_mapping(ragged(3), recipe), recipe, {})
    queue = Queue(jobs, ["k0", "k1", "k0"], recipe)
    queue.before_others({0, 1})
    begun = {0: (0, state(5, 3)), 1: (1, state(9, 3))}
    going_on = Run(jobs, Factory(mlp), recipe, [], queue, store(tmp_path), 2, begun)
    child = Child(None, None)  # type: ignore[arg-type]
    assert _hand_out(going_on, child, 4, "k0") == [(0, 0)]
    assert _hand_out(going_on, child, 4, "k0") == [] and len(queue) == 2
    going_on.give_back(child.holds.pop(0))
    assert _hand_out(going_on, child, 4, "k0") == [(2, 0)]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(HastenError, match="cannot make the folder"):
            fleet.fit(mlp, ragged(2), epochs=1, journal=tmp_path / folder)


def test_settings_are_told_by_what_they_are(tmp_path: Path) -> None:
    """A function's address is another one in the next process."""
    options: dict[str, Any] = {"epochs": 1, "journal": tmp_path}

    def make(act: Any = None) -> nn.Module:
        return nn.Linear(6, 1)

    for _ in range(2):
        fleet.fit(make, ragged(2), **options, settings={"s0": {"act": lambda x: x}})
    with pytest.raises(UsageError, match="settings differ"):
        fleet.fit(make, ragged(2), **options, settings={"s0": {"act": lambda x: x + 1}})

"""What a child does between steps: where a device works behind the host, timings begin and end when it is done."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hasten.seams import child
from hasten.seams.state import Snapshot
from hasten.seams.watch import Watch


class Told:
    """Stands in for the line to the parent."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float]] = []

    def row(self, kind: int, wall: float = 0.0, *_: float, **__: float) -> None:
        self.rows.append((kind, wall))

    def leave(self) -> None:
        raise SystemExit


def alternating(monkeypatch: pytest.MonkeyPatch, waits: list[int] | None) -> tuple[list[tuple[int, float]], int]:
    """Rows of two pairs of a script whose clock stands still but where the device is waited for."""
    now = [0.0]

    def wait() -> None:
        assert waits is not None
        waits.append(1)
        now[0] += 1.0

    monkeypatch.setattr(child, "device_waiter", lambda: None if waits is None else wait)
    monkeypatch.setattr(child.time, "perf_counter", lambda: now[0])
    told, steps = Told(), 0
    driver = child.Alternating(told, Watch(), lambda: lambda: None, most_pairs=2)  # type: ignore[arg-type]
    with contextlib.suppress(SystemExit):
        while True:
            driver.beat()
            steps += 1
    return told.rows[:4], steps


def test_a_device_is_waited_for_at_both_ends_of_a_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    rows, steps = alternating(monkeypatch, waits)
    most = child.DEVICE_UNITS[1]  # steps here take no time
    assert [wall for _, wall in rows] == [1 / most] * 4  # the wait at the end is in, the one before it is not
    assert sorted(kind for kind, _ in rows) == [0, 0, 1, 1]
    assert len(waits) <= 2 * 4 + child.WARM_STEPS + 2 and steps >= 4 * most


def test_without_a_device_every_step_is_a_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, steps = alternating(monkeypatch, None)
    assert len(rows) == 4 and steps <= child.WARM_STEPS + 4


@pytest.mark.parametrize(("seconds", "unit"), [(1e-4, 16), (0.01, 10), (0.05, 4), (3.0, 4)])
def test_a_timing_on_a_device_is_long_enough_and_not_too_long(seconds: float, unit: int) -> None:
    assert child.unit_on_device(seconds) == unit


def test_a_device_s_random_numbers_are_part_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from hasten.measure.device import device_waiter
    from hasten.measure.digest import random_digest

    assert device_waiter() is None
    states: list[Any] = [torch.tensor([1])]
    before = random_digest()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    one = random_digest()
    states[0] = torch.tensor([2])
    assert len({before, one, random_digest()}) == 3
    called = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: called.append(1))
    wait = device_waiter()
    assert wait is not None
    wait()
    assert called == [1]


@pytest.mark.parametrize("written", [True, False])
def test_weights_are_written_where_they_will_be_read(written: bool, tmp_path: Path) -> None:
    class Leaves(Told):
        at_end: Any = None

        def leave(self) -> None:
            self.at_end()
            raise SystemExit

    snapshot = Snapshot([torch.nn.Linear(2, 2)])
    outcome = str(tmp_path / "plain.json")
    told: Any = Leaves()
    driver = child.Straight(told, Watch(), 3, warm=0, snapshot=snapshot, outcome=outcome, written=written, marks=(1,))
    with contextlib.suppress(SystemExit):
        for _ in range(4):
            driver.beat()
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"plain.json", *(("plain.json.weights", "plain.json.weights1") if written else ())}
    assert json.loads((tmp_path / "plain.json").read_text(encoding="utf-8"))["losses"] == [0.0] * 3

"""When a remedy with a start of its own begins, in jobs of known length and of unknown."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

import hasten
from hasten.core.interval import Interval
from hasten.core.plan import Step
from hasten.core.remedy import Remedy
from hasten.run.late import LEAST_SPEED, Beginning, Waiting, due, gain, repaid, slowness, starts


def step(remedy: Remedy, ratio: float, low: float = 0.0) -> tuple[Step, Remedy]:
    found = Interval(ratio, low or ratio, ratio)
    return Step(remedy.name, remedy.settings(), remedy.fidelity.value, ratio=found), remedy


def test_a_job_of_known_length_must_repay_the_start() -> None:
    ratio = Interval.exact(1.5)
    assert not repaid(4.0, ratio, 7.9)
    assert repaid(4.0, ratio, 8.1)
    assert repaid(0.0, Interval.exact(1.01), 0.0)
    assert repaid(4.0, None, 4.1) and not repaid(4.0, None, 3.9)  # written by hand: it may gain all that is left


@pytest.mark.parametrize("ratio", [1.05, 1.3, 2.2, 10.0])
@pytest.mark.parametrize("gained", [1.0, 1.2, 1.5, 10.0])
def test_a_job_of_unknown_length_is_never_slower_than_the_script_wherever_it_ends(ratio: float, gained: float) -> None:
    start = 4.0
    after = due(start, Interval.exact(ratio), gained)
    worst = after * gained / (after + start)  # it ends when the start is over and has gained nothing yet
    assert worst >= LEAST_SPEED - 1e-9
    rest = after  # expected
    assert start + rest / ratio <= rest + 1e-9


def test_it_does_not_wait_longer_than_for_that() -> None:
    assert due(4.0, Interval.exact(1.5), 10.0) == pytest.approx(12.0)
    assert due(4.0, Interval.exact(1.5)) == pytest.approx(12.0)
    assert due(4.0, Interval.exact(1.5), 1.0) == pytest.approx(49 * 4.0)
    assert due(4.0, Interval.exact(1.0), 1.5) == math.inf
    assert due(4.0, None, 10.0) == pytest.approx(4.0)
    assert due(4.0, None, 1.0) == due(4.0, Interval.exact(1.5), 1.0)
    assert due(0.0, Interval.exact(1.1)) == 0.0


def test_what_is_at_stake_is_what_the_trials_made_sure_from_the_first_pass_on() -> None:
    steps = [
        step(hasten.FusedOptimizer(), 1.3, 1.2),
        step(hasten.CacheSamples(), 2.0),
        step(hasten.Threads(1), 1.1, 0.9),
    ]
    assert gain(steps) == pytest.approx(1.2)
    assert gain([]) == 1.0


def test_a_plan_says_when_its_replay_compiles() -> None:
    plan = [step(hasten.FusedOptimizer(), 1.6, 1.5), step(hasten.Compile(), 1.5)]
    for slow, after, start in ((1.0, 12, 4), (2.5, 30, 10)):  # where importing torch took as many times as long
        (said,) = starts(plan, slow)
        assert said.startswith(f"Compile() starts after {after} s of training: ") and f"start of {start} s" in said
    (never,) = starts([step(hasten.Compile(), 1.0)], 1.0)
    assert never.startswith("Compile() does not start in a job of unknown length")
    assert list(starts([step(hasten.FusedOptimizer(), 1.6)], 1.0)) == []


def test_the_agent_is_called_when_the_time_has_come() -> None:
    now = [0]
    clock = SimpleNamespace(now=lambda: now[0])
    watch: Any = SimpleNamespace(clock=clock, first_fetch=1, first_step=0, steps=100, next_call=200)
    waiting = Waiting(watch)
    waiting.call_again()
    assert watch.next_call == 200
    compiled, _ = step(hasten.Compile(), 1.5)
    waiting.add(math.inf, compiled)
    waiting.add(1.5, compiled)
    now[0] = 1_000_000_001  # 100 steps a second
    assert waiting.ready() == ()
    waiting.call_again()
    assert watch.next_call == 150
    now[0] = 1_500_000_001
    assert waiting.ready() == (compiled,)
    assert waiting.ready() == ()


@pytest.mark.parametrize("fold", [1, 2])
def test_a_start_takes_what_the_first_steps_take_longer(fold: int) -> None:
    walls = [0.1] * 10 + [2.1, 3.1, 0.1] + [0.1] * 8
    means = [w / fold for w in walls]  # of so many steps
    watch: Any = SimpleNamespace(steps=10 * fold, fold=fold, walls=lambda since: means[since:-1])
    beginning = Beginning(watch, 1.5)
    assert beginning.taken() is None
    watch.walls = lambda since: means[since:]
    assert beginning.taken() == pytest.approx(1.5 + 2.0 + 3.0)


@pytest.mark.parametrize(("imported", "times"), [(0.0, 1.0), (1.5, 1.0), (10.0, 5.0)])
def test_on_a_busy_machine_a_start_is_taken_to_be_as_much_longer_as_importing_torch(
    imported: float, times: float
) -> None:
    watch: Any = SimpleNamespace(torch_started=1, torch_imported=1 + round(imported * 1e9))
    assert slowness(watch) == pytest.approx(times)

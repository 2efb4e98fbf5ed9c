"""What is made of a trial, of a comparison of weights, and of the budget."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hasten
from hasten.core.interval import Interval
from hasten.core.remedy import Remedy
from hasten.core.trace import Trace
from hasten.measure.interleave import Outcome, Pairs, TurnPairs
from hasten.run import fidelity
from hasten.run.budget import MOST_SECONDS, UNKNOWN_SECONDS, budget_of
from hasten.run.fidelity import LEAST_STEPS, Comparison, Judge, curves
from hasten.run.kept import Kept, payback
from hasten.run.processes import ProcessJudge, ProcessPairs
from hasten.run.room import Measured
from hasten.run.search import Search
from hasten.run.trial import TrialRoom
from hasten.run.verdict import verdict
from hasten.seams.child import WITH, WITHOUT
from tests import samples


def faster(cpu: float) -> Measured:
    """Twice as fast by the wall; the processor time of a step is ``cpu`` times what it was."""
    pairs = Pairs(outcome=Outcome.FASTER)
    for i in range(20):
        pairs.add(2.0 + 0.001 * i, 1.0, 1.0, cpu + 0.001 * i)
    return Measured(pairs, "by hand", 0.0)


def test_a_gain_that_costs_processor_time_is_not_believed() -> None:
    """Unless it is a remedy that trades the one for the other."""
    assert verdict(faster(0.5), hasten.FusedOptimizer()) == ("kept", "")
    assert verdict(faster(1.5), hasten.FusedOptimizer())[0] == "cannot tell"
    assert verdict(faster(1.5), hasten.LoaderWorkers(2)) == ("kept", "")


def test_equal_processes_are_told_apart_at_most_once_in_200() -> None:
    """Few pairs, looked at after each: both sides together, as often as is promised and no more."""
    draw, claims = random.Random(3), 0
    for _ in range(3000):
        pairs = ProcessPairs()
        while not pairs.exhausted:
            pairs.add(math.exp(draw.gauss(0, 0.05)), 1.0)
            pairs.look()
        claims += pairs.outcome in (Outcome.FASTER, Outcome.SLOWER)
    assert claims / 3000 <= 1 / 200


class Turns:
    """A child that takes its turns as given: kind and seconds of each, then it is gone."""

    ended = True

    def __init__(self, rows: list[tuple[int, float]]) -> None:
        self.rows = rows
        self.error = "ValueError: gone"

    def is_over(self, _seconds: float) -> bool:
        return False

    def turn(self, cores: Any) -> None:
        pass

    freeze = kill = lambda self: None


def test_turns_in_which_a_child_evaluated_are_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold what most of the script's steps do not; why the child ended is told."""
    room = object.__new__(TrialRoom)

    def row(child: Any, end: float) -> Any:
        return (*child.rows.pop(0), 1.0, 0.0, 0.0) if child.rows else None

    monkeypatch.setattr(room, "_await_row", row)
    children: Any = {WITHOUT: Turns([(0, 0.2)] * 4), WITH: Turns([(0, 0.1), (2, 5.0), (0, 0.1), (0, 0.1)])}
    pairs = TurnPairs()
    assert room._take_turns(children, pairs, math.inf) == "the child ended: ValueError: gone"
    assert pairs.wall == pytest.approx([math.log(2)] * 3)


def test_a_budget_is_a_part_of_the_job_and_never_more_than_asked_for() -> None:
    job = Trace("t.py", step=Interval.exact(0.1), predicted_steps=2000)
    assert budget_of(job, None) == pytest.approx(10)
    assert budget_of(dataclasses.replace(job, predicted_steps=10**6), None) == MOST_SECONDS
    assert budget_of(dataclasses.replace(job, predicted_steps=-1), None) == UNKNOWN_SECONDS
    assert budget_of(job, 0) == 0 and budget_of(job, 7.5) == 7.5


def test_what_trials_cost_is_repaid_by_what_each_later_second_saves() -> None:
    twice, half_more = (Interval(v, v, v, "ratio") for v in (2.0, 1.5))
    assert payback(10.0, twice) == pytest.approx(10) and payback(10.0, half_more) == pytest.approx(20)
    assert payback(10.0, None) == payback(10.0, Interval(1.0, 0.9, 1.1, "ratio")) == math.inf


@pytest.mark.parametrize(("proved", "said"), [(("Threads(1)",), "by hand"), (("Threads(1)", "Allocator()"), "before")])
def test_a_proof_is_one_of_all_that_is_kept(proved: tuple[str, ...], said: str) -> None:
    """The proof of an earlier trial stands for the plan only if it was of the same remedies."""
    judge: Any = SimpleNamespace(judge=lambda remedies: fidelity.Finding(True, "by hand"))
    search = Search(SimpleNamespace(), judge, samples.trace(), 1.0)  # type: ignore[arg-type]
    search.kept = [Kept(r, "", faster(0.5), "") for r in (hasten.Threads(1), hasten.Allocator())]
    search._proved = (set(proved), "before")
    assert search.prove() == said


class Told(Judge):
    """Children whose outcomes are given: the plain script, the script with remedies."""

    outcomes: dict[str, Any] = {}  # noqa: RUF012

    def _run(self, name: str, remedies: list[Remedy], fresh: bool, **how: Any) -> dict[str, Any] | None:
        return self.outcomes.get(name or "with", self.outcomes["plain"])


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    state = SimpleNamespace(parameters=lambda: [1], write=lambda path: None, layout=lambda: None)
    monkeypatch.setattr(fidelity, "Snapshot", SimpleNamespace(of=lambda watch: state))
    room: Any = SimpleNamespace(watch=None, renewable=False, renews=lambda remedies: False)
    return Told(room, str(tmp_path), 0.01)


def outcome(steps: int = 40, **other: str) -> dict[str, Any]:
    same = {"weights": "w", "optimizer": "o", "random": "r", "weights_file": "f", "moved_file": "m"}
    return {**same, "losses": [1.0] * steps, **other}


@pytest.mark.parametrize("what", ["weights", "optimizer", "random"])
def test_the_same_bits_are_those_of_weights_optimizer_and_random_states(judge: Told, what: str) -> None:
    judge.outcomes = {"plain": outcome(), "with": outcome()}
    assert judge.judge([hasten.Allocator()]).kept
    judge.outcomes["with"] = outcome(**{what: "another"})
    found = judge.judge([hasten.Allocator()])
    assert found.kept is False and f"these differ: {what}" in found.words


def test_other_random_numbers_are_no_other_rounding(judge: Told) -> None:
    judge.outcomes = {"plain": outcome(), "with": outcome(random="another", weights="another")}
    found = judge.judge([hasten.FusedOptimizer()])
    assert found.kept is False and "random numbers" in found.words


@pytest.mark.parametrize("what", ["weights", "optimizer"])
def test_of_a_script_that_differs_from_itself_nothing_is_said(judge: Told, what: str) -> None:
    judge.outcomes = {"plain": outcome(), "again": outcome(**{what: "third"}), "with": outcome(weights="another")}
    for remedy in (hasten.Allocator(), hasten.FusedOptimizer()):
        found = judge.judge([remedy])
        assert found.kept is None and "differs from itself" in found.words


@pytest.mark.parametrize("what", ["weights", "optimizer", "random"])
def test_processes_are_the_same_in_all_that_is_the_same_without_a_remedy(what: str) -> None:
    """What differs between two plain ones (a source without a seed) is left out, weights and optimizer excepted."""

    def judged(again: dict[str, Any], other: dict[str, Any]) -> fidelity.Finding:
        runs = iter([outcome(), again, other])
        room: Any = SimpleNamespace(once=lambda *a, **how: next(runs))
        return ProcessJudge(room).judge([hasten.Allocator()])

    assert judged(outcome(), outcome()).kept
    assert judged(outcome(), outcome(**{what: "another"})).kept is False
    both = judged(outcome(**{what: "third"}), outcome(**{what: "another"}))
    assert both.kept is (True if what == "random" else None)


def test_few_steps_prove_nothing(judge: Told) -> None:
    judge.outcomes = {"plain": outcome(LEAST_STEPS - 1), "with": outcome(LEAST_STEPS - 1)}
    assert judge.judge([hasten.Allocator()]).kept is None


@pytest.mark.parametrize(("judged", "kept"), [(0.4, None), (0.6, True)])
def test_where_most_weights_cannot_be_judged_nothing_is_proved(
    judge: Told, monkeypatch: pytest.MonkeyPatch, judged: float, kept: bool | None
) -> None:
    judge.outcomes = {"plain": outcome(), "with": outcome(weights="another")}
    monkeypatch.setattr(fidelity, "weights", lambda path, layout: [1.0])
    monkeypatch.setattr(fidelity, "compare", lambda *a: Comparison(True, judged, 1e-7, 1e-5, 4))
    assert judge.judge([hasten.FusedOptimizer()]).kept is kept


@pytest.mark.parametrize(("within", "kept", "asked"), [(1, True, 1), (3, True, 3), (4, False, 3)])
def test_a_promise_is_broken_by_the_largest_of_three_yardsticks(
    judge: Told, monkeypatch: pytest.MonkeyPatch, within: int, kept: bool, asked: int
) -> None:
    """What jumps in the script with a remedy may not have jumped in the first run that it is measured by."""
    draws: list[int] = []
    run = judge._run

    def told(name: str, remedies: list[Remedy], fresh: bool, **how: Any) -> dict[str, Any] | None:
        draws.extend([how["moved_by"]] if "moved_by" in how else [])
        return run(name, remedies, fresh, **how)

    monkeypatch.setattr(judge, "_run", told)
    judge.outcomes = {"plain": outcome(), "with": outcome(weights="another")}
    monkeypatch.setattr(fidelity, "weights", lambda path, layout: [1.0])
    monkeypatch.setattr(
        fidelity,
        "compare",
        lambda a, b, c, yardsticks, *rest: Comparison(len(yardsticks) >= within, 1.0, 1e-5, 1e-5, 4),
    )
    assert judge.judge([hasten.FusedOptimizer()]).kept is kept
    assert draws == list(range(asked))


def test_losses_that_are_lost_are_not_within_the_noise_of_seeds_that_are() -> None:
    plain, lost = [1.0] * 8, [1.0] * 7 + [math.inf]
    assert not curves(plain, lost, [lost] * 3).kept
    assert curves(plain, [1.01] * 8, [[1.02] * 8] * 3).kept
    assert not curves(plain, [1.03] * 8, [[1.02] * 8] * 3).kept

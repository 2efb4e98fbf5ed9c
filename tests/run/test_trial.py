"""Trials and comparisons in a real training: what is found, and that the training itself goes on as if alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import hasten
from hasten.measure.interleave import Outcome, Pairs, TurnPairs
from hasten.run import stepwise
from hasten.run.trial import SPARED, SPARED_AFTER, TrialRoom
from tests.scripts.lab import LIMIT, SCRIPTS


def judged(folder: Path, door: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPTS / "judged.py"), str(folder), door]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """sha256 of the weights where nothing was asked."""
    return str(judged(tmp_path_factory.mktemp("alone"), "nothing")["weights"])


def test_comparisons_find_what_was_changed(tmp_path: Path, alone: str) -> None:
    answer = judged(tmp_path, "judge")
    found = {name: (f["kept"], f["words"]) for name, f in answer["found"].items()}
    assert found["nothing"] == (True, "identical after 40 steps, to the bit")
    assert found["rounds"][0] is True, found
    assert found["rounds, promised identical"][0] is False
    assert found["other gradient"][0] is False and "updates differ" in found["other gradient"][1], found
    assert found["thaws"] == (False, "after 1 step weights or buffers are changed that the script leaves alone")
    assert found["forward twice"][0] is False, found
    assert found["draws"] == (False, "other random numbers were drawn")
    assert found["diverges"][0] is False
    assert found["diverges, approximate"][0] is False
    assert found["rounds, approximate"][0] is True, found
    assert found["raises"][0] is None
    assert found["crawls"] == found["nothing"]  # seven times as slow as was thought: it is waited for while it goes on
    assert answer["weights"] == alone


def test_trials_find_what_is_faster_and_what_is_slower(tmp_path: Path, alone: str) -> None:
    answer = judged(tmp_path, "compare")
    found = {name: (f["outcome"], f["method"]) for name, f in answer["found"].items()}
    stepwise, turns = "fork, step by step", "fork, two children in turns"
    assert found["faster"] == ("faster", stepwise)
    assert found["faster in turns"] == ("faster", turns)
    for name, method in (("slower", stepwise), ("slower in turns", turns)):
        assert found[name][0] in ("slower", "no gain") and found[name][1] == method
    for name in ("raises", "raises in turns"):
        assert answer["found"][name]["pairs"] == 0
        assert answer["found"][name]["why"] == "the child ended: ZeroDivisionError"
    spared = answer["found"]["spared"]  # at once, the time is for others
    assert (spared["why"], spared["pairs"], spared["outcome"]) == (SPARED, SPARED_AFTER, "cannot tell")
    assert answer["weights"] == alone


class Canned(TrialRoom):
    """Children in turns whose outcomes are given."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        self.recorded = None
        self.step_seconds = 0.01
        self.orders: list[tuple[int, int]] = []

    def _by_two(self, without: Any, with_: Any, pairs: Pairs, end: float, order: tuple[int, int]) -> str:
        self.orders.append(order)
        pairs.outcome = self.outcomes.pop(0)
        pairs.wall = [0.5] * 10
        return ""


@pytest.mark.parametrize("claim", [Outcome.FASTER, Outcome.SLOWER])
def test_a_claim_of_two_children_needs_two_others(claim: Outcome) -> None:
    room = Canned([claim, claim])
    measured = room.compare([], [hasten.Allocator()], 1.0)
    assert measured.outcome is claim and len(measured.pairs.wall) == 20
    assert room.orders[0] == room.orders[1][::-1]
    for other in set(Outcome) - {claim}:
        room = Canned([claim, other])
        measured = room.compare([], [hasten.Allocator()], 1.0)
        assert measured.outcome is Outcome.OPEN and measured.why == "two other children did not confirm it"
    assert Canned([Outcome.NO_GAIN]).compare([], [hasten.Allocator()], 1.0).outcome is Outcome.NO_GAIN


def test_a_trial_of_two_children_goes_on_with_the_pairs_it_has() -> None:
    """It began anew where more time was found for it."""
    room, before = Canned([Outcome.NO_GAIN]), TurnPairs([0.1] * 3)
    measured = room.compare([], [hasten.Allocator()], 1.0, 1.5, before)
    assert measured.pairs is before and before.hoped == 1.5


def test_a_child_in_which_an_evaluation_may_be_compiled_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was given up while the script's samples were compiled for, at a later step than any before."""
    room, given = Canned([]), []
    monkeypatch.setattr(stepwise, "listen", lambda child, pairs, seconds, silent: given.append(silent) or "")
    for remedies in ([], [hasten.Compile()]):
        room._listen(None, Pairs(), 10.0, [*remedies, hasten.CacheSamples()])  # type: ignore[arg-type]
    assert given[1] - given[0] == hasten.Compile.one_off_seconds


class Grows:
    """A copy whose heap grows in its first turns, and has no page faults any more then."""

    ended = False

    def __init__(self, faults: int) -> None:
        self.left = [100.0] * faults

    def turn(self, placed: list[int]) -> None: ...

    def freeze(self) -> None: ...

    def is_over(self, seconds: float) -> bool:
        return False

    def rows(self, seconds: float) -> list[tuple[float, ...]]:
        return [(0, 0.01, 0.01, 0.0, self.left.pop() if self.left else 0.0)]


def test_copies_whose_page_faults_end_are_told_from_the_script() -> None:
    room = Canned([])
    room.faults = 100.0
    for grows, pairs_needed in ((0, SPARED_AFTER), (3, 2 * SPARED_AFTER), (9, 3 * SPARED_AFTER)):
        pairs, children = TurnPairs(), {0: Grows(grows), 1: Grows(grows)}
        why = room._take_turns(children, pairs, time.monotonic() + 60, True)  # type: ignore[arg-type]
        assert (why, len(pairs.faults)) == (SPARED, pairs_needed)

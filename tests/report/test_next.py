"""What a report says of how much was seen, and which command it names as the next one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hasten.core.report import Report
from hasten.report import view
from hasten.run.fidelity import TOO_LONG
from hasten.run.search import LONG_STEPS, TOO_DEAR, USED_UP
from hasten.run.stepwise import SHORT, TIME_UP
from hasten.run.verdict import ALMOST
from tests import samples

DROPPED = dataclasses.replace(samples.TRIALS[1], verdict="dropped", why="slower")


def after(*trials: Any, **changes: Any) -> str:
    return view.next_command(samples.result(trials=trials, overall=None, plan_path="", **changes))


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ("not tried", USED_UP),
        ("not tried", LONG_STEPS),
        ("not tried", TOO_DEAR),
        ("cannot tell", ALMOST),
        ("cannot tell", TIME_UP),
        ("dropped", TOO_LONG),
    ],
)
def test_what_had_too_little_time_is_offered_more(verdict: str, why: str) -> None:
    """Before more is allowed to change; twice as much, but a minute at least."""
    short = dataclasses.replace(samples.TRIALS[1], verdict=verdict, why=why)
    assert after(DROPPED, short, samples.TRIALS[2]) == "hasten run --budget 240 train.py --epochs 8"
    assert after(short, budget_seconds=3.5) == "hasten run --budget 60 train.py --epochs 8"


def test_a_script_that_is_too_short_for_trials_is_offered_neither_time_nor_leave() -> None:
    short = dataclasses.replace(samples.TRIALS[1], verdict="cannot tell", why=SHORT)
    untried = dataclasses.replace(samples.TRIALS[1], verdict="not tried", why=TOO_DEAR)
    asked = dataclasses.replace(samples.TRIALS[1], verdict="not tried", why="ask: --allow approximate")
    assert after(short, untried, asked) == "hasten explain train.py --epochs 8"


def test_what_was_asked_for_is_asked_for_again() -> None:
    """A user who has allowed identical bits only does not get the default back by typing the next command."""
    short = dataclasses.replace(samples.TRIALS[1], verdict="not tried", why=USED_UP)
    options = ("--budget", "120", "--allow", "identical", "--only", "Threads", "--only", "Compile")
    same = "--allow identical --only Threads --only Compile"
    assert after(short, options=options) == f"hasten run {same} --budget 240 train.py --epochs 8"
    options = ("--allow", "identical", "--skip", "Compile")
    asked = dataclasses.replace(samples.TRIALS[1], verdict="not tried", why="ask: --allow equivalent")
    assert after(asked, options=options) == "hasten run --skip Compile --allow equivalent train.py --epochs 8"


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize("options", ["--budget 30", "--plan p.json"])
def test_what_was_stopped_from_outside_is_begun_again_as_it_was(number: int, options: str) -> None:
    """Of a replay without its plan, so with trials."""
    stopped, same = samples.report(exit_code=-number), f"hasten run {options} train.py --epochs 8"
    for report in (stopped, dataclasses.replace(stopped, trace=None, findings=())):
        assert after(report=report, options=tuple(options.split())) == same


def test_a_plan_comes_before_a_larger_budget() -> None:
    short = dataclasses.replace(samples.TRIALS[1], verdict="not tried", why=USED_UP)
    result = samples.result(trials=(samples.TRIALS[0], short))
    assert view.next_command(result) == "hasten run --plan train.hasten.json train.py --epochs 8"


def test_a_script_that_was_too_short_is_not_sent_to_trials() -> None:
    few = Report(samples.trace(steps=3), (), samples.COMMAND, message="only 3 steps were seen")
    assert view.next_command(few) == "hasten explain train.py --epochs 8"


def test_how_much_of_the_whole_job_was_watched() -> None:
    early = samples.trace(steps=22, window=19, predicted_steps=114, ended="")
    assert view.watched(early) == "19 of 22 steps watched, 1.9 s of training, 114 expected"  # killed behind the look
    assert view.watched(early, 114) == "19 of 114 steps watched, 1.9 s of training"
    assert view.watched(early, 60) == "19 of 60 steps watched, 1.9 s of training, 114 expected"
    assert view.watched(samples.trace(steps=1, window=1, step=None)) == "1 step watched"
    ended = dataclasses.replace(early, ended="finished")
    assert view.watched(ended, 60) == "19 of 60 steps watched, 1.9 s of training"

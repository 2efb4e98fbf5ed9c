"""Trials by throw-away processes: what is asked of them, what is made of their answers, and that none is left over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hasten
from hasten.core.remedy import Grain
from hasten.measure.interleave import LOOKS, Outcome
from hasten.run.processes import METHOD, STEPWISE, ProcessJudge, ProcessPairs, ProcessRoom
from hasten.run.stepwise import SHORT
from hasten.seams.thrown import Command
from tests.scripts.lab import SCRIPTS, SOURCE


@pytest.fixture(autouse=True)
def found_by_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]))


def room(folder: Path, *ways: str, workers: bool = False) -> ProcessRoom:
    command = Command(str(folder), 0.1, [sys.executable, str(SCRIPTS / "thrown.py"), *ways])
    return ProcessRoom(command, 1e-3, workers)


def test_a_faster_and_a_slower_remedy_are_told_apart_in_one_process(tmp_path: Path) -> None:
    faster = room(tmp_path).compare([], [hasten.Threads(1)], 60.0)
    assert faster.outcome is Outcome.FASTER and faster.ratio is not None and 1.9 < faster.ratio.value < 2.1
    assert faster.method == STEPWISE and len(faster.pairs.wall) >= LOOKS[0]
    slower = room(tmp_path).compare([hasten.Threads(1)], [hasten.Threads(1), hasten.ForeachOptimizer()], 60.0)
    assert slower.outcome in (Outcome.SLOWER, Outcome.NO_GAIN)
    assert not list(tmp_path.iterdir())


def test_what_holds_from_a_process_s_start_is_tried_in_two(tmp_path: Path) -> None:
    faster = room(tmp_path).compare([], [hasten.Allocator()], 60.0)
    assert faster.outcome is Outcome.FASTER and faster.method == METHOD
    fetched = [hasten.BatchedFetch()]
    assert room(tmp_path).compare([], fetched, 60.0).method == STEPWISE
    assert room(tmp_path, workers=True).compare([], fetched, 60.0).method == METHOD
    assert not list(tmp_path.iterdir())


def test_what_was_tried_in_two_goes_on_with_the_pairs_it_has(tmp_path: Path) -> None:
    """Each is two starts of the script; a trial that time had cut short began anew."""
    before = ProcessPairs([0.7, 0.68, 0.71])
    measured = room(tmp_path).compare([], [hasten.Allocator()], 60.0, before=before)
    assert measured.outcome is Outcome.FASTER and measured.pairs is before
    assert len(before.wall) == ProcessPairs.least


@pytest.mark.parametrize("ways", [("dies",), ("dies with",)])
def test_a_process_that_ends_early_is_no_trial(tmp_path: Path, ways: tuple[str, ...]) -> None:
    for remedy in (hasten.Threads(1), hasten.Allocator()):
        measured = room(tmp_path, *ways).compare([], [remedy], 60.0)
        assert measured.outcome is Outcome.OPEN and measured.why == "a process ended before it could be timed"
    found = ProcessJudge(room(tmp_path, *ways)).judge([hasten.Threads(1)])
    assert found.kept is None


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_script_that_is_over_is_not_short_of_time(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the process is gone then, or goes on behind the last step: no more of the budget would help."""
    monkeypatch.setattr("hasten.run.processes.SILENT_SECONDS", 1.0)
    short = room(tmp_path, "over", how)
    assert short.compare([], [hasten.Allocator()], 60.0).why == SHORT
    found = ProcessJudge(short).judge([hasten.Threads(1)])
    assert found.kept is None and "the script ended before 20 steps" in found.words


def test_a_remedy_that_cannot_be_applied_says_so(tmp_path: Path) -> None:
    for remedy in (hasten.Threads(1), hasten.Allocator()):
        measured = room(tmp_path, "unsuited").compare([], [remedy], 60.0)
        assert measured.why == "no convolution" and not measured.pairs.wall


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.seams.thrown.START_SECONDS", 0.2)
    mark = str(tmp_path / "a name of its own")
    assert room(tmp_path, "hangs", mark).once([], 0, 1) is None
    left = subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True).stdout.split()
    assert [pid for pid in left if int(pid) != os.getpid()] == []


def test_weights_are_compared_as_promised(tmp_path: Path) -> None:
    judge = ProcessJudge(room(tmp_path))
    assert judge.judge([hasten.Threads(1)]).words == "identical after the first 20 steps, to the bit"
    equivalent = judge.judge([hasten.ChannelsLast()])
    assert equivalent.kept is True and equivalent.distance > 0
    assert ProcessJudge(room(tmp_path, "wrong")).judge([hasten.Threads(1)]).kept is False


def test_an_approximate_remedy_is_compared_with_other_seeds(tmp_path: Path) -> None:
    kept = ProcessJudge(room(tmp_path, "rounds")).judge([hasten.Autocast()])
    assert kept.kept is True and "between seeds" in kept.words
    assert ProcessJudge(room(tmp_path, "rounds", "far")).judge([hasten.Autocast()]).kept is False


def test_a_script_that_takes_its_numbers_elsewhere_proves_nothing(tmp_path: Path) -> None:
    found = ProcessJudge(room(tmp_path, "unseeded")).judge([hasten.Threads(1)])
    assert found.kept is None and "differs from itself" in found.words


def test_what_works_only_for_a_whole_job_is_not_tried(tmp_path: Path) -> None:
    for remedy in (hasten.Threads(1), hasten.ChannelsLast()):
        words = room(tmp_path).unsuited(remedy, [])
        assert bool(words) == (remedy.grain is Grain.JOB)

"""Trials by throw-away processes: what is asked of them, what is made of their answers, and that none is left over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hasten
from hasten.core.remedy import Grain
from hasten.measure.interleave import Outcome
from hasten.run.processes import ProcessJudge, ProcessRoom
from tests.scripts.lab import SCRIPTS


def room(folder: Path, *ways: str) -> ProcessRoom:
    return ProcessRoom(str(folder), 1e-3, 0.1, [sys.executable, str(SCRIPTS / "thrown.py"), *ways])


def test_a_faster_and_a_slower_remedy_are_told_apart(tmp_path: Path) -> None:
    faster = room(tmp_path).compare([], [hasten.Threads(1)], 60.0)
    assert faster.outcome is Outcome.FASTER and faster.ratio is not None and 1.8 < faster.ratio.value < 2.2
    slower = room(tmp_path).compare([], [hasten.ForeachOptimizer()], 60.0)
    assert slower.outcome in (Outcome.SLOWER, Outcome.NO_GAIN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ways", [("dies",), ("dies with",)])
def test_a_process_that_ends_early_is_no_trial(tmp_path: Path, ways: tuple[str, ...]) -> None:
    measured = room(tmp_path, *ways).compare([], [hasten.Threads(1)], 60.0)
    assert measured.outcome is Outcome.OPEN and measured.why == "a process ended before it could be timed"
    found = ProcessJudge(room(tmp_path, *ways)).judge([hasten.Threads(1)])
    assert found.kept is None


def test_a_remedy_that_cannot_be_applied_says_so(tmp_path: Path) -> None:
    measured = room(tmp_path, "unsuited").compare([], [hasten.Threads(1)], 60.0)
    assert measured.why == "no convolution" and not measured.pairs.wall


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.run.processes.START_SECONDS", 0.2)
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


def test_a_script_without_a_seed_proves_nothing(tmp_path: Path) -> None:
    found = ProcessJudge(room(tmp_path, "unseeded")).judge([hasten.Threads(1)])
    assert found.kept is None and "differs from itself" in found.words


def test_what_works_only_for_a_whole_job_is_not_tried(tmp_path: Path) -> None:
    for remedy in (hasten.Threads(1), hasten.ChannelsLast()):
        words = room(tmp_path).unsuited(remedy, [])
        assert bool(words) == (remedy.grain is Grain.JOB)

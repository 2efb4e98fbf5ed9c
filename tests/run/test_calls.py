"""Evaluations without a graph: their calls are tried by turns, and the script sees what it would have seen."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hasten
from hasten.core.plan import Plan, Step, sha256_of_file
from hasten.measure import machine
from hasten.measure.interleave import Pairs
from hasten.run.calls import DIFFERENT
from hasten.run.room import Measured
from hasten.run.trial import FORKED_CALLS
from tests.scripts.lab import LIMIT, SCRIPTS, SOURCE

SCRIPT = SCRIPTS / "evaluates.py"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


@pytest.fixture(scope="module")
def alone() -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=LIMIT, env=env).stdout


def test_a_trial_repeats_an_evaluation(alone: str, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as out:
        result = hasten.run(SCRIPT, budget=20, allow="identical", only=["NoGradEvaluation"], stdout=out)
    (trial,) = [t for t in result.trials if t.name == "NoGradEvaluation"]
    if DIFFERENT not in trial.why:  # this processor's kernels may round elsewhere
        assert trial.method == FORKED_CALLS
        assert trial.pairs >= 6
    assert result.broken == ()
    assert (tmp_path / "out").read_text() == alone


def test_a_plan_with_it_leaves_the_script_as_it_is(alone: str, tmp_path: Path) -> None:
    steps = (Step("NoGradEvaluation", {}, "identical"),)
    plan = Plan(str(SCRIPT), sha256_of_file(SCRIPT), machine.versions(), machine.machine(), steps)
    with open(tmp_path / "out", "w") as out:
        result = hasten.run(SCRIPT, plan=plan, stdout=out)
    assert result.report.exit_code == 0
    assert (tmp_path / "out").read_text() == alone


def test_ratios_are_those_of_the_whole_step() -> None:
    pairs = Pairs()
    for _ in range(9):
        pairs.add(2.0, 1.0)
    whole = Measured(pairs, FORKED_CALLS, 1.0).ratio
    part = Measured(pairs, FORKED_CALLS, 1.0, share=0.5).ratio
    assert whole is not None and part is not None
    assert whole.value == pytest.approx(2)
    assert part.value == pytest.approx(1 / 0.75)
    assert dataclasses.replace(part, value=2, low=2, high=2) == dataclasses.replace(whole, value=2, low=2, high=2)
    assert pairs.mean_without == 2.0

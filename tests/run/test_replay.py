"""A replayed plan is watched for a moment only; afterwards next to nothing stands between the script and torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hasten
from hasten.core.interval import Interval
from hasten.core.plan import Plan, Step, sha256_of_file
from hasten.core.report import Outcome
from hasten.measure import machine
from hasten.run import compiled, inside
from tests.report.forms import faults, stored
from tests.scripts.lab import LIMIT, SCRIPTS, SOURCE

SCRIPT = SCRIPTS / "replayed.py"


def ran(*command: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=LIMIT, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def alone() -> str:
    return ran(str(SCRIPT))


@pytest.mark.parametrize("remedies", [pytest.param((), marks=pytest.mark.slow), ("BatchedFetch",)])
def test_the_script_is_left_as_it_is(remedies: tuple[str, ...], alone: str, tmp_path: Path) -> None:
    steps = tuple(Step(name, {}, "identical") for name in remedies)
    plan = Plan(str(SCRIPT), sha256_of_file(SCRIPT), machine.versions(), machine.machine(), steps)
    plan.save(tmp_path / "plan.json")
    report = tmp_path / "report.json"
    with_plan = ran("-m", "hasten", "run", "--plan", str(tmp_path / "plan.json"), "--json", str(report), str(SCRIPT))
    assert with_plan == alone
    assert report.exists()


def test_what_the_script_looks_at_lies_in_memory_as_without(tmp_path: Path) -> None:
    script = SCRIPTS / "flattened.py"
    steps = (Step("ZeroGradToNone", {}, "identical"), Step("ChannelsLast", {}, "equivalent"))
    Plan(str(script), sha256_of_file(script), machine.versions(), machine.machine(), steps).save(tmp_path / "plan.json")
    report = tmp_path / "report.json"
    with_plan = ran("-m", "hasten", "run", "--plan", str(tmp_path / "plan.json"), "--json", str(report), str(script))
    assert with_plan == ran(str(script))


TAKES_NOTHING = """
import torch
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.Rprop(model.parameters())
for step in range(40):
    optimizer.zero_grad()
    model(torch.ones(4, 8)).square().mean().backward()
    optimizer.step()
"""


def test_a_remedy_that_nothing_takes_is_told(tmp_path: Path) -> None:
    """The plan was made with other arguments, or edited."""
    script, report = tmp_path / "train.py", tmp_path / "report.json"
    script.write_text(TAKES_NOTHING, encoding="utf-8")
    steps = (Step("FusedOptimizer", {}, "equivalent"), Step("Threads", {"count": 3}, "equivalent"))
    Plan(str(script), sha256_of_file(script), machine.versions(), machine.machine(), steps).save(tmp_path / "plan.json")
    ran("-m", "hasten", "run", "--plan", str(tmp_path / "plan.json"), "--json", str(report), str(script))
    document = json.loads(report.read_text(encoding="utf-8"))
    form = stored("schema.json")
    assert faults(document, form, form) == []
    assert document["run"]["steps"] == 40
    said = document["run"]["message"]
    assert said == "replayed a plan of 2 remedies; nothing in this run could take FusedOptimizer()"


@pytest.mark.slow
def test_a_plan_is_of_the_machine_before_the_script_changes_it(tmp_path: Path) -> None:
    """A script may set its own number of threads, and cores; neither makes its plan another machine's."""
    script, plan = tmp_path / "train.py", tmp_path / "plan.json"
    change = 'import os\nos.environ["OMP_NUM_THREADS"] = "1"\nos.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n'
    script.write_text(change + TAKES_NOTHING.replace("Rprop", "Adam").replace("40", "400"), encoding="utf-8")
    ran("-m", "hasten", "run", "--budget", "5", "--save-plan", str(plan), str(script))
    assert "OMP_NUM_THREADS" not in Plan.load(plan).machine
    ran("-m", "hasten", "run", "--plan", str(plan), str(script))


SHORT = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(60):
    optimizer.zero_grad()
    model(torch.ones(4, 8)).square().mean().backward()
    optimizer.step()
print("compiled", model._compiled_call_impl is not None)
"""


def compiled_late(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[str, str]:
    """What a script prints with a plan that compiles, of which nothing is compiled yet, and what hasten says of it."""
    monkeypatch.setenv("HASTEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    script, report = tmp_path / "train.py", tmp_path / "report.json"
    script.write_text(text, encoding="utf-8")
    steps = (Step("Compile", {}, "equivalent", ratio=Interval(1.5, 1.4, 1.6)),)
    Plan(str(script), sha256_of_file(script), machine.versions(), machine.machine(), steps).save(tmp_path / "plan.json")
    plan = ["--plan", str(tmp_path / "plan.json"), "--json", str(report)]
    out = ran("-m", "hasten", "run", *plan, str(script), *args)
    return out, json.loads(report.read_text(encoding="utf-8"))["run"]["message"]


def test_what_starts_late_waits_where_the_job_is_too_short_to_repay_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = compiled_late(SHORT, tmp_path, monkeypatch)
    assert out == "compiled False\n"
    assert re.search(r"Compile\(\) waits for a longer run: the \d+ s left do not repay its start of \d+ s$", said)


@pytest.mark.parametrize(
    ("steps", "ratio", "code", "waits"),
    [
        (1000, 1.5, True, "for a longer run"),  # 10 s, a third of which is spared: 3.3 s of 4
        (1300, 1.5, True, ""),
        (1300, 1.5, False, "for a longer run"),  # compiled anew: 40 s
        (-1, 1.5, True, "starts after 12 s of training"),  # of unknown length
        (-1, 1.5, False, "starts after 120 s of training"),
        (-1, None, True, "starts after 8 s of training"),  # written by hand
        (100, None, True, "for a longer run"),
        (500, None, True, ""),
    ],
)
def test_a_start_is_weighed_against_the_rest_of_the_job(
    steps: int, ratio: float | None, code: bool, waits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside.schedule, "expected", lambda watch: (steps, ""))
    monkeypatch.setattr(inside.compiled, "found", lambda plan: code)
    monkeypatch.setattr(inside.compiled, "started", lambda plan: None)
    recent = [(900_000_000,), (10_000_000,)]
    watch = SimpleNamespace(steps=2, recent=lambda count: recent, torch_started=0, torch_imported=1_500_000_000)
    waiting = SimpleNamespace(passed=0.9, add=lambda after, step: added.append(step))
    runner: Any = SimpleNamespace(
        watch=watch, waiting=waiting, outcome=Outcome(plan=Plan("", "", {}, {}), message="replayed")
    )
    late, added = Step("Compile", {}, "equivalent", ratio=ratio and Interval.exact(ratio)), []
    now = inside.Runner._weighed(runner, [(late, hasten.Compile())], gained=1.5)
    assert now == (() if waits else (late,))
    assert added == ([late] if "starts" in waits else [])
    assert waits in runner.outcome.message and ("Compile()" in runner.outcome.message) is bool(waits)


ENDLESS = """
import sys
import torch
from hasten.rules.m302_eager import Compile
Compile.one_off_seconds = float(sys.argv[1])
Compile.on = lambda self, target: vars(target).update(begun=True) or (lambda: None)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
without = 0
while "begun" not in vars(model) and without < float(sys.argv[2]):
    optimizer.zero_grad()
    model(torch.ones(4, 8)).square().mean().backward()
    optimizer.step()
    without += 1
print("begun", "begun" in vars(model), without > 20)
"""


@pytest.mark.parametrize(("start", "limit", "said"), [("0.01", "inf", "True True"), ("1000", "300", "False True")])
def test_in_a_job_of_unknown_length_it_starts_between_two_steps_once_it_pays(
    start: str, limit: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, message = compiled_late(ENDLESS, tmp_path, monkeypatch, start, limit)
    assert out == f"begun {said}\n"
    assert re.search(r"Compile\(\) starts after \d+ s of training: a job of unknown length", message)

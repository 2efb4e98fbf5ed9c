"""A replayed plan is watched for a moment only; afterwards next to nothing stands between the script and torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hasten.core.plan import Plan, Step, sha256_of_file
from hasten.measure import machine
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


@pytest.mark.parametrize("remedies", [(), ("BatchedFetch",)])
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

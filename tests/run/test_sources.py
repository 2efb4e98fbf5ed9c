"""A plan knows the modules that its script imports, and the types of its settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hasten.core.plan import Plan, Step, sha256_of_file
from hasten.measure import machine
from tests.scripts.lab import LIMIT, SOURCE

TRAIN = """\
import sys
sys.path.insert(0, "lib")
import time, torch, helper, below.inner
from torch.utils.data import DataLoader
net = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(400):
    optimizer.zero_grad()
    net(helper.batch()).mean().backward()
    optimizer.step()
    time.sleep(0.01)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, text in {
        "train.py": TRAIN,
        "helper.py": "import torch\ndef batch():\n    return torch.ones(8, 4)\n",
        "below/__init__.py": "",
        "below/inner.py": "x = 1\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hasten", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, env=env)


def test_a_plan_is_refused_where_a_helper_changed(folder: Path) -> None:
    made = ran(folder, "run", "--budget", "3", "--save-plan", "p.json", "train.py")
    assert made.returncode == 0, made.stderr
    assert set(Plan.load(folder / "p.json").sources) == {"helper.py", "below/__init__.py", "below/inner.py"}
    (folder / "below" / "inner.py").write_text("x = 2\n", encoding="utf-8")
    refused = ran(folder, "run", "--plan", "p.json", "train.py")
    assert refused.returncode == 2
    assert "below/inner.py changed" in refused.stderr


@pytest.mark.parametrize("workers", ["two", 1.5, None])
def test_a_setting_of_another_type_is_refused(folder: Path, workers: object) -> None:
    steps = (Step("LoaderWorkers", {"workers": workers}, "identical"),)
    script = str(folder / "train.py")
    here = {**machine.machine(), "OMP_NUM_THREADS": "1"}
    plan = Plan("train.py", sha256_of_file(script), machine.versions(), here, steps)
    plan.save(folder / "p.json")
    refused = ran(folder, "run", "--plan", "p.json", "train.py")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr and "LoaderWorkers" in refused.stderr


def test_a_module_that_the_run_itself_wrote_is_no_source(folder: Path) -> None:
    text = "open('made.py', 'w').close()\nimport sys; sys.path.insert(0, '.'); import made\n"
    (folder / "helper.py").write_text(text + (folder / "helper.py").read_text(encoding="utf-8"), encoding="utf-8")
    assert ran(folder, "run", "--budget", "3", "--save-plan", "p.json", "train.py").returncode == 0
    assert "made.py" not in Plan.load(folder / "p.json").sources


@pytest.mark.parametrize("words", [("-m", "jobs.train"), pytest.param(("jobs",), marks=pytest.mark.slow)])
def test_a_plan_is_refused_where_the_module_or_folder_that_is_run_changed(folder: Path, words: tuple[str, ...]) -> None:
    jobs = folder / "jobs"
    jobs.mkdir()
    (folder / "helper.py").rename(jobs / "helper.py")
    (jobs / "below").mkdir()
    (jobs / "below" / "inner.py").touch()
    main = jobs / ("train.py" if words[0] == "-m" else "__main__.py")
    main.write_text(f"import sys\nsys.path.insert(0, {str(jobs)!r})\n{TRAIN}", encoding="utf-8")
    made = ran(folder, "run", "--budget", "3", "--save-plan", "p.json", *words)
    assert made.returncode == 0, made.stderr
    plan = Plan.load(folder / "p.json")
    assert f"jobs/{main.name}" in plan.sources
    assert ran(folder, "run", "--plan", "p.json", *words).returncode == 0
    other = ran(folder, "run", "--plan", "p.json", "-m", "below.inner")
    assert other.returncode == 2 and f"the plan is one for {words[-1]}" in other.stderr
    main.write_text(main.read_text(encoding="utf-8") + "# another learning rate\n", encoding="utf-8")
    refused = ran(folder, "run", "--plan", "p.json", *words)
    assert refused.returncode == 2
    assert f"jobs/{main.name} changed" in refused.stderr

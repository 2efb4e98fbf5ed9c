"""Features of a frozen part are kept, proved and replayed; a part that learns after all learns as without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hasten.core.plan import Plan
from hasten.measure.machine import cores

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "scripts" / "frozen.py"
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def lines(*command: str) -> list[list[float]]:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=ENV, timeout=300)
    assert done.returncode == 0, done.stderr
    return [[float(word) for word in line.split()] for line in done.stdout.splitlines()]


def kept(folder: Path, *ways: str) -> tuple[str, list[list[float]]]:
    """What is cached, and what the script prints with it, from the search and from the plan."""
    options = ["--budget", "30", "--only", "CacheFeatures", "--strict", "--quiet"]
    plan = folder / "plan.json"
    found = lines("-m", "hasten", "run", *options, "--save-plan", str(plan), str(SCRIPT), *ways)
    (step,) = Plan.load(plan).steps
    again = lines("-m", "hasten", "run", "--plan", str(plan), "--quiet", str(SCRIPT), *ways)
    assert again == [pytest.approx(line, rel=1e-4) for line in found]
    assert step.ratio is not None and step.ratio.low > 1
    return str(step), found


@pytest.mark.skipif(cores() < 2, reason="a trial beside others")
def test_a_frozen_part_is_asked_once_for_each_sample(tmp_path: Path) -> None:
    step, found = kept(tmp_path)
    assert step == "CacheFeatures(body)"
    assert found == [pytest.approx(line, rel=1e-4) for line in lines(str(SCRIPT))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "module"), [("beside", "Sequential[10208]"), ("unfreezes", "body"), ("workers", "body")]
)
def test_whatever_it_is_called_by_it_learns_the_same(way: str, module: str, tmp_path: Path) -> None:
    """A part that is unfrozen learns by a fused optimizer, which counts no changes, and is frozen again."""
    step, found = kept(tmp_path, way)
    assert step == f"CacheFeatures({module})"
    assert found == [pytest.approx(line, rel=1e-3) for line in lines(str(SCRIPT), way)]

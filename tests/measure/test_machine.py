"""What the machine is said to have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hasten.measure import machine

CODE = """
import resource, sys
from hasten.measure import machine
kind, bound = getattr(resource, sys.argv[1]), int(sys.argv[2])
resource.setrlimit(kind, (bound, resource.getrlimit(kind)[1]))
print(machine.available_bytes())
"""


def available(kind: str, bound: int) -> int:
    words = [sys.executable, "-c", CODE, kind, str(bound)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_a_limit_of_the_process_bounds_the_memory_that_can_be_taken() -> None:
    assert machine.available_bytes() > 0
    for kind in ("RLIMIT_DATA", "RLIMIT_AS"):
        assert available(kind, 200 << 20) <= 200 << 20


@pytest.mark.parametrize(("name", "told"), [
    ("AMD EPYC", "AMD EPYC (family 26, model 2)"),
    ("Intel(R) Xeon(R) Platinum 8488C", "Intel(R) Xeon(R) Platinum 8488C"),
])  # fmt: skip
def test_a_name_without_a_number_is_told_apart(name: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual machines on two generations of processors may give the same name."""
    text = f"processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: {name}\n\nprocessor\t: 1\nmodel\t\t: 3\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert machine.cpu_model() == told


def test_threads_that_the_environment_asks_for_are_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.machine()["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert "OMP_NUM_THREADS" not in machine.machine()

"""What the machine is said to have."""

from __future__ import annotations

import subprocess
import sys

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

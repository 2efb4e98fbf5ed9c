"""The quick tests, in two halves at once: one alone keeps less than two cores busy.

    python -m tests.halves

Tests that time something do so in pairs, and hold on a busy machine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
HALF = ("cli", "core", "explain", "measure", "native", "report", "run", "seams")  # about as long as all others
PYTEST = (sys.executable, "-m", "pytest", "-m", "not slow", "--durations=12")


def main() -> int:
    """Exit code: 0 where both halves pass, else 1."""
    folders = [f"tests/{name}" for name in HALF]
    rest = [f"--ignore={folder}" for folder in folders]
    print(f"== two halves at once; what {', '.join(folders)} come to is shown at the end", flush=True)
    with tempfile.TemporaryFile("w+") as said:
        beside = subprocess.Popen([*PYTEST, "-p", "no:cacheprovider", *folders], cwd=ROOT, stdout=said, stderr=said)
        try:
            codes = [subprocess.call([*PYTEST, *rest], cwd=ROOT), beside.wait()]
        finally:
            beside.kill()
            beside.wait()
        said.seek(0)
        print(said.read(), flush=True)
    return int(any(codes))  # of one that was killed it is below nought


if __name__ == "__main__":
    sys.exit(main())

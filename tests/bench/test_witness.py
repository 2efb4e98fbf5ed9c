"""The witness sees a script's steps however the script comes to its torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WITNESS = Path(__file__).parents[2] / "bench" / "witness"
TRAINING = """
import torch
p = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([p], lr=0.1)
for _ in range(9):
    optimizer.zero_grad()
    p.sum().backward()
    optimizer.step()
"""


@pytest.mark.parametrize("before", ["", "import importlib.util; importlib.util.find_spec('torch')"])
def test_steps_are_counted_and_ended(tmp_path: Path, before: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(WITNESS), "WITNESS": str(tmp_path), "WITNESS_STEPS": "5"}
    subprocess.run([sys.executable, "-c", before + TRAINING], env=env, check=True)
    told = [json.loads(p.read_text(encoding="utf-8")) for p in tmp_path.glob("*.json")]
    assert [(t["steps"], t["stopped"]) for t in told] == [(5, True)]

"""What ``explain`` has seen outlives the script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.test_main import ENVIRONMENT


def test_a_script_that_is_killed_while_ceilings_are_measured_is_explained(tmp_path: Path) -> None:
    """Copies need memory, too, and a cluster's time limit comes when it comes; what was seen is not lost."""
    text = """
import os, time, torch
from pathlib import Path
Path("pid").write_text(str(os.getpid()))
class Rows(torch.utils.data.Dataset):
    def __len__(self): return 1_000_000
    def __getitem__(self, i):
        time.sleep(0.001)
        return torch.ones(8)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for x in torch.utils.data.DataLoader(Rows(), batch_size=4):
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
"""
    (tmp_path / "t.py").write_text(text)
    words = [sys.executable, "-m", "hasten", "explain", "t.py"]
    with subprocess.Popen(words, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        give_up = time.monotonic() + 100
        while not _copied(tmp_path / "pid") and time.monotonic() < give_up:
            time.sleep(0.01)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert "enough was seen" not in said and "the script was ended by SIGKILL" in said
    assert "where the time goes" in said and "fetch a batch" in said


def _copied(file: Path) -> bool:
    """Whether the process whose number a file holds has children."""
    pid = file.read_text() if file.exists() else ""
    return bool(pid) and Path(f"/proc/{pid}/task/{pid}/children").read_text() != ""

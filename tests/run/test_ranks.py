"""``torchrun``: every rank is watched, none is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasten.api import run
from hasten.seams.reducer import WAITS

SCRIPT = Path(__file__).parents[1] / "scripts" / "two_ranks.py"


@pytest.mark.slow
def test_ranks_of_a_group_are_watched_and_left_alone() -> None:
    result = run("torch.distributed.run", ["--standalone", "--nproc_per_node", "2", str(SCRIPT)], module=True, budget=5)
    assert result.exit_code == 0
    assert result.report.trace is not None and result.report.trace.steps > 20
    assert result.report.other_processes == 1
    backward = next(p for p in result.report.trace.phases if p.name == "backward")
    assert WAITS in [part.name for part in backward.children]
    assert not result.trials
    assert "group" in result.message

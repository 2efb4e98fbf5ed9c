"""Autocast on a processor without units for 16 bits is told with the line that asks for it."""

from __future__ import annotations

import dataclasses
import subprocess
import textwrap
from pathlib import Path

from hasten.api import explain
from tests.rules.test_judgements import found

SCRIPT = """
    import torch
    from torch import nn

    torch.set_num_threads(1)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    sgd = torch.optim.SGD(net.parameters(), 1e-3)
    for step in range(40):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = net(torch.randn(32, 64)).square().mean()
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    """


def test_the_line_that_asks_for_autocast_is_told(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    report = explain(path, ceilings=False, stdout=subprocess.DEVNULL)
    assert report.trace is not None and report.trace.process.autocast
    without, with_ = (
        dataclasses.replace(report.trace, process=dataclasses.replace(report.trace.process, bfloat16_units=units))
        for units in (False, True)
    )
    (finding,) = found("M313", without)
    assert finding.place is not None and 'torch.autocast("cpu"' in finding.place.text
    assert not found("M313", with_)

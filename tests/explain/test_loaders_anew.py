"""A loader that every epoch makes anew starts its workers anew: told, and only then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hasten.api import explain

SCRIPT = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def passes(loader):
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()

torch.set_num_threads(1)
data = TensorDataset(torch.randn(64, 8), torch.randn(64, 1))
model = nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
made = DataLoader(data, batch_size=16, num_workers=1, persistent_workers=True)
for epoch in range(12):
    passes({loader})
"""


@pytest.mark.parametrize("anew", [True, False])
def test_workers_of_loaders_made_anew_are_told(anew: bool, tmp_path: Path) -> None:
    loader = "DataLoader(data, batch_size=16, num_workers=1)" if anew else "made"
    path = tmp_path / "train.py"
    path.write_text(SCRIPT.replace("{loader}", loader), encoding="utf-8")
    report = explain(str(path), stdout=subprocess.DEVNULL, ceilings=False)
    found = [f for f in report.findings if f.code == "D105"]
    assert bool(found) is anew
    if found:
        (finding,) = found
        assert finding.place is not None and finding.place.text.strip() == "for x, y in loader:"
        assert finding.label.startswith("12 loaders") and "once, before the loop" in finding.advice
        assert finding.predicted.high > 2 > finding.predicted.low > 1 and not finding.remedies

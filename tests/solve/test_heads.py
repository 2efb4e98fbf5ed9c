"""Heads leave all but their layer as it was, whatever the network does while it trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hasten.solve import BadData, head
from tests.solve.data import table


class Backbone(nn.Module):
    """With everything that behaves otherwise while training; its normalisation stays frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5))
        self.frozen = nn.BatchNorm1d(16).eval()
        self.fc = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.fc(self.frozen(self.body(x)))
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_changes_nothing_but_its_layer(dtype: torch.dtype) -> None:
    X, y = table(200, 4)
    rows = TensorDataset(torch.from_numpy(X).to(dtype), torch.from_numpy((y > 3).astype(int)))
    model = Backbone().to(dtype)
    modes = [m.training for m in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = head(model, DataLoader(rows, batch_size=50))
    assert [m.training for m in model.modules()] == modes and model.training and not model.frozen.training
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"} and all(p.grad is None for p in model.parameters())
    again = head(model, DataLoader(rows, batch_size=200))  # without dropout: the same features
    assert np.allclose(again.cached[0], found.cached[0], atol=1e-2 if dtype == torch.bfloat16 else 1e-5)
    targets = TensorDataset(rows.tensors[0], torch.from_numpy(np.stack([y, -y], axis=1)).to(dtype))
    assert np.isfinite(head(model, DataLoader(targets, batch_size=50)).score)
    with pytest.raises(BadData, match="one row"):
        head(model, [(rows.tensors[0][:1], rows.tensors[1][:1])])


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.fc(input=x)
        return found


def test_a_layer_may_be_called_by_name() -> None:
    X, y = table(100, 4)
    rows = TensorDataset(torch.from_numpy(X).float(), torch.from_numpy((y > 3).astype(int)))
    assert head(Named(), DataLoader(rows, batch_size=50)).score > 0.7

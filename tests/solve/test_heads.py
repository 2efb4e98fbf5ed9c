"""Heads leave all but their layer as it was, whatever the network does while it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_binary_labels_may_be_a_column(shape: tuple[int, ...]) -> None:
    X, y = table(100, 4)
    labels = torch.from_numpy((y > 3).astype(int)).reshape(shape)
    model = nn.Sequential(nn.Linear(4, 1))
    found = head(model, DataLoader(TensorDataset(torch.from_numpy(X).float(), labels), batch_size=30))
    right = (model(torch.from_numpy(X).float())[:, 0] > 0) == (labels.reshape(-1) > 0)
    assert found.score > 0.8 and float(right.float().mean()) > 0.8


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (lambda y: np.stack([y > 3, y <= 3], axis=1).astype(int), r"shape \(100, 2\)\n.*\n.*argmax"),
        (lambda y: np.where(y > 3, 1, -100), r"from -100 to 1 for 2 outputs\n.*leaves out"),
    ],
)
def test_labels_that_are_none_say_what_they_may_be(labels: Callable[[Any], Any], says: str) -> None:
    X, y = table(100, 4)
    rows = TensorDataset(torch.from_numpy(X).float(), torch.from_numpy(labels(y)))
    with pytest.raises(BadData, match=says):
        head(nn.Linear(4, 2), DataLoader(rows, batch_size=30))

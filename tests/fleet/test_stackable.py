"""A module in a form that can be stacked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hasten.fleet import modules
from hasten.fleet.stackable import CannotStack, stackable


def test_a_module_is_copied_once_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    met, right = [], copy.deepcopy
    parts = [nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1), nn.Linear(4, 4)]

    def deepcopy(value: Any, *given: Any) -> Any:
        met.append(value)
        return right(value, *given)

    monkeypatch.setattr(modules.copy, "deepcopy", deepcopy)
    module = nn.Sequential(*parts, parts[0])
    made = stackable(module)
    assert sum(value is module for value in met) == 1 and len([v for v in met if isinstance(v, nn.Sequential)]) == 1
    assert made[0] is made[4] and [type(part).__name__ for part in made] == [
        "StackLinear", "StackBatchNorm", "StackDropout", "StackLinear", "StackLinear",
    ]  # fmt: skip


def test_an_instance_norm_that_keeps_statistics_is_not_stacked() -> None:
    """A short last batch is padded, and what pads it must not be counted."""
    with pytest.raises(CannotStack, match="InstanceNorm1d keeps running statistics"):
        stackable(nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True)))
    flat = stackable(nn.InstanceNorm1d(3))
    with pytest.raises(CannotStack, match="no batch of samples"):
        flat(torch.zeros(5, 3))

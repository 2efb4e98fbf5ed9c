"""A module in a form that can be stacked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from torch import nn

from hasten.fleet import modules
from hasten.fleet.stackable import stackable


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

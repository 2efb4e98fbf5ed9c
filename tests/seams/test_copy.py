"""Copies of batches that a loader has pinned do not wait; others do, as the script has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data._utils import pin_memory

from hasten.seams.copy import asynchronous


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What copies are asked with, on machines without a device: pinning gives another tensor."""
    found: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, device=None: self.clone())  # torch 2.6 gives a device
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **kwargs: found.append((args, kwargs)))
    return found


def test_only_what_a_loader_pinned_is_copied_without_waiting(asked: list[Any]) -> None:
    plain = torch.Tensor.to
    undo, again = asynchronous(), asynchronous()
    batch = pin_memory.pin_memory({"x": torch.ones(2)})
    staging = torch.ones(2).pin_memory()
    batch["x"].to("cuda")
    batch["x"].to("cuda", torch.float64, False)
    staging.to("cuda")
    assert asked == [(("cuda",), {"non_blocking": True}), (("cuda", torch.float64, False), {}), (("cuda",), {})]
    again()
    assert torch.Tensor.to is not plain
    undo()
    assert torch.Tensor.to is plain

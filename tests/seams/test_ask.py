"""Datasets are asked as long as the script may be held up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hasten.core.facts import Probe
from hasten.seams import ask
from hasten.seams.watch import Watch


@pytest.mark.parametrize(("seconds", "asked"), [(0.1, 10), (1.0, 6), (60.0, 1)])
def test_of_many_loaders_those_are_asked_that_training_waits_for_most(
    monkeypatch: pytest.MonkeyPatch, seconds: float, asked: int
) -> None:
    now = 0.0
    monkeypatch.setattr(ask.time, "monotonic", lambda: now)
    watch, order = Watch(), []
    loaders = [DataLoader(TensorDataset(torch.zeros(4))) for _ in range(10)]
    for i, loader in enumerate(loaders):
        record = watch.record_of(loader)
        record.batches, record.fetched, record.role = 1, i, "training" if i % 2 else "evaluation"

    def examine(_dataset: Any, loader: Any) -> Probe:
        nonlocal now
        now += seconds
        order.append(loaders.index(loader))
        return Probe()

    found = ask.probes_of(watch, examine)
    assert order == [9, 7, 5, 3, 1, 8, 6, 4, 2, 0][:asked]
    assert set(found) == {id(loaders[i]) for i in order}

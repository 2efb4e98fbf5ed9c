"""Remedies for what appears while the script runs: nothing is kept alive by them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

import hasten
from hasten.seams.apply import Switchboard
from hasten.seams.forward import ForwardSeam
from hasten.seams.watch import Watch


def test_datasets_of_folds_go_with_their_passes(seam: ForwardSeam) -> None:
    watch = Watch()
    board = Switchboard(watch, seam)
    board.on(hasten.BatchedFetch(), required=False)

    def fold() -> Any:
        data = TensorDataset(torch.arange(8))
        iterator = iter(DataLoader(data, batch_size=4))
        assert watch.new_target is not None
        watch.new_target("fetcher", iterator._dataset_fetcher)  # type: ignore[attr-defined]
        assert torch.cat([batch for (batch,) in iterator]).tolist() == list(range(8))
        return weakref.ref(data)

    gone = fold()
    gc.collect()
    assert gone() is None

"""What asking a dataset tells of the time that samples, collating them and looking for changes take."""

from __future__ import annotations

import math
import time
from typing import Any

from torch.utils.data import DataLoader, Dataset

from hasten.data.probe import probe


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> int:
        time.sleep(0.001)
        return i


def slowly(items: list[Any]) -> list[Any]:
    time.sleep(0.003 * len(items))
    return items


def test_collating_takes_its_own_share() -> None:
    found = probe(Rows(), DataLoader(Rows(), batch_size=8, collate_fn=slowly))
    assert found.deterministic and 0.003 <= found.collate_seconds < 0.01
    assert found.made_share(found.seconds) < 0.6
    assert 0 < found.check_seconds < 0.1


def test_nothing_is_said_of_collating_that_cannot_be_asked() -> None:
    def fails(items: list[Any]) -> Any:
        raise ValueError

    assert math.isnan(probe(Rows()).collate_seconds)
    assert math.isnan(probe(Rows(), DataLoader(Rows(), batch_size=None)).collate_seconds)
    assert math.isnan(probe(Rows(), DataLoader(Rows(), batch_size=8, collate_fn=fails)).collate_seconds)


class ManyRows(Rows):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, i: int) -> int:
        time.sleep(0.005)
        return i


def test_what_a_pass_begins_with_is_a_part_of_looking_for_changes() -> None:
    """Of 400 samples two are made anew and compared; in a pass of two batches that is one for each."""
    whole, parts = (probe(ManyRows(), DataLoader(ManyRows(), batch_size=n)).check_seconds for n in (200, 20))
    assert whole > 0.005 and parts > 0.0005

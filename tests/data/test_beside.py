"""What other ways to make a batch take, beside making it sample by sample."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hasten.data.beside import cached, gathered
from hasten.data.probe import probe


def rows() -> TensorDataset:
    return TensorDataset(torch.arange(80_000.0).view(2000, 40), torch.arange(2000))


class Slow(Dataset[Any]):
    """Samples that take far longer than what keeps them."""

    def __len__(self) -> int:
        return 5000

    def __getitem__(self, i: int) -> torch.Tensor:
        time.sleep(0.002)
        return torch.full((8,), i)


class Cheap(Dataset[Any]):
    """Samples that are there already: a cache has to copy what these only hand out."""

    def __init__(self) -> None:
        self.same = torch.zeros(4)

    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.same


def test_a_gather_is_timed_on_the_dataset_itself() -> None:
    found = gathered(rows(), DataLoader(rows(), batch_size=256, shuffle=True), 1e-5)
    assert found is not None and 0 < found.low <= found.value <= found.high < 0.5


def test_what_cannot_be_gathered_or_kept_is_not_told() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(range(9))

    assert gathered(Slow(), DataLoader(Slow(), 4), 1e-3) is None
    assert gathered(Stream(), DataLoader(Stream(), 4), 1e-3) is None
    assert cached(Stream(), DataLoader(Stream(), 4), 1e-3) is None
    assert gathered(rows(), DataLoader(rows(), batch_size=None), 1e-5) is None


def test_a_cache_is_timed_and_may_take_longer_than_the_samples() -> None:
    slow, cheap = (cached(d, DataLoader(d, n), s) for d, n, s in ((Slow(), 16, 2e-3), (Cheap(), 1, 1e-6)))
    assert slow is not None and slow.high < 0.5
    assert cheap is not None and cheap.high > 1 > 10 * slow.high


def test_asking_touches_no_random_state_and_no_number_of_threads() -> None:
    torch.manual_seed(7)
    expected, threads = torch.rand(4), torch.get_num_threads()
    torch.manual_seed(7)
    found = probe(rows(), DataLoader(rows(), batch_size=64, shuffle=True))
    assert found.gathered is not None and found.cached is not None
    assert torch.equal(torch.rand(4), expected) and torch.get_num_threads() == threads

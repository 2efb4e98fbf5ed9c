"""Row numbers as tensors: torch's own order and draws, whether a pass is gone through or left early."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

import hasten
from hasten.data.rows import row_batches, torchs_own
from tests.data.common import passes


def taken(batches: Any, most: int | None, generator: torch.Generator | None) -> Any:
    """The first batches, as lists, and the random states afterwards."""
    first = [[int(i) for i in b] for b in itertools.islice(batches, most)]
    return first, torch.get_rng_state().tolist(), generator.get_state().tolist() if generator is not None else None


@given(
    length=st.integers(1, 20),
    size=st.integers(1, 9),
    drop_last=st.booleans(),
    shuffled=st.booleans(),
    own=st.booleans(),
    most=st.none() | st.integers(0, 5),
    as_tensors=st.booleans(),
)
def test_as_torch_gives_them(
    length: int, size: int, drop_last: bool, shuffled: bool, own: bool, most: int | None, as_tensors: bool
) -> None:
    found = []
    for ours in (False, True):
        torch.manual_seed(length)
        generator = torch.Generator().manual_seed(size) if own else None
        rows = RandomSampler(range(length), generator=generator) if shuffled else SequentialSampler(range(length))
        sampler = BatchSampler(rows, size, drop_last)
        assert torchs_own(sampler)
        batches = row_batches(sampler, lambda: as_tensors) if ours else iter(sampler)
        found.append([taken(batches, most, generator), taken(batches, most, generator)])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "rows",
    [
        RandomSampler(range(5), replacement=True),
        RandomSampler(range(5), num_samples=7),
        type("Own", (RandomSampler,), {})(range(5)),
        range(5),
    ],
)
def test_other_samplers_are_left_alone(rows: Any) -> None:
    assert not torchs_own(BatchSampler(rows, 2, False))
    assert not torchs_own([[0, 1], [2]])


def test_within_a_pass_gathering_may_end_and_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is off, the dataset is asked for numbers of Python's, as ever."""
    asked: list[Any] = []
    original = TensorDataset.__getitem__
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda self, i: asked.append(i) or original(self, i))
    loader = DataLoader(TensorDataset(torch.arange(60), torch.arange(60.0)), 4, shuffle=True)
    remedy = hasten.BatchedFetch()

    class Alternating:
        def __iter__(self) -> Iterator[Any]:
            iterator: Any = iter(loader)
            undo = remedy.on(iterator._dataset_fetcher)
            remedy.with_iterator(iterator)
            for number, batch in enumerate(iterator):
                yield batch
                if number % 2:
                    undo = remedy.on(iterator._dataset_fetcher)
                else:
                    undo()

    expected = passes(loader, 1)
    asked.clear()
    assert passes(Alternating(), 1) == expected
    assert len(asked) == 28 and all(type(index) is int for index in asked)

"""When batches are taken ahead from a loader's workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hasten.seams.batches import Batches
from hasten.seams.record import MOST_BATCHES, may_wait, record_batches

BATCHES = 16


def watch_of(loader: Any, iterator: Any) -> Any:
    record = SimpleNamespace(iterator=iterator, loader=lambda: loader, role="training")
    return SimpleNamespace(
        trained_from=record, replay=None, serve=None, new_pass=None, fetch=lambda it: next(it), iterators={}
    )


@pytest.mark.parametrize("given", [False, True])
def test_trials_wait_while_an_epoch_ends(given: bool) -> None:
    """Every step of an epoch at which trials may begin has batches enough; the last ones do not."""
    data = TensorDataset(torch.arange(2.0 * BATCHES))
    generator = torch.Generator().manual_seed(0) if given else None
    loader = DataLoader(data, 2, shuffle=True, num_workers=1, generator=generator)
    iterator: Any = iter(loader)
    waits = []
    for _ in range(BATCHES):
        next(iterator)
        waits.append(may_wait(watch_of(loader, iterator)))
    first = waits.index(True)
    assert waits == [False] * first + [True] * (BATCHES - first)
    again: Any = iter(loader)
    for _ in range(first):
        next(again)
    watch = watch_of(loader, again)
    drawn = generator.get_state() if generator is not None else torch.empty(0)
    taken = record_batches(watch)
    assert taken is not None and len(taken) >= min(MOST_BATCHES, BATCHES // 2) - 2
    assert generator is None or torch.equal(drawn, generator.get_state())


def test_a_child_begins_anew_without_the_workers() -> None:
    """A loop that is left and entered again gets recorded batches; one that must end asks the loader itself."""
    watch = watch_of(None, iterator := object())
    record = watch.trained_from
    watch.iterators[iterator] = record
    Batches(watch, deque(range(2))).take_over()
    assert watch.new_pass(record) is iterator
    assert [watch.serve(iterator, None) for _ in range(5)] == [0, 1, 0, 1, 0]
    for batches in (Batches(watch, deque(range(2)), endless=False), Batches(watch, None)):
        batches.take_over()
        assert watch.new_pass(record) is None


def test_a_child_whose_recorded_batches_are_used_up_is_done() -> None:
    """It went on through empty passes, starting workers for each, until the script ended or its parent gave it up."""

    class Gone(BaseException):
        pass

    class Sender:
        def leave(self) -> None:
            raise Gone

    watch = watch_of(None, iterator := object())
    watch.driver = SimpleNamespace(sender=Sender())
    watch.iterators[iterator] = watch.trained_from
    Batches(watch, deque(range(2)), endless=False).take_over()
    assert [watch.serve(iterator, None) for _ in range(2)] == [0, 1]
    with pytest.raises(Gone):
        watch.serve(iterator, None)


class Drawing:
    """A sampler that draws each time it is asked."""

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(8).tolist())

    def __len__(self) -> int:
        return 8


@pytest.mark.parametrize("sampler", [None, Drawing()])
def test_workers_that_outlive_their_passes_are_replaced_without_a_draw(sampler: Any) -> None:
    loader: Any = DataLoader(
        TensorDataset(torch.arange(8)), 2, sampler is None, sampler, num_workers=1, persistent_workers=True
    )
    list(loader)
    before, theirs = torch.get_rng_state(), loader._iterator
    expected = [batch.tolist() for (batch,) in loader]
    drawn = torch.get_rng_state()
    torch.set_rng_state(before)
    watch = watch_of(loader, theirs)
    fresh = Batches(watch, None).renew(theirs, loader, watch.trained_from)
    assert [batch.tolist() for (batch,) in fresh] == expected and torch.equal(torch.get_rng_state(), drawn)
    assert loader._iterator is fresh is not theirs

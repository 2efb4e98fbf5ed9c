"""When batches are taken ahead from a loader's workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info

from hasten.seams.batches import Ahead, Batches
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


class Count(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return iter(range(0 if worker is None else worker.id, 60, 1 if worker is None else worker.num_workers))


def test_what_an_iterable_dataset_gives_is_taken_ahead_and_served_in_its_order() -> None:
    """It was refused as a sampler of unknown kind, and no remedy could be tried where data are streamed by workers."""
    loader = DataLoader(Count(), batch_size=2, num_workers=2)
    alone = [row.tolist() for row in loader]
    iterator: Any = iter(loader)
    got = [next(iterator).tolist()]
    watch = watch_of(loader, iterator)
    assert not may_wait(watch)
    state = torch.random.get_rng_state()
    taken = record_batches(watch)
    assert taken is not None and len(taken) == MOST_BATCHES
    assert torch.equal(state, torch.random.get_rng_state())
    while True:
        try:
            got.append(watch.serve(iterator, next).tolist())
        except StopIteration:
            break
    assert got == alone


def test_what_ends_while_it_is_taken_ahead_ends_where_it_would() -> None:
    loader = DataLoader(Count(), batch_size=10, num_workers=2)
    alone = [row.tolist() for row in loader]
    iterator: Any = iter(loader)
    watch = watch_of(loader, iterator)
    taken = record_batches(watch)
    assert taken is not None and len(taken) == len(alone) < MOST_BATCHES
    assert [watch.serve(iterator, next).tolist() for _ in alone] == alone
    with pytest.raises(StopIteration):
        watch.serve(iterator, next)


@pytest.mark.parametrize(("batches", "depth"), [(1.0, 2), (4.0, 4), (3.9, 4)])
def test_as_many_batches_are_made_ahead_as_a_step_takes(batches: float, depth: int) -> None:
    """Of four batches whose gradients are accumulated two were made while the step was timed, and a cache seemed to
    take longer than the dataset."""

    class Cache:
        made: ClassVar[list[Any]] = []

        def ahead(self, _fetcher: Any, indices: Any) -> None:
            self.made.append(indices)

    loader = DataLoader(TensorDataset(torch.arange(32.0)), 2)
    watch = watch_of(loader, iter(loader))
    watch.batches = batches
    cache = Cache()
    cache.made.clear()
    ahead = Ahead(watch, Batches(watch, None), [cache])
    ahead()
    assert len(cache.made) == depth
    for _ in range(round(batches)):
        next(watch.trained_from.iterator)
    ahead()
    assert len(cache.made) == depth + round(batches)

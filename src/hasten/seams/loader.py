"""Where batches are asked for."""

from __future__ import annotations

import sys
import threading
from typing import Any

from hasten.measure.clock import EVALUATION, INDEX
from hasten.seams.known import LoaderRecord
from hasten.seams.locate import user_frame
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

FETCH = INDEX["fetch"]
START = INDEX["loader start"]
_get_frame = sys._getframe


def install(watch: Watch, patches: Patches) -> None:
    """Wrap making an iterator, asking it for a batch, ending its workers, and making a fetcher (in workers, too).

    These stay for good: batches that were taken from workers ahead of a trial are handed out by the second of them.
    """
    from torch.utils.data import DataLoader
    from torch.utils.data import dataloader as module

    base = module._BaseDataLoaderIter
    patches.set(DataLoader, "__iter__", _iter(watch, DataLoader.__iter__))
    watch.fetch = base.__next__
    patches.set(base, "__next__", _next(watch, base.__next__))
    workers = module._MultiProcessingDataLoaderIter
    patches.set(workers, "_shutdown_workers", _end(watch, workers._shutdown_workers))
    original = module._DatasetKind.create_fetcher

    def create_fetcher(*args: Any, **kwargs: Any) -> Any:
        fetcher = original(*args, **kwargs)
        if watch.new_target is not None:
            watch.new_target("fetcher", fetcher)
        return fetcher

    patches.set(module._DatasetKind, "create_fetcher", staticmethod(create_fetcher))


def _iter(watch: Watch, original: Any) -> Any:
    clock = watch.clock

    def __iter__(self: Any) -> Any:
        if threading.get_ident() != clock.thread:
            return original(self)
        record = watch.record_of(self)
        if not record.starts and len(watch.loaders) == 1:
            watch.begins()
        if watch.new_target is not None:
            watch.new_target("loader", self)
        clock.enter(START)
        start = clock.last
        try:
            iterator = watch.new_pass(record) if watch.new_pass is not None else None
            if iterator is None:
                iterator = original(self)
        finally:
            clock.leave()
            record.start_seconds += (clock.last - start) / 1e9
        watch.catch_up()
        record.begins_pass(watch.steps)
        if record.place is None:
            frame = user_frame(_get_frame(1))
            record.place = (frame.f_code, frame.f_lasti)
            watch.another_at(record, self.dataset)
        if record.facts is None and not watch.light:
            _look_at(watch, record)
        try:
            watch.iterators[iterator] = record
        except TypeError:  # an iterator of the script's own that cannot be referred to weakly
            return iterator
        if record.iterator is iterator and watch.replay:  # persistent workers began anew; what was taken ahead is stale
            watch.replay.clear()
        record.iterator = iterator
        _keep(iterator, self)
        if watch.new_target is not None:
            watch.new_target("iterator", iterator)
        return iterator

    return __iter__


def _keep(iterator: Any, loader: Any) -> None:
    """``for x in DataLoader(…)`` lets go of its loader at once, and with it of what is asked of one within the pass:
    its dataset, a pass of its own. The iterator, which holds nearly all of it, holds it as long as it lives itself."""
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    if isinstance(iterator, _BaseDataLoaderIter) and not loader.persistent_workers:  # those would hold each other
        vars(iterator)["_hasten_loader"] = loader


def _end(watch: Watch, original: Any) -> Any:
    """Ending workers is booked as starting them is: every pass that starts its own does both."""
    clock = watch.clock

    def _shutdown_workers(self: Any) -> None:
        if watch.light or threading.get_ident() != clock.thread:
            original(self)
            return
        record = watch.iterators.get(self)
        clock.enter(START)
        start = clock.last
        try:
            original(self)
        finally:
            clock.leave()
            if record is not None:
                record.start_seconds += (clock.last - start) / 1e9

    return _shutdown_workers


def _place_where_asked(record: LoaderRecord, frame: Any) -> None:
    """Some frameworks make an iterator long before they train, where the user asks for something else."""
    if record.place is not None and record.place[0] is not frame.f_code:
        record.place = (frame.f_code, frame.f_lasti)


def _look_at(watch: Watch, record: Any) -> None:
    """Read a loader's settings while it is there: ``for x in DataLoader(…)`` keeps its iterator only."""
    from hasten.seams.facts import loader_facts

    try:
        loader_facts(record)
    except Exception as error:
        watch.fail(error)


def _next(watch: Watch, original: Any) -> Any:
    from torch.autograd import profiler
    from torch.utils.data.dataloader import _SingleProcessDataLoaderIter as Single

    clock = watch.clock
    get_ident = threading.get_ident
    iterators = watch.iterators

    def __next__(self: Any) -> Any:
        if watch.light and watch.serve is None:
            if type(self) is not Single or self._pin_memory or profiler._is_profiler_enabled:
                return original(self)
            fetch = vars(self._dataset_fetcher).get("fetch")
            if fetch is None or self._sampler_iter is None:
                return original(self)
            batch = fetch(next(self._sampler_iter))  # what torch does for a batch that is gathered, and no more
            self._num_yielded += 1
            return batch
        if get_ident() != clock.thread or clock.current == FETCH:
            return original(self)
        record: LoaderRecord | None = watch.feeding  # mostly the same again
        if record is None or record.iterator is not self:
            record = iterators.get(self)
        if record is None:
            return original(self)
        if watch.entered is not None:
            watch.calls_from(_get_frame(1))
        if not record.role and record.asked_at == watch.backwards and watch.passing is not None:
            watch.asked_again(record)
        if record.role == "evaluation":
            clock.evaluation(True)
        clock.enter(FETCH)
        start = clock.last
        try:
            return original(self) if watch.serve is None else watch.serve(self, original)
        finally:
            clock.leave()
            if clock.evaluating and record.role == "evaluation":
                clock.evaluated()
            record.last_fetch = clock.last - start
            record.fetched += record.last_fetch
            record.in_a_row = record.in_a_row + 1 if record.asked_at == watch.backwards else 1
            record.asked_at = watch.backwards
            if not record.batches:
                _place_where_asked(record, user_frame(_get_frame(1)))
            record.batches += 1
            if record.serving != id(self) and watch.driver is None:
                record.iterator = self
            if watch.feeding is not record:
                watch.feeds(record)
            if clock.locate is not None:
                frame = clock.locate(_get_frame(1))
                phase = EVALUATION if record.role == "evaluation" else FETCH
                clock.book((phase, frame.f_code, frame.f_lasti), record.last_fetch)

    __next__.__wrapped__ = original  # type: ignore[attr-defined]
    return __next__

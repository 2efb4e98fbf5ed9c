"""Serving batches to a child's loop."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from hasten.core.remedy import Undo
from hasten.seams.inputs import tensors
from hasten.seams.known import LoaderRecord
from hasten.seams.watch import Watch


class Batches:
    """Serves batches to the child's loop so that it never leaves its inner loop.

    An exhausted loader starts anew; batches recorded before the fork are repeated for ever; while ``free`` is set the
    batch handed out last is handed out again, restored if the script changed it in place.
    """

    def __init__(self, watch: Watch, recorded: deque[Any] | None, endless: bool = True) -> None:
        self.watch = watch
        self.recorded = recorded
        self.endless = endless
        self.free = False
        self.stand_ins: dict[int, tuple[Any, Any]] = {}  # by id: the iterator, kept alive, and the new
        self._held: Any = None
        self._pristine: Any = None
        self._versions: tuple[int, ...] = ()

    def take_over(self) -> None:
        """Have every loop over the training loader served from here."""
        self.watch.serve = self
        self.watch.new_pass = self._new_pass
        record = self.watch.trained_from
        self._alive = record.iterator if record is not None else None  # also when the script has left its loop

    def hand_out_again(self) -> Undo:
        """From now on the batch handed out last, again and again: data are free."""
        self.free = True

        def undo() -> None:
            self.free = False

        return undo

    def _new_pass(self, record: LoaderRecord) -> Any:
        """What a new pass over a loader iterates over; None for what the loader itself makes, which would ask workers
        that belong to the parent."""
        return record.iterator if record.role == "training" and self.recorded and self.endless else None

    def __call__(self, iterator: Any, original: Callable[[Any], Any]) -> Any:
        record = self.watch.iterators.get(iterator)
        if record is None or record.role != "training":
            return original(iterator)
        if self.free and self._held is not None:
            return self._held
        batch = self._take(iterator, original, record)
        self._held = batch
        return batch

    def _take(self, iterator: Any, original: Callable[[Any], Any], record: Any) -> Any:
        if self.recorded is not None:
            if not self.recorded:
                self._over()
                raise StopIteration
            batch = self.recorded.popleft()
            if self.endless:
                self.recorded.append(batch)
            return batch
        current = self.current(iterator)
        try:
            return original(current)
        except StopIteration:
            loader = record.loader()
            if not self.endless or loader is None:
                raise
            return original(self.renew(current, loader, record))

    def _over(self) -> None:
        """What was recorded is used up: a child that counts steps has taken all that it can. It would go on from one
        empty pass to the next, starting workers for each, until the script ends or the parent has waited too long."""
        sender = getattr(self.watch.driver, "sender", None)
        if sender is not None and not self.endless:
            sender.leave()

    def renew(self, iterator: Any, loader: Any, record: Any) -> Any:
        """A new iterator, which stands in for ``iterator`` from now on."""
        fresh = next_pass(loader)
        self.stand_ins[id(iterator)] = (iterator, fresh)
        self.watch.iterators[fresh] = record
        record.iterator = fresh
        return fresh

    def current(self, iterator: Any) -> Any:
        """The iterator that really serves ``iterator``'s loop."""
        while id(iterator) in self.stand_ins:
            iterator = self.stand_ins[id(iterator)][1]
        return iterator

    def mend(self) -> None:
        """Between steps: keep a clean copy of the held batch, and restore the batch from it if it was changed."""
        if self._held is None:
            return
        import torch

        held = list(tensors(self._held))
        versions = tuple(t._version for t in held)
        if self._pristine is None or len(self._pristine) != len(held) or not self.free:
            self._pristine = [t.detach().clone() for t in held] if self.free else None
        elif versions != self._versions:
            with torch.no_grad():
                for tensor, clean in zip(held, self._pristine, strict=True):
                    tensor.copy_(clean)
            versions = tuple(t._version for t in held)
        self._versions = versions


def next_pass(loader: Any) -> Any:
    """A pass over a loader as its script would begin the next one. Where workers outlive their passes, those of the
    process that this one is a copy of cannot be asked: others begin it, which are given no row and draw nothing before.
    """
    import torch

    if getattr(loader, "_iterator", None) is None:
        return loader._get_iterator()
    fields, name = vars(loader), "sampler" if loader.batch_sampler is None else "batch_sampler"
    before = {name: fields[name], "generator": fields["generator"]}
    fields.update({name: (), "generator": torch.Generator()})
    try:
        fresh = loader._get_iterator()
    finally:
        fields.update(before)
    fresh._index_sampler = loader._index_sampler
    fresh._reset(loader)
    fields["_iterator"] = fresh
    return fresh


class Few:
    """A sampler of batches that gives its first few again and again, and looks like the one that it is made of."""

    def __init__(self, sampler: Any, count: int) -> None:
        self.sampler = sampler
        self.rows = list(itertools.islice(sampler, count))

    def __iter__(self) -> Iterator[Any]:
        return itertools.cycle(self.rows)

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)


class Ahead:
    """Has remedies make what later epochs would find ready, a few batches ahead of the loop.

    Args:
        depth: batches ahead; by default two, and never fewer than a step takes, for what is not made ahead is made, and
            kept, inside of the step that is timed.
    """

    def __init__(self, watch: Watch, batches: Batches, remedies: list[Any], depth: int = 0) -> None:
        self.watch = watch
        self.batches = batches
        self.remedies = [r for r in remedies if hasattr(r, "ahead")]
        self.depth = depth or max(2, math.ceil(watch.batches))
        self._iterator: Any = None
        self._queue: deque[Any] = deque()
        self._given = list(batches.recorded or ())  # will come, and were made by workers already

    def __call__(self) -> None:
        self.batches.mend()
        fillers = [r for r in self.remedies if hasattr(r, "fill")]
        while fillers and self._given and all(r.fill(self._given[-1]) for r in fillers):
            self._given.pop()
        record = self.watch.trained_from
        if not self.remedies or record is None:
            return
        iterator = self.batches.current(record.iterator)
        fetcher = getattr(iterator, "_dataset_fetcher", None)
        if fetcher is None:
            return
        if iterator is not self._iterator:
            self._iterator = iterator
            self._queue = deque()
            iterator._sampler_iter = _Peeked(self._queue, iterator._sampler_iter)
        source = iterator._sampler_iter.rest
        while len(self._queue) < self.depth:
            indices = next(source, None)
            if indices is None:
                return
            self._queue.append(indices)
            for remedy in self.remedies:
                remedy.ahead(fetcher, indices)


class _Peeked:
    """A sampler's iterator with a queue of indices taken from it ahead of time."""

    def __init__(self, queue: deque[Any], rest: Iterator[Any]) -> None:
        self.queue = queue
        self.rest = rest

    def __iter__(self) -> _Peeked:
        return self

    def __next__(self) -> Any:
        return self.queue.popleft() if self.queue else next(self.rest)

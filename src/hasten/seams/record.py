"""Asking a loader with workers ahead of time, so that children never touch the workers' queues."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hasten.seams.watch import Watch

MOST_BATCHES = 12
MOST_BYTES = 512 << 20


def record_batches(watch: Watch) -> deque[Any] | None:
    """None where the training loader has no workers. Otherwise batches taken ahead from it; the parent's loop will
    be served from them first, so its data and their order stay the same.

    Only with torch's own samplers: they draw from a generator of their own, so asking earlier changes no draw.
    An empty deque says that nothing could be taken.
    """
    from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, SequentialSampler
    from torch.utils.data import dataloader as module

    record = watch.trained_from
    iterator = record.iterator if record is not None else None
    if record is None or not isinstance(iterator, module._MultiProcessingDataLoaderIter):
        return None
    loader = record.loader()
    sampler = iterator._index_sampler
    inner = sampler.sampler if type(sampler) is BatchSampler else sampler
    if loader is None or type(inner) not in (RandomSampler, SequentialSampler, DistributedSampler):
        return deque()
    already = watch.replay if watch.replay is not None else deque()
    own: Any = module._BaseDataLoaderIter.__next__
    fetch: Callable[[Any], Any] = getattr(own, "__wrapped__", own)
    size = 0
    from hasten.seams.child import _tensors

    while len(already) < MOST_BATCHES and size < MOST_BYTES:
        try:
            batch = fetch(iterator)
        except StopIteration:
            break
        already.append(batch)
        size += sum(t.numel() * t.element_size() for t in _tensors(batch))
    watch.replay = already

    def serve(asked: Any, original: Callable[[Any], Any]) -> Any:
        if asked is iterator and already:
            return already.popleft()
        return original(asked)

    watch.serve = serve
    return deque(already)

"""Asking a loader with workers ahead of time, so that children never touch the workers' queues."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from hasten.seams.inputs import tensors
from hasten.seams.watch import Watch

MOST_BATCHES = 12
MOST_BYTES = 512 << 20
NOT_ASKED = "the loader's workers could not be asked ahead without changing the data order"


def record_batches(watch: Watch) -> deque[Any] | None:
    """None where the training loader has no workers. Otherwise batches taken ahead from it; the parent's loop will
    be served from them first, so its data and their order stay the same.

    Only with torch's own samplers: they draw from a generator of their own, so asking earlier changes no draw; what
    iterable datasets give is asked for without any. A generator that the script has given may be drawn from elsewhere,
    too, so then nothing is taken that would draw.
    An empty deque says that nothing could be taken.
    """
    from torch.utils.data import dataloader as module

    record = watch.trained_from
    iterator = record.iterator if record is not None else None
    if record is None or not isinstance(iterator, module._MultiProcessingDataLoaderIter):
        return None
    already: deque[Any] = watch.replay if watch.replay is not None else deque()
    if record.loader() is None or not _draws_for_itself(iterator):
        return deque()
    size = 0
    while len(already) < MOST_BATCHES and size < MOST_BYTES and _may_be_asked(iterator):
        try:
            batch = watch.fetch(iterator)
        except StopIteration:
            break
        already.append(batch)
        size += sum(t.numel() * t.element_size() for t in tensors(batch))
    watch.replay = already
    watch.serve = _serve(weakref.ref(iterator), already)
    return deque(already)


def may_wait(watch: Watch) -> bool:
    """Whether a later step is a better one to record batches at: an epoch ends soon, and the next has more to take."""
    from torch.utils.data import dataloader as module

    record = watch.trained_from
    iterator = record.iterator if record is not None else None
    if not isinstance(iterator, module._MultiProcessingDataLoaderIter) or not _draws_for_itself(iterator):
        return False
    if _is_iterable(iterator):  # which does not tell where it ends
        return False
    total = len(_samplers(iterator)[0])
    given = _generator_is_given(iterator)
    most = total - (iterator._prefetch_factor * iterator._num_workers if given else 0)
    now = total - (iterator._send_idx if given else iterator._rcvd_idx)
    return bool(now < min(MOST_BATCHES, most // 2))


def _serve(recorded: Callable[[], Any], already: deque[Any]) -> Callable[[Any, Callable[[Any], Any]], Any]:
    def serve(asked: Any, original: Callable[[Any], Any]) -> Any:
        if already and asked is recorded():
            return already.popleft()
        return original(asked)

    return serve


def _samplers(iterator: Any) -> list[Any]:
    from torch.utils.data import BatchSampler

    sampler = iterator._index_sampler
    return [sampler, sampler.sampler] if type(sampler) is BatchSampler else [sampler]


def _draws_for_itself(iterator: Any) -> bool:
    from torch.utils.data import DistributedSampler, RandomSampler, SequentialSampler

    inner = _samplers(iterator)[-1]
    if _is_iterable(iterator):
        return True
    if type(inner) is RandomSampler and inner.generator is not None:
        return not inner.replacement and inner.num_samples <= len(inner.data_source)
    return type(inner) in (RandomSampler, SequentialSampler, DistributedSampler)


def _is_iterable(iterator: Any) -> bool:
    """Whether its rows are what workers' copies of an iterable dataset give, which no sampler chooses."""
    from torch.utils.data.dataloader import _InfiniteConstantSampler

    return type(_samplers(iterator)[-1]) is _InfiniteConstantSampler


def _may_be_asked(iterator: Any) -> bool:
    """Whether asking once more leaves a generator of the script's alone: RandomSampler draws when it is exhausted."""
    return not _generator_is_given(iterator) or iterator._send_idx < len(_samplers(iterator)[0])


def _generator_is_given(iterator: Any) -> bool:
    return getattr(_samplers(iterator)[-1], "generator", None) is not None

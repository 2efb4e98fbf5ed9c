"""What a batch takes that is made another way, as a part of what it takes sample by sample."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hasten.core.interval import Interval
from hasten.data.cache import SampleCache
from hasten.data.gather import gather_of
from hasten.data.rows import torchs_own
from hasten.data.view import samples_of

ROUNDS = 5  # of each: with what it needs in the caches, and without
MOST_SECONDS = 0.05  # that a batch may take sample by sample to be made so often; of others it is known from samples
MOST_ROWS = 1024  # of a batch; parts of larger ones take as much a row
SWEEP = 8 << 20  # bytes written between two timings, as the rest of a step does: what was in the caches is not


def gathered(dataset: Any, loader: Any, each: float) -> Interval | None:
    """Of a batch that is gathered, the part of its time; None where that cannot be found out.

    Args:
        each: seconds to make one sample and collate it.
    """
    import torch

    try:
        gather, rows = gather_of(dataset), _rows(dataset, loader)
        asked: Sequence[Any] = torch.tensor(rows) if torchs_own(loader.batch_sampler) else rows
        return _part(lambda: loader.collate_fn(samples_of(dataset, rows)), lambda: gather(asked), each * len(rows))
    except Exception:
        return None


def cached(dataset: Any, loader: Any, each: float) -> Interval | None:
    """The same of a batch whose samples a cache has kept."""
    from torch.utils.data import Subset

    try:
        rows = _rows(dataset, loader)
        few = rows[: max(1, min(len(rows), int(MOST_SECONDS / max(each, 1e-9))))]
        some = Subset(dataset, few)  # a cache does not keep it alive
        cache = SampleCache(some, loader.collate_fn)
        kept = list(range(len(few)))
        cache.batch(kept)
        if not cache.ready(kept):
            return None
        asked = [i % len(few) for i in range(len(rows))]
        whole = each * len(rows)
        return _part(lambda: loader.collate_fn(samples_of(dataset, rows)), lambda: cache.batch(asked), whole)
    except Exception:
        return None


def _rows(dataset: Any, loader: Any) -> list[int]:
    """Of a batch as a shuffled pass has them; nobody's random state is touched."""
    return random.Random(0).sample(range(len(dataset)), min(loader.batch_size, len(dataset), MOST_ROWS))


def _part(one_by_one: Callable[[], object], whole: Callable[[], object], usual: float) -> Interval:
    """``whole``'s time over ``one_by_one``'s: from what both take in a loop of their own to what they take between the
    steps of others, whose code and data displace theirs. The shortest times of either, on one thread: on a busy machine
    threads that wait for each other would tell of the others' work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _timed(one_by_one, whole, usual)
    finally:
        torch.set_num_threads(threads)


def _timed(one_by_one: Callable[[], object], whole: Callable[[], object], usual: float) -> Interval:
    away = np.zeros(SWEEP, np.uint8)
    long = usual > MOST_SECONDS
    seconds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for cold in (True, False):
            pair = []
            for call in (one_by_one, whole):
                if call is one_by_one and long:
                    pair.append(usual)
                    continue
                if cold:
                    away += 1
                pair.append(_seconds(call))
            seconds[cold].append((pair[0], pair[1]))
    parts = [min(b for _, b in found) / max(min(a for a, _ in found), 1e-9) for found in seconds.values()]
    return Interval(statistics.mean(parts), min(parts), max(parts), "1", 0.9, 2 * ROUNDS)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start

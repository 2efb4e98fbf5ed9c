"""What a batch takes that is made another way, as a part of what it takes sample by sample."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hasten.core.interval import Interval
from hasten.data.cache import AUDIT_EVERY, SampleCache, audited
from hasten.data.fingerprint import close_fingerprint, quick_fingerprint
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


def looking(dataset: Any) -> float:
    """Seconds to look before a batch whether a dataset is as it was, between the steps of others."""
    away = np.zeros(SWEEP, np.uint8)
    seconds = []
    for _ in range(ROUNDS):
        away += 1
        seconds.append(_seconds(lambda: quick_fingerprint(dataset)))
    return statistics.median(seconds)


def cached(dataset: Any, loader: Any, each: float) -> Interval | None:
    """The same as :func:`gathered` of a batch whose samples a cache has kept."""
    try:
        rows = _rows(dataset, loader)
        cache, few = _kept(dataset, loader, rows[: max(1, int(MOST_SECONDS / max(each, 1e-9)))])
        if cache is None:
            return None
        asked = [i % len(few) for i in range(len(rows))]
        whole = each * len(rows)
        return _part(lambda: loader.collate_fn(samples_of(dataset, rows)), lambda: cache.batch(asked), whole)
    except Exception:
        return None


def comparing(dataset: Any, loader: Any) -> float:
    """Seconds a batch, by its part of a pass, to compare a dataset as a whole where a pass begins, and samples that a
    cache has kept with others made anew; nought where that cannot be found out."""
    try:
        cache, _few = _kept(dataset, loader, _rows(dataset, loader)[:1])
        if cache is None:
            return 0.0
        one = min(_seconds(lambda: cache.compare(0)) for _ in range(2))
        whole = min(_seconds(lambda: close_fingerprint(dataset)) for _ in range(2))
        batches = max(1, math.ceil(len(dataset) / loader.batch_size))
        return float((whole + audited(len(dataset)) * one) / batches + one / AUDIT_EVERY)
    except Exception:
        return 0.0


def _kept(dataset: Any, loader: Any, rows: list[int]) -> tuple[SampleCache | None, Any]:
    """A cache that has kept these samples, and the dataset of them, which a cache does not keep alive; None where it
    does not keep them."""
    from torch.utils.data import Subset

    some = Subset(dataset, rows)
    cache = SampleCache(some, loader.collate_fn)
    kept = list(range(len(rows)))
    cache.batch(kept)
    return (cache if cache.ready(kept) else None), some


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

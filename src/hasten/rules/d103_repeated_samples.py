"""The same samples are decoded and transformed again in every epoch.

Why it is slow
    A deterministic ``__getitem__`` gives the same bytes every epoch, and is paid for every epoch.

Remedy
    ``CacheSamples()`` keeps every sample, after it was made once, in a memory map (of a file without a name, if there
    are more than 64 MB), and gathers batches from there; it fills during the first epoch at no extra pass.

Fidelity
    identical: the cached bytes are the dataset's own. While it runs it checks that no random number is drawn, that
    the dataset's settings stay the same, and now and then that a sample made anew has the same bytes; otherwise it
    switches itself off. Where the script changes a few rows of an array over 512 kB, or of a list over 65,536, within a
    pass, only the next pass shows it; of an array over 16 MB only the samples that are made anew do.

When it does not help
    The first epoch; datasets larger than half of the free memory; items that differ each time (see
    cacheable-prefix), or that hold other things than tensors, arrays, numbers, texts and pictures in plain containers
    (what Hugging Face's tokenizers return, of which a plain ``dict`` can be kept; what ``Image.open`` returns, of
    which a ``.convert("RGB")`` can).

References
    Why PyTorch has none: https://github.com/pytorch/pytorch/issues/35642
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.facts import LoaderFacts
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import LEAST_PASSES, Trace
from hasten.data.cache import ANOTHER, IDLE_PASSES, SampleCache
from hasten.data.fingerprint import draws_by_itself
from hasten.data.store import SHARE_OF_MEMORY
from hasten.data.view import Changes, original, put, source

LEAST_SHARE = 0.03  # of the step spent fetching
SAVED = (0.75, 0.98)  # part of the fetch that a gather from the cache saves, where it could not be timed
ONE_BY_ONE = 0.5  # the least part that samples save which come out one by one, for the script's own collate function
SMALLER = "store them once as small as the model needs them (smaller pictures, uint8 for float32), and read those"
ONCE = "this job makes one epoch, a second one would gain"
ONE_SEEN = "few epochs were seen: where the script changes its dataset before each, there is nothing to keep"

_caches: dict[int, SampleCache] = {}  # by dataset, as long as that lives: every epoch's iterator uses the same cache
_once = 0  # datasets in a row that were gone after one pass, and what was kept of them


@dataclass(frozen=True)
class CacheSamples(Remedy):
    """Keeps the samples of a dataset whose items are the same every time."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.FETCHER
    later_passes: ClassVar[bool] = True
    conflicts: ClassVar[tuple[str, ...]] = ("BatchedFetch", "CachePrefix")

    def on(self, target: Any = None) -> Undo:
        dataset, collate = source(target)
        cache = cache_of(dataset, collate)
        if cache.why_off:
            raise Unsuited(cache.why_off)
        cache.new_iterator()
        changes = Changes(target)

        def batch(indices: Sequence[Any]) -> Any:
            if changes.before(len(indices)):
                cache.new_iterator()
            return cache.batch(indices)

        def begins() -> None:
            changes.begin()
            if target.num_workers:
                with contextlib.suppress(Exception):  # the script may never ask for a sample that cannot be made
                    cache.open()

        return put(target, batch, begins)

    def before_workers(self, loader: Any) -> None:
        """Open the store before workers are forked, so that they share it."""
        if loader._iterator is None:
            cache_of(*source(loader)).open()

    def ahead(self, target: Any, indices: Sequence[Any]) -> None:
        """In trials: make the samples of a later batch, so that its step is timed as in later epochs."""
        cache_of(*original(target)).batch(indices)

    def broken(self) -> bool:
        """Whether a cached sample was found to differ from one made anew."""
        return any(cache.broken for cache in _caches.values())

    def idle(self) -> str:
        """Why a dataset's samples are made as without it, where they are."""
        if _once >= IDLE_PASSES and not any(cache.turns for cache in _caches.values()):
            return ANOTHER
        return next((cache.why_idle for cache in _caches.values() if cache.why_idle), "")


def cache_of(dataset: Any, collate: Callable[[list[Any]], Any]) -> SampleCache:
    """The cache of a dataset, made on first use."""
    key = id(dataset)
    cache = _caches.get(key)
    if cache is None or cache.dataset is not dataset or cache.collate is not collate:
        cache = _caches[key] = SampleCache(dataset, collate, lambda: _forget(key))
        if draws_by_itself(dataset):
            cache.off = "the dataset has a generator of its own"
    return cache


def _forget(key: int) -> None:
    """The dataset is gone, and with it what was kept; but not what its cache has found out about the promise."""
    global _once
    if key in _caches and not _caches[key].broken:
        gone = _caches.pop(key)
        _once = 0 if gone.turns else _once + (gone.store is not None)


def detect(trace: Trace) -> Iterator[Finding]:
    loader, cost = trace.loader, trace.phase("fetch")
    if loader is None or loader.probe is None or not loader.probe.deterministic or not loader.map_style:
        return
    if loader.changing:  # other samples in every epoch
        return
    probe = loader.probe
    least, most = _saved(trace, loader)
    if probe.unkept or not most * cost >= LEAST_SHARE * trace.step_seconds:
        return
    size, room = probe.sample_bytes * max(loader.length, 0), SHARE_OF_MEMORY * trace.process.available_bytes
    again, fits = trace.passes >= LEAST_PASSES, not size > room  # where it is unknown, too
    too_much = "" if fits else f", more than half of the memory that is free ({_bytes(room)} would do)"
    predicted = trace.without("fetch", least, most) if again else (1.0, 1.0)
    when = "the gain starts with the second epoch" if again else ONCE
    yield RULE.finding(
        f"{loader.dataset} makes each of its {loader.length} samples anew every epoch, {ms(cost)} a step",
        loader.place,
        predicted,
        label="asks for the same bytes every epoch",
        remedies=(CacheSamples(),) if fits else (),
        advice="" if fits else SMALLER,
        notes=(
            "asked twice for the same items it gave the same bytes and drew no random number",
            f"all samples take {_bytes(size)}{too_much}; {when}",
            *(trace.evaluations_beside("fetch", predicted) if again else ()),
            *((ONE_SEEN,) if again and loader.starts + loader.before < 3 else ()),
        ),
    )


def _saved(trace: Trace, loader: LoaderFacts) -> tuple[float, float]:
    """Least and greatest part of the fetch that is saved; what the script's own collate function does is done every
    time, and so is looking for changes."""
    probe, cost = loader.probe, max(trace.phase("fetch"), 1e-12)
    assert probe is not None
    part, saved = 1.0, SAVED
    if not loader.default_collate:
        share = probe.made_share(probe.seconds)
        part, saved = (share, (ONE_BY_ONE, SAVED[1])) if share >= 0 else (1.0, (0.0, SAVED[1]))
    if probe.cached is not None:
        part, saved = 1.0, (1 - probe.cached.high, 1 - probe.cached.low)
        if loader.num_workers and loader.batch_size > 0:  # which may wait, or be waited for, for other reasons
            made = probe.seconds + (probe.collate_seconds if probe.collate_seconds > 0 else 0.0)
            part, saved = made * loader.batch_size * trace.batches / cost, (0.0, saved[1])
    checks = probe.check_seconds * trace.batches if probe.check_seconds > 0 else 0.0
    least, most = (max(0.0, part * x - checks / cost) for x in saved)
    return least, min(most, trace.step_seconds / cost)


def _bytes(count: float) -> str:
    if count >= 1e10:
        return f"{count / 1e9:.0f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 9.5e5 else f"{math.ceil(count / 1000)} kB"


RULE = Rule("D103", "repeated-samples", detect, __doc__, (CacheSamples,))

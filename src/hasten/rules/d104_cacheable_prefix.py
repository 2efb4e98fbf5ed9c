"""The deterministic beginning of a random transform chain is repeated in every epoch.

Why it is slow
    Decoding and resizing give the same picture every epoch; only what follows the first random transform differs.

Remedy
    ``CachePrefix(n)`` keeps each sample as it is after the first ``n`` transforms, which draw nothing, and runs the
    rest of the chain every time, so the same random numbers are drawn in the same order.

Fidelity
    identical: probed bit for bit, random states included, before it is offered.

When it does not help
    Chains that begin with a random transform; transforms written inside ``__getitem__`` instead of a ``Compose``.

References
    https://github.com/pytorch/vision/issues/8059
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import LEAST_PASSES, Trace
from hasten.data.cache import SampleCache, weakly
from hasten.data.chain import Split, find_chain
from hasten.data.fingerprint import close_fingerprint
from hasten.data.store import SHARE_OF_MEMORY
from hasten.data.view import Changes, original, put, samples_of, source
from hasten.measure.digest import random_states, restore

LEAST_SHARE = 0.03  # of the step spent fetching
READING = 0.10  # part of the prefix's time that reading it from the cache takes
ONCE = "this job makes one epoch, a second one would gain"

_prefixes: dict[tuple[int, int], tuple[Callable[[], Any], Any, Split, SampleCache]] = {}  # dataset, settings, halves


@dataclass(frozen=True)
class CachePrefix(Remedy):
    """Keeps samples as they are after the first ``stages`` transforms of the chain."""

    stages: int
    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.FETCHER
    later_passes: ClassVar[bool] = True
    conflicts: ClassVar[tuple[str, ...]] = ("BatchedFetch", "CacheSamples")

    def on(self, target: Any = None) -> Undo:
        dataset, collate = source(target)
        split, cache = self._split(dataset)
        if cache.why_off:
            raise Unsuited(cache.why_off)
        cache.new_iterator()
        changes = Changes(target)

        def batch(indices: Sequence[Any]) -> Any:
            nonlocal split, cache
            states = random_states()
            try:
                if changes.before(len(indices)):
                    split, cache = self._split(dataset)
                    cache.new_iterator()
                items = [] if cache.why_off else cache.batch(indices)
            except Unsuited:
                return collate(samples_of(dataset, indices))
            if cache.why_off:  # prefixes may have drawn random numbers, and not in the order of whole samples
                restore(states)
                return collate(samples_of(dataset, indices))
            return collate([split.suffix(item) for item in items])

        def begins() -> None:
            changes.begin()
            if target.num_workers:
                with contextlib.suppress(
                    Exception
                ):  # a chain that cannot be cut any more; a sample that is never asked
                    self._split(dataset)[1].open()

        return put(target, batch, begins)

    def _split(self, dataset: Any) -> tuple[Split, SampleCache]:
        """The dataset cut in two and the cache of its first part, made anew where its settings have changed."""
        key, mark = (id(dataset), self.stages), close_fingerprint(dataset)
        known = _prefixes.get(key)
        if known is not None and known[0]() is dataset and (known[1] == mark or known[3].broken):
            return known[2], known[3]
        chain = find_chain(dataset)
        if chain is None or len(chain.stages) < self.stages or self.stages < 1:
            raise Unsuited("the dataset has no transform chain that could be cut there")
        split = Split.make(dataset, self.stages)
        if split is None:
            raise Unsuited("the dataset works on its samples after the transform chain, or draws random numbers before")
        cache = SampleCache(split.tapped, list)
        _prefixes[key] = (weakly(dataset, lambda: _forget(key)), mark, split, cache)
        return split, cache

    def before_workers(self, loader: Any) -> None:
        """Open the store before workers are forked, so that they share it."""
        if loader._iterator is None:
            self._split(source(loader)[0])[1].open()

    def ahead(self, target: Any, indices: Sequence[Any]) -> None:
        """In trials: make the prefixes of a later batch, so that its step is timed as in later epochs."""
        self._split(original(target)[0])[1].batch(indices)

    def broken(self) -> bool:
        """Whether a cached prefix was found to differ from one made anew."""
        return any(cache.broken for *_, cache in _prefixes.values())

    def idle(self) -> str:
        """Why a dataset's prefixes are made as without it, where they are."""
        return next((cache.why_idle for *_, cache in _prefixes.values() if cache.why_idle), "")


def _forget(key: tuple[int, int]) -> None:
    """The dataset is gone, and with it what was kept; but not what its cache has found out about the promise."""
    if key in _prefixes and not _prefixes[key][3].broken:
        del _prefixes[key]


def detect(trace: Trace) -> Iterator[Finding]:
    loader, cost = trace.loader, trace.phase("fetch")
    if loader is None or loader.probe is None or not loader.probe.prefix_exact or not loader.probe.cacheable_stages:
        return
    if loader.changing:  # other samples in every epoch
        return
    probe = loader.probe
    share = probe.made_share(probe.prefix_seconds + probe.suffix_seconds)  # beside it there is collating
    cost, least = (cost * share, cost * share) if share >= 0 else (cost, 0.0)
    if not cost >= LEAST_SHARE * trace.step_seconds:
        return
    part = probe.prefix_seconds / max(probe.prefix_seconds + probe.suffix_seconds, 1e-12)
    checks = probe.check_seconds * trace.batches if probe.check_seconds > 0 else 0.0
    least, saved = (max(0.0, seconds * part * (1 - READING) - checks) for seconds in (least, cost))
    again = trace.passes >= LEAST_PASSES
    if probe.prefix_bytes * loader.length > SHARE_OF_MEMORY * trace.process.available_bytes:
        return  # it would not be kept
    cached = ", ".join(probe.stages[: probe.cacheable_stages])
    yield RULE.finding(
        f"{cached} {'gives' if probe.cacheable_stages == 1 else 'give'} the same result every epoch;"
        f" {part:.0%} of making a sample is before the first random step",
        loader.place,
        (trace.amdahl(0.8 * least), trace.amdahl(saved)) if again else (1.0, 1.0),
        label=f"repeats what comes before {probe.stages[probe.cacheable_stages]}"
        if probe.cacheable_stages < len(probe.stages)
        else "repeats the whole chain",
        remedies=(CachePrefix(probe.cacheable_stages),),
        notes=("cut there, samples and random states were the same to the bit", *(() if again else (ONCE,))),
    )


RULE = Rule("D104", "cacheable-prefix", detect, __doc__, (CachePrefix,))

"""A new pass over the loader begins for every batch.

Why it is slow
    ``next(iter(loader))`` begins a pass, takes its first batch and gives the rest up. A pass that shuffles first draws
    the order of the whole dataset; one with worker processes starts them, has them make batches that nobody takes, and
    ends them.

Remedy
    None from outside: the batches would be others. By hand: make one iterator before the loop, take its next batch in
    every step, and make another when it ends.

Fidelity
    equivalent: other batches, drawn alike: a pass hands out every sample once before any comes again.

When it does not help
    Loaders that do not shuffle hand out the same first batch every time, which can be kept instead. A loader of one
    or two batches is not told of.

References
    https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from hasten.core.facts import LoaderFacts
from hasten.core.finding import Finding, Rule, many, ms
from hasten.core.trace import Trace

LEAST_SHARE = 0.05  # of the step
MADE = 0.7  # of what making a batch was seen to take: asked one by one, out of the loop, samples take longer
SPARED = 0.5  # of the rest of asking, at least: drawing an order, or waiting for new workers
RELIEF = 0.3  # of what is left, at most, that goes faster, too: an order of all rows displaces it from the caches (3.0
# times was seen to be spared, 4.2 times was gained)


def detect(trace: Trace) -> Iterator[Finding]:
    loader = trace.loader
    if loader is None or not loader.cut_short:
        return
    start, asking = trace.phase("loader start"), trace.phase("fetch") + _beside(trace, loader)
    making = 0.0 if loader.num_workers else _making(trace, loader)
    most = start + asking - (MADE * making if making > 0 else 0.0)
    if not most >= LEAST_SHARE * trace.step_seconds:
        return
    least = start + SPARED * max(0.0, asking - making if making >= 0 else 0.0)
    workers = f", with {many(loader.num_workers, 'worker')} of its own" if loader.num_workers else ""
    yield RULE.finding(
        f"a new pass over {loader.length:,} samples begins for every batch{workers}: {ms(most)} a step",
        loader.place,
        (trace.amdahl(least), trace.amdahl(most) / (1 - RELIEF)),
        label="the rest of the pass is given up",
        advice="batches = iter(loader) before the loop, next(batches) in it, and iter(loader) again at StopIteration",
        notes=("these are other batches of the same kind; of a loader that does not shuffle, keep the first one",),
    )


def _beside(trace: Trace, loader: LoaderFacts) -> float:
    """Seconds of a step that the line takes beside asking for a batch: what a pass leaves behind is freed there."""
    at = loader.place
    return math.fsum(
        h.seconds
        for h in trace.hot
        if at and h.phase == "python" and h.place.file == at.file and h.place.line == at.line
    )


def _making(trace: Trace, loader: LoaderFacts) -> float:
    """Seconds to make a step's batches, as asking the dataset has shown; NaN where unknown."""
    probe = loader.probe
    if probe is None:
        return math.nan
    collated = probe.collate_seconds if probe.collate_seconds > 0 else 0.0
    return (probe.seconds + collated) * loader.batch_size * trace.batches


RULE = Rule("D108", "pass-per-batch", detect, __doc__)

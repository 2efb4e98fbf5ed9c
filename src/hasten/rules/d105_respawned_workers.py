"""Worker processes are started anew in every epoch.

Why it is slow
    Without ``persistent_workers`` every pass over the loader forks its workers again, the first batches of the
    pass wait for them, and its end waits for them to leave. So it does with them where each epoch makes a loader anew.

Remedy
    ``LoaderWorkers(n)`` with the script's own number keeps them alive between passes; advised only where samples draw
    random numbers, and where every epoch makes a loader of its own: make it once, before the loop.

Fidelity
    identical where making a sample draws no random number (a worker's random state then carries on instead of
    starting anew).

When it does not help
    Few long epochs.

References
    https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from hasten.core.facts import LoaderFacts
from hasten.core.finding import Finding, Rule, many, ms
from hasten.core.trace import LEAST_LEFT, Trace
from hasten.rules.d101_single_process_loader import LoaderWorkers, doubts, draws, may_move, settings

LEAST_SHARE = 0.05  # of an epoch spent starting and ending workers
SPARED = 0.5  # of that is saved, at least; at most …
WAITS = 0.7  # … this part of all waiting, too (measured): new workers begin slowly, and a pass waits for their end
_BY_HAND = "persistent_workers=True: other samples of the same kind, since a worker's random state then carries on"


def detect(trace: Trace) -> Iterator[Finding]:
    loader = trace.loader
    if loader is None or not loader.num_workers or loader.cut_short:  # D108 tells
        return
    if loader.changing:  # workers that outlive a pass would keep the dataset as it was
        return
    if loader.starts < 2:
        yield from _made_anew(trace, loader)
        return
    moves = may_move(loader)
    if loader.persistent_workers or not (moves or draws(loader)):
        return
    each = loader.start_seconds / loader.starts
    later = trace.epochs[1:] or trace.epochs  # the first one starts up, too
    epoch = statistics.median(e.seconds for e in later) if later else math.nan
    waits = statistics.median(e.fetch_seconds for e in later) if later else 0.0
    if not epoch > 0:
        epoch = trace.step_seconds * max(1, trace.steps) / loader.starts
    if not epoch > 0 or not each >= LEAST_SHARE * epoch:
        return
    yield RULE.finding(
        f"starting and ending {many(loader.num_workers, 'worker')} takes {1000 * each:.0f} ms of every"
        f" {1000 * epoch:.0f} ms epoch",
        loader.place,
        (1 + SPARED * each / epoch, epoch / max(epoch - each - WAITS * waits, LEAST_LEFT * epoch)),
        label="persistent_workers is False",
        remedies=settings(trace, loader, loader.num_workers) if moves else (),
        advice="" if moves else _BY_HAND,
        notes=doubts(loader) if moves else (),
    )


def _made_anew(trace: Trace, loader: LoaderFacts) -> Iterator[Finding]:
    """Every pass makes a loader of its own, whose workers cannot outlive it."""
    start = trace.phase("loader start")
    others = max(x.before for x in trace.loaders if x.role == loader.role)
    if not others or not start >= LEAST_SHARE * trace.step_seconds:
        return
    yield RULE.finding(
        f"a new loader starts and ends {many(loader.num_workers, 'worker')} for every pass, {ms(start)} a step",
        loader.place,
        (trace.amdahl(SPARED * start), trace.amdahl(start + WAITS * trace.phase("fetch"))),
        label=f"{others + 1} loaders of one dataset were iterated here",
        advice="make the loader once, before the loop over epochs, with persistent_workers=True",
    )


RULE = Rule("D105", "respawned-workers", detect, __doc__, (LoaderWorkers,))

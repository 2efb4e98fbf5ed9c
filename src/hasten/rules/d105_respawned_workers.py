"""Worker processes are started anew in every epoch.

Why it is slow
    Without ``persistent_workers`` every pass over the loader forks its workers again, and the first batches of the
    pass wait for them.

Remedy
    ``LoaderWorkers(n)`` with the script's own number keeps them alive between passes; advised only where samples draw
    random numbers.

Fidelity
    identical where making a sample draws no random number (a worker's random state then carries on instead of
    starting anew).

When it does not help
    Few long epochs.

References
    https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from hasten.core.finding import Finding, Rule
from hasten.core.trace import Trace
from hasten.rules.d101_single_process_loader import LoaderWorkers, doubts, draws, may_move, settings

LEAST_SHARE = 0.05  # of an epoch spent starting workers
_BY_HAND = "persistent_workers=True: other samples of the same kind, since a worker's random state then carries on"


def detect(trace: Trace) -> Iterator[Finding]:
    loader = trace.loader
    if loader is None or not loader.num_workers or loader.persistent_workers or loader.starts < 2:
        return
    moves = may_move(loader)
    if not moves and not draws(loader):
        return
    each = loader.start_seconds / loader.starts
    later = [e.seconds for e in trace.epochs[1:]] or [e.seconds for e in trace.epochs]  # the first one starts up, too
    epoch = statistics.median(later) if later else trace.step_seconds * max(1, trace.steps) / loader.starts
    if not epoch > 0 or not each >= LEAST_SHARE * epoch:
        return
    yield RULE.finding(
        f"starting {loader.num_workers} workers takes {1000 * each:.0f} ms of every {1000 * epoch:.0f} ms epoch",
        loader.place,
        (1 + 0.5 * each / epoch, epoch / max(epoch - each, 0.01 * epoch)),
        label="persistent_workers is False",
        remedies=settings(trace, loader, loader.num_workers) if moves else (),
        advice="" if moves else _BY_HAND,
        notes=doubts(loader) if moves else (),
    )


RULE = Rule("D105", "respawned-workers", detect, __doc__, (LoaderWorkers,))

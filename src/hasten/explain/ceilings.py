"""Step times with one side made free, measured in forked children that go on in the user's own loop."""

from __future__ import annotations

from collections import deque
from typing import Any

from hasten.core.interval import Interval
from hasten.core.remedy import Undo
from hasten.core.trace import Ceilings
from hasten.measure.interleave import Pairs
from hasten.seams import fork
from hasten.seams.batches import Batches
from hasten.seams.child import WITH, WITHOUT, Alternating, PullOnly
from hasten.seams.record import record_batches
from hasten.seams.watch import Watch

MOST_SECONDS = 8.0  # for either ceiling
PAIRS = 24


def measure(watch: Watch) -> Ceilings:
    """As it is, data free, and model free. The caller has checked that forking is safe."""
    if watch.trained_from is None:
        return Ceilings(why_not="no DataLoader feeds the training steps")
    recorded = record_batches(watch)
    if recorded is not None and len(recorded) < 2:
        return Ceilings(why_not="the loader's workers could not be asked ahead without changing the data order")
    free = _data_free(watch, recorded)
    alone = _model_free(watch)
    if recorded is not None:  # recorded batches are free of fetching on both sides: take the parent's own steps
        as_is = None
    else:
        as_is = free[0]
    return Ceilings(
        as_is=as_is,
        data_free=free[1],
        model_free=alone,
        data_free_ratio=free[2] if recorded is None else None,
        method="fork, alternating step by step" if recorded is None else "fork, recorded batches",
    )


def _data_free(watch: Watch, recorded: deque[Any] | None) -> tuple[Interval | None, Interval | None, Interval | None]:
    def driver(sender: fork.Sender) -> Alternating:
        batches = Batches(watch, deque(recorded) if recorded is not None else None)
        batches.take_over()

        def free() -> Undo:
            batches.free = True

            def undo() -> None:
                batches.free = False

            return undo

        return Alternating(sender, watch, free, prepare=batches.mend, most_pairs=PAIRS)

    child = fork.go(watch, driver)
    rows = child.drain(MOST_SECONDS)
    times = {way: [r[1] for r in rows if r[0] == way] for way in (WITHOUT, WITH)}
    pairs = Pairs()
    for a, b in zip(times[WITHOUT], times[WITH], strict=False):
        pairs.add(a, b)
    if len(pairs.wall) < 3:
        return None, None, None
    return Interval.of_mean(times[WITHOUT]), Interval.of_mean(times[WITH]), pairs.ratio(0.95)


def _model_free(watch: Watch) -> Interval | None:
    child = fork.go(watch, lambda sender: PullOnly(sender, watch, PAIRS, MOST_SECONDS / 2), processes=False)
    rows = child.drain(MOST_SECONDS)
    times = [r[1] for r in rows if r[0] == 0]
    return Interval.of_mean(times) if len(times) >= 3 else None

"""Step times with one side made free, measured in forked children that go on in the user's own loop."""

from __future__ import annotations

import dataclasses
import statistics
from collections import deque
from typing import Any

from hasten.core.facts import Probe
from hasten.core.interval import Interval
from hasten.core.trace import PHASES, Ceilings
from hasten.measure.interleave import Pairs
from hasten.seams import fork
from hasten.seams.batches import Batches
from hasten.seams.child import WITH, WITHOUT, Alternating, PullOnly
from hasten.seams.look import look
from hasten.seams.record import NOT_ASKED, record_batches
from hasten.seams.thrown import Command
from hasten.seams.watch import Watch
from hasten.seams.window import WARM

MOST_SECONDS = 8.0  # for either ceiling
PAIRS = 24
EVALUATION, CHECKPOINT, PYTHON = (1 + PHASES.index(name) for name in ("evaluation", "checkpoint", "python"))
LEAST = 3  # steps below which nothing is told
NO_LOADER = "no DataLoader feeds the training steps"
NAMELESS = "the loop makes its DataLoader and keeps no name for it, so that it cannot be asked alone"
SILENT = 16  # backward passes since a loader was asked, and its iterator is gone
SEVERAL = "several loaders feed a step, and only one of them could be made free"
KEPT = "the training steps no longer ask a DataLoader: its batches are kept"
TOO_FEW = f"fewer than {LEAST} such steps were taken in {MOST_SECONDS:.0f} s"


def measure(watch: Watch) -> Ceilings:
    """As it is, data free, and model free. The caller has checked that forking is safe."""
    if watch.trained_from is None:
        return Ceilings(why_not=NO_LOADER)
    if watch.trained_from.iterator is None and watch.backwards - watch.trained_from.asked_at > SILENT:
        return Ceilings(why_not=KEPT)
    if any(record.feeds_beside for record in watch.loaders.values()):
        return Ceilings(why_not=SEVERAL)
    recorded = record_batches(watch)
    if recorded is not None and len(recorded) < 2:
        return Ceilings(why_not=NOT_ASKED)
    without, with_, fetched = _data_free(watch, recorded)
    if recorded is None and _made_inside(watch, fetched):
        return paired(without, with_, fetched, "" if len(with_) >= LEAST else TOO_FEW)
    alone = _model_free(watch)
    why_not = "" if len(with_) >= LEAST and len(alone) >= LEAST else TOO_FEW
    if not alone and watch.trained_from.loader() is None:
        why_not = NAMELESS
    if recorded is None:
        return _apart(without, with_, alone, why_not)
    return Ceilings(  # recorded batches are free of fetching on both sides: as it is are the parent's own steps
        as_is=_known(Interval.of_mean(_within_passes(watch))),
        data_free=_known(Interval.of_median(with_)),
        model_free=_known(Interval.of_mean(alone)),
        method="fork, recorded batches; without evaluations and what else is done now and then",
        why_not=why_not,
    )


def _made_inside(watch: Watch, fetched: list[float]) -> bool:
    """Whether each step makes the batches that it waits for, so that this is what they take, and paired with the step:
    asked for at another time, the machine may be twice as busy."""
    record = watch.trained_from
    loader = record.loader() if record is not None else None
    workers = loader.num_workers if loader is not None else record is None or record.iterator is None
    return not workers and all(seconds > 0 for seconds in fetched)


def _apart(without: list[float], with_: list[float], alone: list[float], why_not: str) -> Ceilings:
    """Ceilings where batches had to be asked for by themselves, which took ``alone`` seconds a step."""
    found = paired(without, with_, [], why_not)
    return dataclasses.replace(found, model_free=_known(Interval.of_median(alone)))


def _within_passes(watch: Watch) -> list[float]:
    """Seconds of the steps so far, waiting for batches included, without what the child's steps do not have:
    evaluations, checkpoints, and what is done in Python once a pass (figures of a tutorial, 80 of 110 ms a step)."""
    rows = watch.records()[WARM:]
    usual = statistics.median(row[PYTHON] for row in rows) if rows else 0
    return [(row[0] - row[EVALUATION] - row[CHECKPOINT] - max(0, row[PYTHON] - usual)) / 1e9 for row in rows]


def aside(watch: Watch, command: Command, step_seconds: float) -> tuple[Ceilings, dict[int, Probe]]:
    """The same, and the probes of the datasets, where forking is not safe: in a throw-away process."""
    seen = look(watch, command, step_seconds, PAIRS, MOST_SECONDS)
    if watch.trained_from is None:
        return Ceilings(why_not=NO_LOADER), seen.probes
    if any(record.feeds_beside for record in watch.loaders.values()):
        return Ceilings(why_not=SEVERAL), seen.probes
    if not seen.heard:
        return Ceilings(why_not="a process in which the script was begun anew did not come so far"), seen.probes
    if _made_inside(watch, seen.fetched):
        found = paired(seen.without, seen.with_, seen.fetched, "" if len(seen.with_) >= LEAST else TOO_FEW)
    else:
        alone = [x * watch.batches for x in seen.alone]
        why_not = "" if len(seen.with_) >= LEAST and len(alone) >= LEAST else TOO_FEW
        found = _apart(seen.without, seen.with_, alone, why_not)
    return dataclasses.replace(found, method=found.method.replace("fork", "a throw-away process", 1)), seen.probes


def paired(without: list[float], with_: list[float], fetched: list[float], why_not: str = "") -> Ceilings:
    """Ceilings from steps that alternate. Times and speed-ups are one statistic, which a few slow steps do not move:
    medians, and a step with one side free is the step as it is divided by the pairs' speed-up.

    Args:
        without, with_: seconds of a step as it is, and of the data-free step beside it.
        fetched: of each step as it is, seconds that it waited for its batches.
        why_not: why one of them is not known.
    """
    rest = [a - f for a, f in zip(without, fetched, strict=False)]
    ratio, of_data = _widened(_ratio(without, with_), _ratio(without, rest)), _ratio(without, fetched)
    as_is = _known(Interval.of_median(without))
    return Ceilings(
        as_is=as_is,
        data_free=_divided(as_is, ratio),
        model_free=_divided(as_is, of_data),
        data_free_ratio=ratio,
        model_free_ratio=of_data,
        method="fork, alternating step by step; medians, each is as it is divided by the pairs' speedup",
        why_not=why_not,
    )


def _ratio(without: list[float], with_: list[float]) -> Interval | None:
    pairs = Pairs()
    for a, b in zip(without, with_, strict=False):
        if a > 0 and b > 0:
            pairs.add(a, b)
    return pairs.ratio(0.95) if len(pairs.wall) >= LEAST else None


def _widened(ratio: Interval | None, told: Interval | None) -> Interval | None:
    """A measured speed-up, its interval reaching as far as another witness of it: a data-free step saves what the step
    as it is waited for its batches, and little else. On a busy machine pairs may tell far more: a step that fits
    into the scheduler's slice is not made to wait for other processes, a longer one is."""
    if ratio is None or told is None:
        return ratio
    return dataclasses.replace(ratio, low=min(ratio.low, told.value), high=max(ratio.high, told.value))


def _known(x: Interval) -> Interval | None:
    return x if x.n >= LEAST else None


def _divided(as_is: Interval | None, ratio: Interval | None) -> Interval | None:
    if as_is is None or ratio is None:
        return None
    x = as_is.value
    return Interval(x / ratio.value, x / ratio.high, x / ratio.low, as_is.unit, ratio.level, ratio.n)


def _data_free(watch: Watch, recorded: deque[Any] | None) -> tuple[list[float], list[float], list[float]]:
    def driver(sender: fork.Sender) -> Alternating:
        batches = Batches(watch, deque(recorded) if recorded is not None else None)
        batches.take_over()

        return Alternating(sender, watch, batches.hand_out_again, prepare=batches.mend, most_pairs=PAIRS)

    child = fork.go(watch, driver)
    rows = child.drain(MOST_SECONDS)
    as_it_is = [r for r in rows if r[0] == WITHOUT]
    return [r[1] for r in as_it_is], [r[1] for r in rows if r[0] == WITH], [r[4] for r in as_it_is]


def _model_free(watch: Watch) -> list[float]:
    child = fork.go(watch, lambda sender: PullOnly(sender, watch, PAIRS, MOST_SECONDS / 2), processes=False)
    rows = child.drain(MOST_SECONDS)
    return [r[1] * watch.batches for r in rows if r[0] == 0]

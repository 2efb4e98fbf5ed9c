"""The loader has too few worker processes, or too many: the step waits for batches, or for a core.

Why it is slow
    With ``num_workers=0`` the model waits while samples are made, and idle cores wait with it. So it does where workers
    are fewer than the work needs. With more workers than cores they take turns, unless they mostly wait themselves (for
    a disk, a network).

Remedy
    ``LoaderWorkers(n)`` gives the loader ``n`` persistent worker processes (0 takes them away).

Fidelity
    identical where making a sample draws no random number; otherwise equivalent (workers draw from other streams),
    and then not applied from outside, but advised. Workers hold the dataset of the pass: what the script changes
    within a pass is seen for the next batch, but for a few rows of an array over 512 kB or of a list over 65,536,
    which the next pass shows.

When it does not help
    When the cores are busy with the model already: on two cores the gain never exceeded 1.12, and taking workers
    away gave up to 1.65. Not applied where it would be seen: more rows would be asked for ahead from a sampler of
    the script's own that makes them one by one; without workers, batches would hold the dataset's own objects, not
    copies; workers that outlive a pass hold a dataset whose changes cannot be seen.

References
    https://docs.pytorch.org/docs/stable/data.html#multi-process-data-loading
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypedDict

from hasten.core.errors import Unsuited
from hasten.core.facts import LoaderFacts
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.data import passes
from hasten.data.probe import kind_of
from hasten.data.view import forks

LEAST_SHARE = 0.10  # of the step spent waiting for batches
MOSTLY = 0.30  # of the step spent waiting: then the workers are what it waits for, and they do not wait for it
ASLEEP = 0.5  # of a worker's time on a core, below which it waits for something else most of the time
BUSY = 0.85  # of all cores, from which on workers and model take turns
FREE = 0.5  # of a core that another computing worker needs
IN_PROCESS = 0.9  # part of the step that making the batches in the training process must leave of it
MAKING = 0.25  # of the workers' time that making samples must take for more of them to be sure of a gain
WITH_WORKERS = "worker-count"  # name of a finding on a loader that has some
IPC_SECONDS = 0.4e-3  # to hand a batch from a worker to the training process
MOST_WORKERS = 16
FEWER = 1.65  # largest gain that was measured for taking workers away
UNASKED = "the dataset could not be asked: identical only if its samples draw no random number and keep no count"


class Cure(TypedDict, total=False):
    """What a finding says to do."""

    remedies: tuple[LoaderWorkers, ...]
    notes: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class LoaderWorkers(Remedy):
    """Sets a DataLoader's worker processes; takes hold at the next iterator.

    Args:
        of: kinds of datasets (:func:`hasten.data.probe.kind_of`) that it is for, with spaces between; empty for any.
            Loaders of others, and passes over a dataset that has become another, stay as the script has them.
    """

    workers: int
    of: str = ""
    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.LOADER
    grain: ClassVar[Grain] = Grain.CHILD
    settle: ClassVar[int] = 4
    parallel: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"{self.name}({self.workers})"

    def on(self, target: Any = None) -> Undo:
        from torch.utils.data import IterableDataset

        if isinstance(target.dataset, IterableDataset):
            raise Unsuited("an IterableDataset must be split among workers by itself")
        if self.workers < 0:
            raise Unsuited("a loader cannot have fewer than no workers")
        own = target.num_workers
        if own and not self.workers and target.worker_init_fn is not None:
            raise Unsuited("the loader's workers are prepared by a function of the script")
        if passes.changed(target) or (own == self.workers and bool(own) == target.persistent_workers):
            raise Unsuited(f"the loader has {own} workers already")
        if not forks(target):  # a trial goes on in a copy of the process, which starts no programs
            whose = "the loader's workers" if own else "processes that the script starts"
            raise Unsuited(f"{whose} are started anew, not forked")
        if not getattr(target, "in_order", True):
            raise Unsuited("the loader hands batches out as they come")
        if not self._suits(target.dataset):
            raise Unsuited("nothing is known of what the loader's dataset draws")
        return passes.change(target, self.workers, self._suits)

    def _suits(self, dataset: Any) -> bool:
        return not self.of or kind_of(dataset) in self.of.split()

    def direction(self, trace: Trace) -> str:
        """More processes, fewer, or none, which also spares handing batches from one to another."""
        now = trace.loader.num_workers if trace.loader is not None else 0
        return "more" if self.workers > now else "fewer" if self.workers else "none"


@dataclass(frozen=True)
class _Unasked(LoaderWorkers):
    """The same setting where nobody knows what making a sample draws."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT

    @property
    def name(self) -> str:
        return LoaderWorkers.__name__


def settings(trace: Trace, loader: LoaderFacts, *counts: int) -> tuple[LoaderWorkers, ...]:
    """Remedies for these numbers of workers, which promise no more than is known of the datasets."""
    counts = tuple(dict.fromkeys(counts))
    if loader.probe is None:
        return tuple(_Unasked(n) for n in counts)
    asked = [(x.probe.kind, may_move(x)) for x in trace.loaders if x.probe is not None]
    unsafe = {kind for kind, safe in asked if not safe}
    of = " ".join(kind for kind in dict.fromkeys(kind for kind, _ in asked) if kind and kind not in unsafe)
    return tuple(LoaderWorkers(n, of) for n in counts)


def doubts(loader: LoaderFacts) -> tuple[str, ...]:
    """What a finding must say beside these remedies."""
    return (UNASKED,) if loader.probe is None else ()


def may_move(loader: LoaderFacts) -> bool:
    """Whether samples may be made in other processes than now, as far as is known."""
    probe = loader.probe
    return loader.map_style and (probe is None or (probe.random_free and probe.deterministic))


def draws(loader: LoaderFacts) -> bool:
    """Whether samples draw random numbers, or come one after the other: for all that is known, they might be others."""
    return not loader.map_style or (
        loader.probe is not None and not loader.probe.random_free and not loader.probe.why_not
    )


def _range(trace: Trace, best: float, certain: bool = True) -> tuple[float, float]:
    """Speed-ups down to a step of ``best`` seconds: half of what that saves to all of it, or none to all of it."""
    step = trace.step_seconds
    worst = (step + best) / 2 if certain and best < step else step
    return step / worst, step / max(best, 1e-9)


def _in_process(trace: Trace, loader: LoaderFacts) -> float:
    """Seconds to make a step's batches in the training process, as asking the dataset has shown; NaN where unknown."""
    known, probe = loader.batch_size > 0, loader.probe
    return probe.seconds * loader.batch_size * trace.batches if probe is not None and known else math.nan


def _without_workers(trace: Trace, loader: LoaderFacts) -> Iterator[Finding]:
    step, fetch, cores = trace.step_seconds, trace.phase("fetch"), trace.process.cores
    model, used = step - fetch, trace.usage.cores
    asleep = _asleep(trace, used) and fetch > MOSTLY * step
    counts = (min(2 * cores, MOST_WORKERS), cores) if asleep else tuple(n for n in (cores - 1, cores) if n)
    if not counts or (cores < 2 and not asleep):
        return
    free = asleep or cores - (used if used > 1 else 1.0) >= FREE
    best = max(model, fetch / counts[0], _work(trace) / cores) + IPC_SECONDS * trace.batches
    yield RULE.finding(
        f"the model waits {ms(fetch)} a step for batches made in its own process",
        loader.place,
        _range(trace, best, free),
        label="num_workers is 0",
        **_cure(trace, loader, *counts),
    )


def _asleep(trace: Trace, share: float) -> bool:
    """Whether who is on a core for such a share of the time waits for something else than a core."""
    return share < ASLEEP and not trace.usage.strangers > FREE


def _work(trace: Trace) -> float:
    """Seconds of a step that this process and its workers keep a core busy, whoever makes the batches; NaN where
    unknown."""
    usage = trace.usage
    workers = usage.worker_cpu_seconds if usage.worker_cpu_seconds > 0 else 0.0
    return (usage.cpu_seconds + workers) * trace.step_seconds / max(usage.wall_seconds, 1e-9)


def _cure(trace: Trace, loader: LoaderFacts, *counts: int) -> Cure:
    """What brings another number of workers about: best guess first."""
    if may_move(loader):
        return {"remedies": settings(trace, loader, *counts), "notes": doubts(loader)}
    return {"advice": _by_hand(loader, counts[0])}


def _by_hand(loader: LoaderFacts, workers: int) -> str:
    """What to write where other processes would make other samples, or all of them."""
    if not loader.map_style:
        shares = ", and in the dataset's __iter__ a share for each worker (get_worker_info)"
        others = ": other batches, for each worker makes its own"
        return f"num_workers={workers}{others if loader.num_workers else shares}"
    alive = ", persistent_workers=True" if workers and not loader.changing else ""
    return (
        f"num_workers={workers}{alive}: other samples of the same kind, since each process draws from a random"
        " stream of its own (a generator that the dataset keeps must be seeded anew in each)"
    )


def _too_few(trace: Trace, loader: LoaderFacts) -> Iterator[Finding]:
    """The step waits for its workers: more of them, or none where making a batch takes less than asking for one."""
    step, fetch, workers = trace.step_seconds, trace.phase("fetch"), loader.num_workers
    usage, here = trace.usage, _in_process(trace, loader)
    each = usage.worker_cpu_seconds / max(usage.wall_seconds, 1e-9) / workers  # NaN where unknown
    counts = _more(trace, workers, each) if not loader.cut_short else ()
    more = max(step - fetch, workers * step / counts[0]) + IPC_SECONDS * trace.batches if counts else math.inf
    none = step - fetch - trace.phase("loader start") + here
    if none < min(more, IN_PROCESS * step):
        best, counts, why = none, (0,), f"; making batches takes {ms(here)} of it"
    elif counts:
        many = f"{workers} workers are" if workers > 1 else "1 worker is"
        doing = f"on a core {each:.0%} of the time" if each >= 0 else "working all the time"
        best, why = more, f": {many} too few, {doing}"
        counts = (counts[0], 0, *counts[1:]) if none < IN_PROCESS * step else counts  # a trial will tell
    else:
        yield from _too_many(trace, loader)
        return
    certain = counts == (0,) or not here < MAKING * workers * step  # else they mostly wait, too
    yield RULE.finding(
        f"the model waits {ms(fetch)} a step for workers{why}",
        loader.place,
        _range(trace, best, certain),
        label=f"num_workers is {workers}",
        **_cure(trace, loader, *counts),
    )


def _more(trace: Trace, workers: int, each: float) -> tuple[int, ...]:
    """Larger numbers of workers that there is room for, best guess first; ``each`` is a worker's share of a core."""
    step, fetch, cores, own = trace.step_seconds, trace.phase("fetch"), trace.process.cores, trace.usage.cores
    if _asleep(trace, each) and fetch >= MOSTLY * step:  # they need no cores
        wanted = math.ceil(workers * step / max(step - fetch, IPC_SECONDS))
        most = min(max(min(wanted, 4 * cores), 2 * workers), MOST_WORKERS)
    else:
        room = cores - (own if own > 0 else 1.0) - workers * (each if each > 0 else 1.0)
        most = cores if room >= FREE else workers
    return tuple(n for n in dict.fromkeys((most, min(2 * workers, most))) if n > workers)


def _too_many(trace: Trace, loader: LoaderFacts) -> Iterator[Finding]:
    """Workers and model take turns on the cores, as far as can be seen."""
    usage, cores, workers = trace.usage, trace.process.cores, loader.num_workers
    busy = usage.cores + usage.other_load  # workers are among the others
    if not (busy >= BUSY * cores or (math.isnan(busy) and workers >= cores)):
        return
    needed = _work(trace)
    best = trace.step_seconds / FEWER
    if needed > 0:  # whoever makes the batches, this much work is left for the cores
        best = max(best, min(needed, trace.step_seconds) / max(1, min(trace.process.threads, cores)))
    many = "1 worker shares" if workers == 1 else f"{workers} workers share"
    yield RULE.finding(
        f"{many} {cores} cores with the model",
        loader.place,
        _range(trace, best, certain=False),
        label=f"num_workers is {workers}",
        **_cure(trace, loader, *(n for n in (0, 1) if n < workers)),
    )


def detect(trace: Trace) -> Iterator[Finding]:
    loader, cost, step = trace.loader, trace.phase("fetch"), trace.step_seconds
    if loader is None or not step > 0:
        return
    if not (may_move(loader) or draws(loader)):
        return
    if loader.num_workers:
        found = _too_few(trace, loader) if cost >= LEAST_SHARE * step else _too_many(trace, loader)
        yield from (replace(finding, name=WITH_WORKERS) for finding in found)
    elif cost >= LEAST_SHARE * step and not loader.cut_short:  # each pass would wait for what its workers began
        yield from _without_workers(trace, loader)


RULE = Rule("D101", "single-process-loader", detect, __doc__, (LoaderWorkers,))

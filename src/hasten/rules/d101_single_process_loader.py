"""The training process makes its batches itself, or has too many helpers.

Why it is slow
    With ``num_workers=0`` the model waits while samples are made, and idle cores wait with it. With more workers
    than cores they take turns.

Remedy
    ``LoaderWorkers(n)`` gives the loader ``n`` persistent worker processes (0 takes them away).

Fidelity
    identical where making a sample draws no random number; otherwise equivalent (workers draw from other streams),
    and then not applied from outside.

When it does not help
    When the cores are busy with the model already: on two cores the gain never exceeded 1.12, and taking workers
    away gave up to 1.65.

References
    https://docs.pytorch.org/docs/stable/data.html#multi-process-data-loading
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.core.trace import LoaderFacts, Trace

LEAST_SHARE = 0.10  # of the step spent waiting for batches
IPC_SECONDS = 0.4e-3  # to hand a batch from a worker to the training process


@dataclass(frozen=True)
class LoaderWorkers(Remedy):
    """Sets a DataLoader's worker processes; takes hold at the next iterator."""

    workers: int
    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.LOADER
    grain: ClassVar[Grain] = Grain.CHILD
    settle: ClassVar[int] = 4
    parallel: ClassVar[bool] = True

    def on(self, target: Any = None) -> Undo:
        from torch.utils.data import IterableDataset

        if isinstance(target.dataset, IterableDataset):
            raise Unsuited("an IterableDataset must be split among workers by itself")
        if self.workers < 0:
            raise Unsuited("a loader cannot have fewer than no workers")
        if not self.workers and target.worker_init_fn is not None:
            raise Unsuited("the loader's workers are prepared by a function of the script")
        fields = vars(target)
        names = ("num_workers", "prefetch_factor", "persistent_workers", "timeout", "_iterator")
        before = {name: fields.get(name) for name in names}
        if before["num_workers"] == self.workers and bool(before["persistent_workers"]) == bool(self.workers):
            raise Unsuited(f"the loader has {self.workers} workers already")
        fields["num_workers"] = self.workers
        fields["prefetch_factor"] = 2 if self.workers else None
        fields["persistent_workers"] = self.workers > 0
        fields["timeout"] = before["timeout"] if self.workers else 0  # torch allows none without workers
        fields["_iterator"] = None

        def undo() -> None:
            fields.update(before)

        return undo


def _predicted(trace: Trace, loader: LoaderFacts, workers: int) -> tuple[float, float]:
    step, fetch = trace.step_seconds, trace.phase("fetch")
    free = max(0.0, trace.process.cores - max(1.0, trace.usage.cpu_seconds / step if step else 1.0))
    model = step - fetch
    best = max(model, fetch / max(1, workers)) + IPC_SECONDS
    worst = step if free < 0.25 else max(model, fetch / max(0.25, min(workers, free))) + IPC_SECONDS
    return step / worst, step / best


def detect(trace: Trace) -> Iterator[Finding]:
    loader, cost = trace.loader, trace.phase("fetch")
    if loader is None or not loader.map_style or not trace.step_seconds > 0:
        return
    if loader.probe is not None and not (loader.probe.random_free and loader.probe.deterministic):
        return
    cores = trace.process.cores
    if loader.num_workers == 0 and cost >= LEAST_SHARE * trace.step_seconds and cores > 1:
        yield RULE.finding(
            f"the model waits {1000 * cost:.1f} ms a step for batches made in its own process",
            loader.place,
            _predicted(trace, loader, cores - 1),
            label="num_workers is 0",
            remedies=tuple(LoaderWorkers(n) for n in dict.fromkeys((cores - 1, cores)) if n),
        )
    elif loader.num_workers and (loader.num_workers >= cores or trace.process.device == "cpu"):
        yield RULE.finding(
            f"{loader.num_workers} workers share {cores} cores with the model",
            loader.place,
            (1.0, 1.6),
            label=f"num_workers is {loader.num_workers}",
            remedies=tuple(LoaderWorkers(n) for n in (0, 1) if n < loader.num_workers),
        )


RULE = Rule("D101", "single-process-loader", detect, __doc__, (LoaderWorkers,))

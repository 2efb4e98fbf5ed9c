"""Batches of an in-memory dataset are put together sample by sample.

Why it is slow
    A ``DataLoader`` asks for every row by itself and stacks the rows again: thousands of small tensor operations
    for what is one gather.

Remedy
    ``BatchedFetch()`` gathers the whole batch at once from ``TensorDataset``, ``Subset``, torchvision's MNIST- and
    CIFAR-like datasets with ``ToTensor`` and ``Normalize``, and datasets of your own whose ``__getitem__`` picks rows
    or windows out of arrays (``return self.x[i], self.y[i]``; ``self.series[i : i + self.length]``); the sampler, its
    order and all random draws stay torch's own. Such a ``__getitem__`` is read, not run: where it does anything else
    than pick and convert, it is asked for sample by sample as before.

Fidelity
    identical: the same bytes in the same order, random states untouched.

When it does not help
    Datasets that read files, or whose items are computed in Python.

References
    https://github.com/pytorch/pytorch/issues/4959
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.facts import LoaderFacts
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.data.gather import NotGatherable, gather_of, plain_rows
from hasten.data.passes import begun
from hasten.data.rows import row_batches, torchs_own
from hasten.data.view import gathered, put, samples_of, source

LEAST_SHARE = 0.03  # of the step spent fetching
SAVED = (0.6, 0.97)  # part of the fetch that a gather saves where it could not be timed; measured 3x to 45x …
SAVED_READ = (0.3, 0.97)  # … and 1.5x to 9x where it is read from code: long windows are mostly copying
RELIEF = 0.05  # of a step, at most, that goes faster, too: samples displace less of what it needs in caches …
RELIEF_BUSY = 0.5  # … and where others want the cores, a team of threads that has slept meanwhile waits for one (2.8x
STRANGERS = 0.5  # where fetching was an eighth of the step); cores that others keep busy
PICTURES = ("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100")


@dataclass(frozen=True)
class BatchedFetch(Remedy):
    """Gathers whole batches from datasets that are tensors inside."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.FETCHER
    conflicts: ClassVar[tuple[str, ...]] = ("CacheSamples", "CachePrefix", "LoaderWorkers")

    def replaces(self, other: Remedy) -> bool:
        """Worker processes of a loader, but not their absence."""
        return super().replaces(other) and getattr(other, "workers", None) != 0

    def on(self, target: Any = None) -> Undo:
        from torch.utils.data._utils.collate import default_collate

        dataset, collate = source(target)
        if collate is not default_collate:
            raise Unsuited("the loader has a collate function of its own")
        try:
            gather = gather_of(dataset)
        except NotGatherable as error:
            raise Unsuited(str(error)) from None

        def batch(indices: Sequence[Any]) -> Any:
            try:
                return gather(indices)
            except (NotGatherable, IndexError):  # of the dataset's own errors, too, the first one is raised
                return collate(samples_of(dataset, plain_rows(indices)))

        return put(target, batch)

    def with_iterator(self, iterator: Any) -> None:
        """A new pass over a loader in this process gets its row numbers as tensors while batches are gathered."""
        fetcher = getattr(iterator, "_dataset_fetcher", None)
        if gathered(fetcher) and torchs_own(iterator._index_sampler) and not begun(iterator):
            iterator._sampler_iter = row_batches(iterator._index_sampler, lambda: gathered(fetcher))


def detect(trace: Trace) -> Iterator[Finding]:
    loader, cost = trace.loader, trace.phase("fetch")
    if loader is None or loader.num_workers or not loader.default_collate or not _gatherable(loader):
        return
    if not cost >= LEAST_SHARE * trace.step_seconds:
        return
    predicted = trace.without("fetch", *_saved(loader))
    waits = trace.process.threads > 1 and trace.usage.strangers > STRANGERS
    predicted = predicted[0], predicted[1] / (1 - (RELIEF_BUSY if waits else RELIEF))
    rows = f"{loader.batch_size} rows" if loader.batch_size > 0 else "rows"
    yield RULE.finding(
        f"{loader.dataset} is asked for {rows} one by one, {ms(cost)} a step",
        loader.place,
        predicted,
        label="stacks rows that were one tensor before",
        remedies=(BatchedFetch(),),
        notes=trace.evaluations_beside("fetch", predicted),
    )


def _saved(loader: LoaderFacts) -> tuple[float, float]:
    """Least and greatest part of the fetch that a gather saves: as it was timed on this dataset, if it was."""
    timed = loader.probe.gathered if loader.probe is not None else None
    if timed is not None:
        return max(0.0, 1 - timed.high), max(0.0, 1 - timed.low)
    return SAVED if _known(loader) else SAVED_READ


def _gatherable(loader: LoaderFacts) -> bool:
    return loader.probe.gatherable if loader.probe is not None else _known(loader)  # where nothing could be asked


def _known(loader: LoaderFacts) -> bool:
    return loader.tensor_backed or loader.dataset in PICTURES


RULE = Rule("D102", "sample-by-sample", detect, __doc__, (BatchedFetch,))

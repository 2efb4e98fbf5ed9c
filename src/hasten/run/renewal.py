"""New passes over the training data in a child, with remedies on that take hold of new passes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hasten.core.errors import Unsuited
from hasten.core.remedy import Remedy, Seam
from hasten.seams.batches import Batches, Few
from hasten.seams.watch import Watch

FEW_BATCHES = 4  # that workers make again and again where they keep samples


def training_loader(watch: Watch) -> tuple[Any, Any]:
    """The record of the loader that feeds the training, and the loader.

    Raises:
        Unsuited: there is none.
    """
    record = watch.trained_from
    loader = record.loader() if record is not None else None
    if record is None or loader is None:
        raise Unsuited("no loader feeds the training")
    return record, loader


def renew_iterator(watch: Watch, batches: Batches, remedies: Sequence[Remedy], few: bool) -> None:
    """Give the training loop an iterator made now, in place of the one it holds.

    Args:
        few: have it ask for a few batches again and again, and make what workers would have kept of these.
    """
    record, loader = training_loader(watch)
    if few and loader.batch_sampler is not None:
        vars(loader)["batch_sampler"] = Few(loader.batch_sampler, FEW_BATCHES)
    if loader.num_workers:
        _before_workers(loader, remedies)
    batches.renew(record.iterator, loader, record)


def _before_workers(loader: Any, remedies: Sequence[Remedy]) -> None:
    """Have remedies make what the loader's new workers will share."""
    before, vars(loader)["_iterator"] = loader._iterator, None  # the script's workers are none of these
    try:
        for remedy in remedies:
            if (share := getattr(remedy, "before_workers", None)) is not None:
                share(loader)
            if (ahead := getattr(remedy, "ahead", None)) is not None:
                for rows in getattr(loader.batch_sampler, "rows", ()):
                    ahead(loader, rows)
    finally:
        vars(loader)["_iterator"] = before


def held_by_workers(watch: Watch, remedies: Sequence[Remedy]) -> list[Remedy]:
    """Those of ``remedies`` that the script's own workers never see, since these were started before and outlive their
    passes."""
    loader = watch.trained_from.loader() if watch.trained_from is not None else None
    if loader is None or loader._iterator is None or any(hasattr(r, "workers") for r in remedies):
        return []
    return [r for r in remedies if r.seam is Seam.FETCHER]

"""Putting another way of making batches into a DataLoader or into one of torch's fetchers, and taking it out again."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

from hasten.core.errors import Unsuited
from hasten.core.remedy import Undo
from hasten.data.fingerprint import quick_fingerprint


class Ready:
    """A batch that needs no collating."""

    __slots__ = ("batch",)

    def __init__(self, batch: Any) -> None:
        self.batch = batch


class BatchView:
    """A dataset as it is, with all its attributes, except that whole batches come from elsewhere."""

    __slots__ = ("_hasten_batch", "_hasten_dataset")

    def __init__(self, dataset: Any, batch: Callable[[Sequence[Any]], Any]) -> None:
        self._hasten_dataset = dataset
        self._hasten_batch = batch

    def __getitems__(self, indices: Sequence[Any]) -> Ready:
        return Ready(self._hasten_batch(indices))

    def __getitem__(self, index: Any) -> Any:
        return self._hasten_dataset[index]

    def __len__(self) -> int:
        return len(self._hasten_dataset)

    def __getattr__(self, name: str) -> Any:
        if name in BatchView.__slots__:  # asked of a copy in the making
            raise AttributeError(name)
        return getattr(self._hasten_dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in BatchView.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._hasten_dataset, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._hasten_dataset, name)


def samples_of(dataset: Any, indices: Sequence[Any]) -> list[Any]:
    """The dataset's own samples, as torch's fetcher asks for them."""
    many = getattr(dataset, "__getitems__", None)
    return list(many(list(indices))) if many else [dataset[i] for i in indices]


def asked_together(dataset: Any) -> bool:
    """Whether code of the dataset's own makes all samples of a batch at once."""
    from torch.utils.data import Subset

    while type(dataset) is Subset:
        dataset = dataset.dataset
    return hasattr(dataset, "__getitems__")


def _unwrap(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def collate_ready(data: Any) -> Any:
        return data.batch if type(data) is Ready else collate(data)

    collate_ready.__wrapped__ = collate  # type: ignore[attr-defined]
    return collate_ready


def source(target: Any) -> tuple[Any, Callable[[list[Any]], Any]]:
    """The dataset and collate function of a DataLoader or fetcher that makes batches from a map-style dataset.

    Raises:
        Unsuited: it makes no batches from items, or has been given another way already.
    """
    from torch.utils.data import IterableDataset

    batches = getattr(target, "auto_collation", None)
    if batches is None:
        batches = target._auto_collation
    dataset = target.dataset
    if not batches:
        raise Unsuited("the loader does not put batches together")
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise Unsuited("the dataset is iterated, not indexed")
    if gathered(target):
        raise Unsuited("batches are made another way already")
    if getattr(target, "num_workers", 0) and not _forks(target):
        raise Unsuited("the loader's workers are started anew, not forked")
    try:
        len(dataset)
    except TypeError:
        raise Unsuited("the dataset has no length") from None
    return dataset, target.collate_fn


def _forks(loader: Any) -> bool:
    context = loader.multiprocessing_context or multiprocessing
    return context.get_start_method(allow_none=True) in (None, "fork")  # asking without it would choose one


def put(target: Any, batch: Callable[[Sequence[Any]], Any]) -> Undo:
    """Let ``target`` (a DataLoader or fetcher) make its batches by ``batch(indices)``."""
    dataset, collate = target.dataset, target.collate_fn
    fields = vars(target)
    fields["dataset"], fields["collate_fn"] = BatchView(dataset, batch), _unwrap(collate)
    fetcher = not hasattr(target, "batch_sampler")
    if fetcher:
        fields["fetch"] = batch  # no detour by way of samples

    def undo() -> None:
        fields["dataset"], fields["collate_fn"] = dataset, collate
        if fetcher:
            del fields["fetch"]

    return undo


def gathered(target: Any) -> bool:
    """Whether a DataLoader or fetcher makes its batches another way at the moment."""
    return isinstance(getattr(target, "dataset", None), BatchView)


def asks_anew(target: Any) -> Callable[[], bool]:
    """Says before each batch whether the dataset may have changed since it was last compared.

    A fetcher lives for one pass, and all is compared when it comes; within the pass its settings are looked at. A
    DataLoader goes on for many: there anything may have changed at any time, in a worker process before its first
    batch.
    """
    from torch.utils.data import get_worker_info

    if not hasattr(target, "batch_sampler"):
        dataset = target.dataset
        mark = quick_fingerprint(dataset)

        def changed() -> bool:
            nonlocal mark
            before, mark = mark, quick_fingerprint(dataset)
            return bool(mark != before)

        return changed
    asked: set[int] = set()

    def ask() -> bool:
        if get_worker_info() is None:
            return True
        new = os.getpid() not in asked
        asked.add(os.getpid())
        return new

    return ask


def original(target: Any) -> tuple[Any, Callable[[list[Any]], Any]]:
    """The dataset and collate function that the script gave, whether another way is put in or not."""
    dataset, collate = target.dataset, target.collate_fn
    if isinstance(dataset, BatchView):
        return dataset._hasten_dataset, collate.__wrapped__
    return dataset, collate

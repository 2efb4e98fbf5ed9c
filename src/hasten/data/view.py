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
    if getattr(target, "num_workers", 0) and not forks(target):
        raise Unsuited("the loader's workers are started anew, not forked")
    try:
        len(dataset)
    except TypeError:
        raise Unsuited("the dataset has no length") from None
    return dataset, target.collate_fn


def forks(loader: Any) -> bool:
    """Whether worker processes of a DataLoader are copies of this one, as far as is known before any is started."""
    context = loader.multiprocessing_context or multiprocessing
    return context.get_start_method(allow_none=True) in (None, "fork")  # asking without it would choose one


def put(target: Any, batch: Callable[[Sequence[Any]], Any], begins: Callable[[], object] | None = None) -> Undo:
    """Let ``target`` (a DataLoader or fetcher) make its batches by ``batch(indices)``.

    Args:
        begins: called before each pass over a loader.
    """
    dataset, collate = target.dataset, target.collate_fn
    fields = vars(target)
    fields["dataset"], fields["collate_fn"] = BatchView(dataset, batch), _unwrap(collate)
    fetcher = not hasattr(target, "batch_sampler")
    own = "fetch" if fetcher else "_get_iterator" if begins is not None else ""
    if fetcher:
        fields["fetch"] = batch  # no detour by way of samples
    elif begins is not None:
        fields["_get_iterator"] = _begun(target, begins)

    def undo() -> None:
        fields["dataset"], fields["collate_fn"] = dataset, collate
        if own:
            del fields[own]

    return undo


def _begun(loader: Any, begins: Callable[[], object]) -> Callable[[], Any]:
    def _get_iterator() -> Any:
        begins()
        return type(loader)._get_iterator(loader)

    return _get_iterator


def gathered(target: Any) -> bool:
    """Whether a DataLoader or fetcher makes its batches another way at the moment."""
    return isinstance(getattr(target, "dataset", None), BatchView)


class Changes:
    """Says before each batch whether the dataset must be compared as a whole with what it was.

    It must when a pass begins: a fetcher lives for one pass, and all is compared when it comes; a loader says so
    (:meth:`begin`), in a worker process with the first batch; where neither is seen (an iterator that never ends), with
    every as many samples as there are. Within the pass its settings are looked at.
    """

    def __init__(self, target: Any) -> None:
        self._dataset = target.dataset
        self._mark = quick_fingerprint(self._dataset)
        self._length, self._asked = len(self._dataset), 0
        self._by_hand = hasattr(target, "batch_sampler")
        self._process, self._due = os.getpid(), False

    def begin(self) -> None:
        """A pass begins."""
        self._due = True

    def before(self, samples: int) -> bool:
        """Asked before each batch of so many samples."""
        mark, due = quick_fingerprint(self._dataset), self._due
        due |= self._by_hand and self._process != os.getpid()
        due |= self._asked + samples > self._length or mark != self._mark
        self._asked = samples if due else self._asked + samples
        self._mark, self._process, self._due = mark, os.getpid(), False
        return due


def original(target: Any) -> tuple[Any, Callable[[list[Any]], Any]]:
    """The dataset and collate function that the script gave, whether another way is put in or not."""
    dataset, collate = target.dataset, target.collate_fn
    if isinstance(dataset, BatchView):
        return dataset._hasten_dataset, collate.__wrapped__
    return dataset, collate

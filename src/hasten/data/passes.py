"""Passes over a loader by other worker processes than its script has asked for: the same batches, the same draws.

With each pass torch asks the sampler for its rows and draws a seed for workers: without workers once each, with new
workers it asks twice, with workers that outlive a pass it draws no seed but the first. Whoever changes a loader's
workers changes what is drawn, and so the order of every later pass, unless asking and drawing are done as the script's
own settings would have had them done.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from hasten.core.errors import Unsuited
from hasten.core.remedy import Undo
from hasten.data import view
from hasten.data.fingerprint import draws_by_itself, whole_fingerprint
from hasten.data.handed import hands_out_its_own

ASK, ASK_AND_DRAW, ASK_DRAW_ASK = "ask", "ask, draw", "ask, draw, ask"  # what a pass begins with
_METHODS = {  # of torch's own classes, which passes are made by …
    "DataLoader": ("_get_iterator",),
    "_SingleProcessDataLoaderIter": ("_next_index",),
    "_MultiProcessingDataLoaderIter": ("_reset", "_try_put_index", "_next_data", "_next_index", "_process_data"),
    "_DatasetKind": ("create_fetcher",),
}
_FIELDS = (  # … and what its loaders and iterators keep
    "_auto_collation", "_collate_fn", "_dataset_kind", "_drop_last", "_index_sampler", "_iterator", "_num_workers",
    "_prefetch_factor", "_sampler_iter", "_workers",
)  # fmt: skip
_SETTINGS = ("num_workers", "prefetch_factor", "persistent_workers", "timeout", "_iterator")
_known: weakref.WeakKeyDictionary[Any, Passes] = weakref.WeakKeyDictionary()


def changed(loader: Any) -> bool:
    """Whether a loader's passes are made here."""
    return loader in _known


def change(loader: Any, workers: int, suits: Callable[[Any], bool]) -> Undo:
    """Have a loader's passes from the next one on made by so many workers, which outlive them; with the way back.

    Args:
        suits: asked with the dataset before each pass: whether its samples may be made elsewhere. A pass for which
            they may not is the script's own.

    Raises:
        Unsuited: the passes would not be the same, or this version of torch makes them in another way.
    """
    _check(loader, workers)
    _patch()
    fields = vars(loader)
    before = {name: fields.get(name) for name in _SETTINGS}
    _known[loader] = passes = Passes(before, workers, suits)
    if not workers and _outlive(before):
        passes.mark = whole_fingerprint(_dataset(loader))
    fields.update(num_workers=workers, prefetch_factor=2 if workers else None, _iterator=None)
    if not workers:
        fields["timeout"] = 0  # torch allows none without workers

    def undo() -> None:
        _known.pop(loader, None)
        fields.update(before)

    return undo


def _check(loader: Any, workers: int) -> None:
    import torch
    from torch.utils.data import DataLoader

    missing = missing_names()
    if missing:
        raise Unsuited(f"DataLoader has no {', '.join(missing)} in torch {torch.__version__}")
    if type(loader)._get_iterator is not DataLoader._get_iterator:
        raise Unsuited(f"{type(loader).__name__} makes its passes in a way of its own")
    ahead = loader.num_workers * (loader.prefetch_factor or 0)
    if workers and 2 * workers != ahead and any(map(_lazy, (loader.batch_sampler, loader.sampler))):
        raise Unsuited("the loader's sampler makes its rows as they are asked for, and more would be asked for ahead")
    collate = loader.collate_fn
    if not str(getattr(collate, "__module__", "")).startswith("torch.") and draws_by_itself(collate):
        raise Unsuited("the loader's collate function draws from a generator of its own, of which workers have copies")
    if not workers and _outlive(vars(loader)) and whole_fingerprint(_dataset(loader)) is None:
        raise Unsuited("the loader's workers hold the dataset as it was, and whether it changes cannot be seen")
    if not workers and loader.num_workers and hands_out_its_own(loader):
        raise Unsuited("the loader's batches would hold the dataset's own objects, of which its workers send copies")


@functools.cache
def missing_names() -> tuple[str, ...]:
    """What this version of torch does not have of that which passes are made by."""
    from torch.utils.data import dataloader

    names = ((owner, name) for owner, names in _METHODS.items() for name in names)
    methods = [name for owner, name in names if not hasattr(getattr(dataloader, owner, None), name)]
    kinds = [getattr(dataloader, name, object) for name in (*_METHODS, "_BaseDataLoaderIter")]
    kept = {name for kind in kinds for name in getattr(getattr(kind.__init__, "__code__", None), "co_names", ())}
    return *methods, *(name for name in _FIELDS if name not in kept)


def _lazy(sampler: Any) -> bool:
    """Whether a sampler of the script's own, or one inside of it, may look at the training, or draw random numbers, for
    each of its rows: its ``__iter__`` is a generator, makes one, or gives itself."""
    from torch.utils.data import Sampler

    kind = type(sampler)
    code = getattr(getattr(kind, "__iter__", None), "__code__", None)
    if code is not None and not kind.__module__.startswith("torch."):
        inner = (c for c in code.co_consts if inspect.iscode(c))
        if hasattr(kind, "__next__") or any(c.co_flags & inspect.CO_GENERATOR for c in (code, *inner)):
            return True
    return any(isinstance(v, Sampler) and _lazy(v) for v in getattr(sampler, "__dict__", {}).values())


def _outlive(settings: dict[str, Any]) -> bool:
    """Whether a loader's workers outlive its passes, by its own settings."""
    return bool(settings["num_workers"] and settings["persistent_workers"])


def _dataset(loader: Any) -> Any:
    """What the script gave, also where batches are made of it in another way."""
    return view.original(loader)[0]


def _ours(iterator: Any) -> bool:
    """Whether an iterator's workers are this process's, not those of the process that it is a copy of."""
    return all(getattr(worker, "_parent_pid", os.getpid()) == os.getpid() for worker in iterator._workers)


def begun(iterator: Any) -> bool:
    """Whether the sampler was asked for rows of this pass already, before the first batch is."""
    return type(iterator._sampler_iter) is _Ahead


class Passes:
    """Makes a loader's iterators.

    Workers go on to the next pass where nobody else holds their iterator (a second loop over the same loader inside
    the first has its own) and the dataset is what it was when they were forked.
    """

    def __init__(self, before: dict[str, Any], workers: int, suits: Callable[[Any], bool]) -> None:
        self.before = before
        self.workers = workers
        self.suits = suits
        self.later = ASK_DRAW_ASK if before["num_workers"] else ASK_AND_DRAW
        self.first = self.later
        if _outlive(before):
            self.later = ASK
            if before["_iterator"] is not None:
                self.first = ASK
        self.kept: Any = None
        self.mark: Any = None  # of the dataset that workers hold

    def iterator(self, loader: Any, original: Callable[[Any], Any]) -> Any:
        """What ``iter(loader)`` gives."""
        dataset = _dataset(loader)
        if not self.suits(dataset):
            self.kept = None
            return self._own(loader, original)
        mark = whole_fingerprint(dataset) if self.workers or _outlive(self.before) else None
        if not self.workers:
            if _outlive(self.before):
                if self.before["_iterator"] is None:  # the first: made now, its workers hold the dataset as it is
                    self.mark, self.first = mark, ASK
                    self.before["_iterator"] = self._own(loader, original)
                    return self.before["_iterator"]
                if (mark is None or mark != self.mark) and _ours(self.before["_iterator"]):
                    return self._back(loader)
            return self._here(loader)
        if self.kept is not None and mark is not None and mark == self.mark and sys.getrefcount(self.kept) <= 2:
            self.kept._reset(loader)
            return self.kept
        self.kept, self.mark = None, mark
        changes: dict[str, Any] = {"persistent_workers": True}
        if not self.before["num_workers"]:
            changes["worker_init_fn"] = None  # with the script's settings it is never called
        from hasten.data.outliving import Outliving

        with _with(loader, **changes), self._seeding(loader):
            made = Outliving(loader, self.first, self.later, not self.before["num_workers"])
        self.first = self.later
        if not self.before["persistent_workers"]:  # else the loader itself keeps it
            self.kept = made
        return made

    def _own(self, loader: Any, original: Callable[[Any], Any]) -> Any:
        """A pass as the script has it."""
        with _with(loader, **{name: self.before[name] for name in _SETTINGS if name != "_iterator"}):
            return original(loader)

    def _back(self, loader: Any) -> Any:
        """From this pass on the script's own workers again: the dataset is no longer what they hold."""
        _known.pop(loader, None)
        vars(loader).update(self.before)
        self.before["_iterator"]._reset(loader)
        return self.before["_iterator"]

    def _here(self, loader: Any) -> Any:
        """A pass in this process."""
        from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

        with _with(loader, persistent_workers=False), self._seeding(loader):
            made = _SingleProcessDataLoaderIter(loader)
        if self.first == ASK_DRAW_ASK:
            made._sampler_iter = iter(made._index_sampler)
        self.first = self.later
        if self.before["num_workers"]:
            made._sampler_iter = _Ahead(made._sampler_iter, self.before["num_workers"] * self.before["prefetch_factor"])
        return made

    def _seeding(self, loader: Any) -> Any:
        """Where the script's own pass would draw no seed, it comes from elsewhere."""
        import torch

        return _with(loader, generator=torch.Generator()) if self.first == ASK else contextlib.nullcontext()


@contextlib.contextmanager
def _with(loader: Any, **changes: Any) -> Iterator[None]:
    """With some of a loader's settings changed for a moment."""
    fields = vars(loader)
    before = {name: fields[name] for name in changes}
    fields.update(changes)
    try:
        yield
    finally:
        fields.update(before)


class _Ahead:
    """The same rows, asked for as far ahead as workers have them, from now on."""

    def __init__(self, rows: Iterator[Any], count: int) -> None:
        self.rows = rows
        self.queue = deque(itertools.islice(rows, count))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.queue:
            raise StopIteration
        now = self.queue.popleft()
        self.queue.extend(itertools.islice(self.rows, 1))
        return now


@functools.cache
def _patch() -> None:
    """Ask here first, for loaders that are known here."""
    from torch.utils.data import DataLoader

    original = DataLoader._get_iterator

    @functools.wraps(original)
    def _get_iterator(self: Any) -> Any:
        passes = _known.get(self)
        return original(self) if passes is None else passes.iterator(self, original)

    DataLoader._get_iterator = _get_iterator

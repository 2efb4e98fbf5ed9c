"""An iterator whose worker processes outlive its passes. Imported only where one is made, since it needs torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data.dataloader import _DatasetKind, _MultiProcessingDataLoaderIter

from hasten.data.fingerprint import quick_fingerprint
from hasten.data.passes import ASK, ASK_DRAW_ASK


class Outliving(_MultiProcessingDataLoaderIter):  # type: ignore[misc]
    """
    Args:
        alone: whether the script's own pass has no workers: then no row is asked for before the first batch is,
            what fails in a worker fails here again, with the words that the script knows, and from the batch on
            before which the script has changed a setting of the dataset all are made here.
    """

    def __init__(self, loader: Any, first: str, later: str, alone: bool) -> None:
        self.first, self.later, self.alone, self.waits = first, later, alone, alone
        self.sent: deque[Any] = deque()
        super().__init__(loader)

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        sampler: Any = self._index_sampler  # type: ignore[has-type]
        if first_iter:
            rows = iter(sampler) if self.first == ASK_DRAW_ASK else self._sampler_iter
        else:
            rows = iter(sampler)
            if self.later != ASK:
                torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
            if self.later == ASK_DRAW_ASK:
                rows = iter(sampler)
        self._index_sampler = _Begun(rows)
        self.sent.clear()
        self.waits = self.alone
        self.settings = quick_fingerprint(self._dataset) if self.alone else None
        try:
            super()._reset(loader, first_iter)
        finally:
            self._index_sampler = sampler

    def _try_put_index(self) -> None:
        if not self.waits:
            super()._try_put_index()

    def _next_data(self) -> Any:
        if self.waits:
            self.waits = False
            for _ in range(self._prefetch_factor * self._num_workers):
                self._try_put_index()
        return super()._next_data()

    def _next_index(self) -> Any:
        rows = super()._next_index()
        self.sent.append(rows)
        return rows

    def _process_data(self, data: Any, *args: Any) -> Any:  # up to torch 2.6 no worker is named
        rows = self.sent.popleft()
        if not self.alone or self._holds(data):
            return super()._process_data(data, *args)
        super()._process_data(None, *args)
        collates = (self._auto_collation, self._collate_fn, self._drop_last)
        return _DatasetKind.create_fetcher(self._dataset_kind, self._dataset, *collates).fetch(rows)

    def _holds(self, data: Any) -> bool:
        """Whether what a worker has made is what would be made here and now."""
        return not isinstance(data, ExceptionWrapper) and quick_fingerprint(self._dataset) == self.settings


class _Begun:
    """Rows that were asked for already, as a sampler."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return self.rows

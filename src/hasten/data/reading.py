"""What a dataset's ``__getitem__`` says, read as a rule for whole batches.

Hand-written datasets mostly pick rows or windows out of arrays that they hold: ``return self.x[i], self.y[i]``, or
``self.series[i : i + self.length]``. Such a method is read, not run: its source, proven to be that of the code that
runs, must hold nothing but assignments, settings of the dataset, arithmetic with the index, rows and windows of
arrays and tensors, and conversions of their dtype. What is read this way draws no random number and changes nothing,
so that rows may be picked all at once. Settings and arrays are looked up for every batch, since scripts replace them.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from hasten.data.meaning import Unreadable, looks_up_plainly, statements_of
from hasten.data.picked import Numbers, Picked
from hasten.measure.digest import raw


def read(dataset: Any) -> Callable[[Any], Any]:
    """The batch that ``default_collate([dataset[i] for i in rows])`` would be, as a function of the rows, int64 of
    shape (B,), B > 0.

    What is returned raises :class:`Unreadable` for a batch that must be asked for sample by sample. With the first
    batch of a dataset it asks for two of its samples, and compares them byte by byte.

    Raises:
        Unreadable: the method holds something else than what is read here.
    """
    method = getattr(type(dataset), "__getitem__", None)
    if not isinstance(method, types.FunctionType) or hasattr(dataset, "__getitems__"):
        raise Unreadable("its samples are not made by a plain __getitem__")
    if not looks_up_plainly(dataset):
        raise Unreadable("its attributes are made when they are asked for")
    statements, (self_name, index_name) = statements_of(method)

    def batch(rows: Any) -> Any:
        known: dict[str, Any] = {self_name: dataset, index_name: Numbers(rows)}
        try:
            for statement in statements:
                found = statement(known)
                if found is not None:
                    return _together(found[0], set())
        except Unreadable:
            raise
        except Exception as error:  # whatever it is, the dataset itself raises what the script is to see
            raise Unreadable(f"{type(error).__name__}: {error}") from None
        raise Unreadable("it returns nothing")

    return _Checked(dataset, batch)


class _Checked:
    """A rule that is compared with the dataset's own samples when its first batch is made."""

    def __init__(self, dataset: Any, batch: Callable[[Any], Any]) -> None:
        self.dataset = dataset
        self.batch = batch
        self.right = _known(dataset)
        if self.right is None:
            batch(np.zeros(1, np.int64))  # can it be read as it is now? This asks nothing of the dataset

    def __call__(self, rows: Any) -> Any:
        if self.right is not False:
            found = self.batch(rows)
            if self.right is None:
                self.right = self._as_asked(rows, found)
            if self.right:
                return found
        raise Unreadable("its samples are others than was read")

    def _as_asked(self, rows: Any, found: Any) -> bool:
        from torch.utils.data import default_collate

        ends = [0, len(rows) - 1]
        try:
            asked = default_collate([self.dataset[int(rows[e])] for e in ends])
        except Exception:  # the script's own; it is raised again where it belongs
            return False
        right = _same(asked, found, ends)
        with contextlib.suppress(TypeError):
            _CHECKED[self.dataset] = (type(self.dataset).__getitem__, right)
        return right


_CHECKED: weakref.WeakKeyDictionary[Any, tuple[Any, bool]] = weakref.WeakKeyDictionary()


def _known(dataset: Any) -> bool | None:
    """Whether a dataset's samples were as read; None where they have not been compared."""
    try:
        method, right = _CHECKED.get(dataset, (None, False))
    except TypeError:  # it cannot be hashed
        return None
    return right if method is type(dataset).__getitem__ else None


def _same(asked: Any, found: Any, rows: list[int]) -> bool:
    """Whether the batch that was asked for is the given rows of the one that was found, layout and all."""
    import torch

    if type(asked) is not type(found):
        return False
    if isinstance(asked, torch.Tensor):
        alike = asked.dtype is found.dtype and asked.stride()[1:] == found.stride()[1:]
        mine = found[rows]
        return alike and asked.shape == mine.shape and raw(asked) == raw(mine)
    if isinstance(asked, dict):
        return list(asked) == list(found) and all(_same(asked[k], found[k], rows) for k in asked)
    return len(asked) == len(found) and all(_same(a, f, rows) for a, f in zip(asked, found, strict=True))


def _together(value: Any, given: set[int]) -> Any:
    """A returned value as ``default_collate`` gives it; no two of its tensors share memory."""
    if isinstance(value, (Numbers, Picked)):
        return value.batch(given)
    if isinstance(value, (tuple, list)) and value:
        return [_together(v, given) for v in value]
    if isinstance(value, dict) and value:
        return {k: _together(v, given) for k, v in value.items()}
    raise Unreadable("it returns something that is the same for all samples")

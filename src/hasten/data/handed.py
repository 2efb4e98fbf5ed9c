"""Whether a loader's batches hold objects that its dataset keeps: from workers come copies, in one process the objects
themselves, and a script that changes its batch changes the dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from hasten.data.view import gathered
from hasten.measure.digest import random_states, restore

MOST_PARTS = 256  # of a sample or batch that are looked at; where there are more, they may be the dataset's
_IMMUTABLE = (int, float, complex, str, bytes, bool, type(None), np.generic)


def hands_out_its_own(loader: Any) -> bool:
    """Asks a map-style dataset for one sample twice, leaves random states as they were, and compares what the loader's
    collate function makes of it. False where torch's own makes a batch, which copies."""
    from torch.utils.data import default_collate

    batches = loader._auto_collation
    if gathered(loader) or (batches and loader.collate_fn is default_collate) or not len(loader.dataset):
        return False
    before = random_states()
    try:
        first, again = loader.dataset[0], loader.dataset[0]
        own = [a for a, b in zip(_parts(first), _parts(again), strict=True) if _same(a, b)]
        batch = list(_parts(loader.collate_fn([first] if batches else first)))
    except Exception:
        return True  # it cannot be seen
    finally:
        restore(before)
    if max(len(own), len(batch)) > MOST_PARTS:
        return bool(own)
    return any(_same(a, b) for a, b in itertools.product(own, batch))


def _parts(value: Any) -> Iterator[Any]:
    """Everything in a sample that can be changed."""
    if isinstance(value, _IMMUTABLE):
        return
    if not isinstance(value, tuple):
        yield value
    if isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _parts(inner)


def _same(a: Any, b: Any) -> bool:
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, np.ndarray):
        a, b = b, a
    if isinstance(a, np.ndarray):
        b = b.numpy() if isinstance(b, torch.Tensor) and b.device.type == "cpu" else b
        return a is b or (isinstance(b, np.ndarray) and np.may_share_memory(a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and 0 != a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    return a is b

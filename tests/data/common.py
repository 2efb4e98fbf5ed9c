"""Loaders beside their own twins: the same batches, the same random states, counted calls."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hasten.measure.digest import random_digest, sha256


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def passes(loader: Iterable[Any], count: int = 2, between: Callable[[int], object] | None = None) -> list[str]:
    """Digests of all batches of some passes over a loader, and of the random states after each pass.

    Args:
        between: called with the pass's number before it begins.
    """
    seed(5)
    found = []
    for number in range(count):
        if between is not None:
            between(number)
        for batch in loader:
            found.append(sha256([type(batch).__name__, strides(batch), batch]))
        found.append(random_digest())
    return found


def strides(batch: Any) -> Any:
    """Layouts and types, which sha256 does not see."""
    if isinstance(batch, torch.Tensor):
        return [batch.stride() if batch.numel() else batch.shape, batch.requires_grad]
    if isinstance(batch, dict):
        return [type(batch).__name__, [(k, strides(v)) for k, v in batch.items()]]
    if isinstance(batch, (list, tuple)):
        return [type(batch).__name__, [strides(v) for v in batch]]
    return type(batch).__name__


class Made(Dataset[Any]):
    """Samples made by a function, every call noted in a list outside of the dataset."""

    def __init__(self, length: int, make: Callable[[int], Any]) -> None:
        self.length = length
        self.make = make

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


_noted: dict[str, list[Any]] = {}


def note(name: str, value: Any) -> None:
    """Remember in a way that no reader of code can see; a dataset that is seen to change is not kept."""
    getattr(sys.modules[__name__], "_noted").setdefault(name, []).append(value)  # noqa: B009


def noted(name: str) -> list[Any]:
    """What was remembered since the last time."""
    return _noted.pop(name, [])


class Noted(Made):
    """The same, and `asked` gives the indices asked for."""

    def __getitem__(self, index: int) -> Any:
        note("asked", int(index))
        return super().__getitem__(index)

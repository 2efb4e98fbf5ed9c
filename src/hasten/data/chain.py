"""A dataset's transform chain, cut where it first draws a random number."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from hasten.data.structure import Marked
from hasten.measure.digest import random_digest, random_states, restore, same_states, sha256


def find_chain(dataset: Any) -> tuple[Any, Any] | None:
    """(owner, chain) where ``owner.transform`` is a chain with a ``transforms`` list (torchvision's Compose and its
    likes); looks through Subset-like wrappers."""
    owner = dataset
    for _ in range(8):
        chain = getattr(owner, "transform", None)
        if isinstance(getattr(chain, "transforms", None), (list, tuple)) and callable(chain):
            return owner, chain
        inner = getattr(owner, "dataset", None)
        if inner is None or inner is owner:
            return None
        owner = inner
    return None


def with_chain(dataset: Any, transform: Any) -> Any:
    """A shallow copy of ``dataset`` (and of its wrappers) whose transform is another."""
    twin = copy.copy(dataset)
    if getattr(dataset, "transform", None) is not None and find_chain(dataset) == (dataset, dataset.transform):
        twin.transform = transform
        if hasattr(getattr(twin, "transforms", None), "transform"):  # torchvision keeps a second reference
            twin.transforms = copy.copy(twin.transforms)
            twin.transforms.transform = transform
        return twin
    twin.dataset = with_chain(dataset.dataset, transform)
    return twin


class _Tap:
    """Runs the first stages and marks their result, so that it is found again inside the sample."""

    def __init__(self, stages: list[Any]) -> None:
        self.stages = stages

    def __call__(self, value: Any) -> Any:
        for stage in self.stages:
            value = stage(value)
        return Marked(value)


class Split:
    """A dataset cut in two: ``suffix(prefix(i))`` is ``dataset[i]``."""

    def __init__(self, dataset: Any, stages: list[Any], count: int) -> None:
        self.count = count
        self.tapped = with_chain(dataset, _Tap(stages[:count]))
        self.rest = stages[count:]

    @classmethod
    def make(cls, dataset: Any, count: int) -> Split | None:
        """The cut after ``count`` stages; None where the dataset's first item cannot be made so, or its prefix draws
        random numbers (the random states stay as they were)."""
        chain = find_chain(dataset)
        if chain is None:
            return None
        split = cls(dataset, list(chain[1].transforms), count)
        states = random_states()
        try:
            item = split.prefix(0)
        except Exception:
            return None
        finally:
            quiet = same_states(states, random_states())
            if not quiet:
                restore(states)
        if not quiet:
            return None
        marks = [v for v in (item if isinstance(item, (tuple, list)) else (item,)) if isinstance(v, Marked)]
        return split if len(marks) == 1 else None

    def prefix(self, index: int) -> Any:
        return self.tapped[index]

    def suffix(self, item: Any) -> Any:
        if isinstance(item, Marked):
            return self._finish(item.value)
        parts = [self._finish(v.value) if isinstance(v, Marked) else v for v in item]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)

    def _finish(self, value: Any) -> Any:
        for stage in self.rest:
            value = stage(value)
        return value


def cacheable_stages(dataset: Any, indices: list[int]) -> int:
    """How many leading stages are deterministic and leave the random states alone, on these items."""
    chain = find_chain(dataset)
    assert chain is not None
    stages = list(chain[1].transforms)
    for count in itertools.count(1):
        if count > len(stages):
            return len(stages)
        split = Split.make(dataset, count)
        if split is None:
            return count - 1
        for i in indices[:3]:
            before = random_digest()
            first = sha256(plain(split.prefix(i)))
            if random_digest() != before or sha256(plain(split.prefix(i))) != first:
                return count - 1
    return 0


def plain(value: Any) -> Any:
    """A sample with pictures as arrays and marks taken off, ready for hashing."""
    import numpy as np

    if isinstance(value, Marked):
        return plain(value.value)
    if type(value).__module__.startswith("PIL."):
        return [value.mode, value.size, np.asarray(value)]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value

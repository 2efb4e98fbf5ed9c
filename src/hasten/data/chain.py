"""A dataset's transform chain, cut where it first draws a random number."""

from __future__ import annotations

import copy
import itertools
from typing import Any, NamedTuple

from hasten.data.structure import Marked
from hasten.measure.digest import random_digest, random_states, restore, same_states, sha256

MOST_STAGES = 64  # callables in a list; more are something else


class Chain(NamedTuple):
    """A transform chain of a dataset: ``owner.name`` holds it."""

    owner: Any
    name: str
    stages: list[Any]


def find_chain(dataset: Any) -> Chain | None:
    """The chain that the dataset's own code applies, whatever its attribute is called.

    That is torchvision's ``Compose`` and its likes (callable, with a list ``transforms``), or a list of callables;
    below Subset-like wrappers, too.
    """
    owner = dataset
    for _ in range(8):
        found = [
            Chain(owner, name, stages) for name in _names(owner) if (stages := _stages(getattr(owner, name, None)))
        ]
        if found:
            return found[0]
        inner = getattr(owner, "dataset", None)
        if inner is None or inner is owner:
            return None
        owner = inner
    return None


def _names(owner: Any) -> list[str]:
    """Attributes that may hold a chain: ``transform``, then what the class's ``__getitem__`` speaks of, then what its
    other methods do."""
    own = [name for name in getattr(owner, "__dict__", ()) if name != "dataset"]
    getitem = getattr(getattr(type(owner), "__getitem__", None), "__code__", None)
    methods = [f.__code__ for k in type(owner).__mro__ for f in vars(k).values() if hasattr(f, "__code__")]
    asked = set(getitem.co_names) if getitem is not None else set()
    called = {name for code in methods if code.co_name != "__init__" for name in code.co_names}
    rest = [n for n in own if n in asked] + [n for n in own if n in called and n not in asked]
    return ["transform", *(name for name in rest if name != "transform")]


def _stages(value: Any) -> list[Any]:
    """The stages of a chain in their order; empty where ``value`` is none."""
    if isinstance(value, (list, tuple)):
        few = 0 < len(value) <= MOST_STAGES
        return list(value) if few and all(callable(v) and not isinstance(v, type) for v in value) else []
    stages = getattr(value, "transforms", None)
    return list(stages) if isinstance(stages, (list, tuple)) and callable(value) else []


def with_chain(dataset: Any, transform: Any) -> Any:
    """A shallow copy of ``dataset`` (and of its wrappers) whose chain is another."""
    chain = find_chain(dataset)
    assert chain is not None
    return _with(dataset, chain, transform)


def _with(dataset: Any, chain: Chain, transform: Any) -> Any:
    twin = copy.copy(dataset)
    if dataset is not chain.owner:
        twin.dataset = _with(dataset.dataset, chain, transform)
        return twin
    before = getattr(dataset, chain.name)
    setattr(twin, chain.name, type(before)([transform]) if type(before) in (list, tuple) else transform)
    if chain.name == "transform" and hasattr(getattr(twin, "transforms", None), "transform"):
        twin.transforms = copy.copy(twin.transforms)  # torchvision keeps a second reference
        twin.transforms.transform = transform
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
        """The cut after ``count`` stages; None where that is none, where the dataset's first item cannot be made so,
        or where its prefix draws random numbers (the random states stay as they were)."""
        chain = find_chain(dataset)
        if chain is None or count < 1:
            return None
        split = cls(dataset, chain.stages, count)
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
        parts = item.values() if type(item) is dict else item if isinstance(item, (tuple, list)) else (item,)
        return split if sum(isinstance(v, Marked) for v in parts) == 1 else None

    def prefix(self, index: int) -> Any:
        return self.tapped[index]

    def suffix(self, item: Any) -> Any:
        if isinstance(item, Marked):
            return self._finish(item.value)
        if type(item) is dict:
            return {k: self._finish(v.value) if isinstance(v, Marked) else v for k, v in item.items()}
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
    stages = chain.stages
    for count in itertools.count(1):
        if count > len(stages):
            return len(stages)
        split = Split.make(dataset, count)
        if split is None:
            return count - 1
        if not all(_quiet_and_same(split, i) for i in (*indices[:2], *indices[-1:])):
            return count - 1
    return 0


def _quiet_and_same(split: Split, index: int) -> bool:
    before = random_digest()
    try:
        first = sha256(plain(split.prefix(index)))
        return random_digest() == before and sha256(plain(split.prefix(index))) == first
    except Exception:  # what looked like a chain is not applied as one
        return False


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

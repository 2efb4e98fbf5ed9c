"""A cheap mark of a dataset's settings: it changes when a setting, a transform, a list's length, or something changes
that the dataset's code reads from outside of it."""

from __future__ import annotations

import functools
import random
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from hasten.data.surroundings import Surroundings

_PLAIN = (int, float, str, bytes, bool, type(None), complex)
DEEPEST = 6  # objects inside objects; a transform below two wrappers is the fourth
SMALL = 32  # longer containers are not looked into, …
LONGEST = 16384  # … but for plain values, which are hashed at once up to here
MOST_BYTES = 1 << 20  # of an array that is hashed


def fingerprint(value: Any) -> Any:
    """Plain values by value, tensors by identity and version, small containers and arrays by what they hold, others by
    identity and length, objects by their attributes down to :data:`DEEPEST` levels; then what the code of all these
    objects reads besides: names of their modules, attributes of their classes. It cannot see a change inside a large
    array or a long list of objects; the audit of :class:`~hasten.data.cache.SampleCache` is there for that."""
    walk = _Walk()
    inside = walk(value, 0)
    outside = _surroundings(walk)
    return inside, tuple((name, walk(found, 1)) for name, found in outside.values())


def draws_by_itself(value: Any) -> bool:
    """Whether it, or what its code reads, holds a generator of random numbers or an iterator: each draw changes the
    next, so what comes out depends on the order in which it is asked, and by which process."""
    walk = _Walk()
    walk(value, 0)
    for _, found in _surroundings(walk).values():
        walk(found, 1)
    return walk.draws


@functools.lru_cache(maxsize=64)
def _of_classes(kinds: tuple[type, ...]) -> Surroundings:
    return Surroundings(kinds, ())


def _surroundings(walk: _Walk) -> Surroundings:
    """Found anew where functions are followed: to remember them would keep alive what they hold."""
    kinds = tuple(walk.kinds)
    return Surroundings(kinds, walk.functions) if walk.functions else _of_classes(kinds)


class _Walk:
    """Marks values.

    Attributes:
        kinds, functions: classes of the objects seen, and functions.
        draws: whether a generator or an iterator was among them.
    """

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}  # kept alive, so that no address comes twice
        self.kinds: dict[type, None] = {}
        self.functions: dict[FunctionType, None] = {}
        self.draws = False

    def __call__(self, value: Any, depth: int) -> Any:
        if isinstance(value, _PLAIN):
            return value
        if id(value) in self.seen:
            return id(value)
        self.seen[id(value)] = value
        if hasattr(value, "_version") and hasattr(value, "shape"):
            return (id(value), value._version, tuple(value.shape))
        if isinstance(value, np.ndarray):
            return (id(value), value.shape, _content(value))
        if isinstance(value, (list, tuple, dict, set, frozenset)):
            return self._container(value, depth)
        self._note(value)
        if isinstance(value, (type, ModuleType, FunctionType)):
            return (type(value).__name__, id(value))
        attributes = getattr(value, "__dict__", None)
        if attributes is None or depth >= DEEPEST:
            return (type(value).__name__, id(value))
        inside = tuple((k, self(v, depth + 1)) for k, v in list(attributes.items()))
        return (type(value).__name__, id(value), inside)

    def _note(self, value: Any) -> None:
        if isinstance(value, FunctionType):
            self.functions[value] = None
        elif not isinstance(value, (type, ModuleType)):
            self.kinds[type(value)] = None
            drawing = isinstance(value, (random.Random, np.random.Generator, np.random.RandomState))
            self.draws |= drawing or type(value).__name__ == "Generator" or hasattr(type(value), "__next__")

    def _container(self, value: Any, depth: int) -> Any:
        name = type(value).__name__
        if len(value) <= SMALL and isinstance(value, (list, tuple)):
            return (name, tuple(self(v, depth) for v in value))
        if len(value) <= SMALL and isinstance(value, dict):
            return (name, tuple((k if isinstance(k, _PLAIN) else id(k), self(v, depth)) for k, v in value.items()))
        return (id(value), len(value), _hashed(value))


def _hashed(value: Any) -> int | None:
    """Of a container of plain values, not too long; None for others."""
    if len(value) > LONGEST:
        return None
    try:
        items = value.items() if isinstance(value, dict) else value
        return hash(frozenset(items)) if isinstance(value, (set, frozenset)) else hash(tuple(items))
    except TypeError:
        return None


def _content(value: np.ndarray) -> int | None:
    if value.nbytes > MOST_BYTES or value.dtype.hasobject:
        return None
    return hash(np.ascontiguousarray(value).tobytes())

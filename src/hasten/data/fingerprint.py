"""A cheap mark of a dataset's settings: it changes when a setting, a transform, a list's length, or something changes
that the dataset's code reads from outside of it."""

from __future__ import annotations

import ctypes
import functools
import random
from collections.abc import Iterable
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from hasten.data.surroundings import Surroundings

_PLAIN = (int, float, str, bytes, bool, type(None), complex)
_PLAIN_KINDS = {*_PLAIN, np.float32, np.float64, np.int32, np.int64, np.bool_, np.str_}
_PATHS = (PosixPath, WindowsPath, PurePosixPath, PureWindowsPath)  # each notes its text when first asked for it
MOST_OBJECTS = 1 << 13  # in long containers that are looked into, in about twenty milliseconds
DEEPEST = 6  # objects inside objects; a transform below two wrappers is the fourth
SMALL = 32  # longer containers are not looked into, …
LONGEST = 1 << 17  # … but for plain values, which are hashed at once up to here, in a millisecond or two
MOST_BYTES = 1 << 24  # of an array that is hashed, in about ten milliseconds
QUICK_BYTES = 1 << 19  # … and of one that is compared for every batch, and …
QUICK_VALUES = 1 << 16  # … of a list or dictionary that is, in some tenths of a millisecond; of larger ones …
SPREAD = 1024  # … so many values spread over them


def fingerprint(value: Any) -> Any:
    """Plain values by value, tensors by identity and version, small containers and arrays by what they hold, others by
    identity and length, objects by their attributes down to :data:`DEEPEST` levels; then what the code of all these
    objects reads besides: names of their modules, attributes of their classes. It cannot see a change inside a large
    array or a long list of objects; the audit of :class:`~hasten.data.cache.SampleCache` is there for that."""
    return _mark(_Walk(), value)


def whole_fingerprint(value: Any) -> Any:
    """The same where nothing could change that it does not see, as far as is known; else None."""
    walk = _Walk()
    mark = _mark(walk, value)
    return None if walk.blind else mark


def quick_fingerprint(value: Any) -> Any:
    """The same, of what large containers and arrays hold some values only: fit to be asked for every batch, and to be
    compared with what it was before. Of an array over :data:`QUICK_BYTES`, or a list over :data:`QUICK_VALUES`, it sees
    a change of the whole, not of a few rows."""
    return _mark(_Walk(quick=True), value)


def close_fingerprint(value: Any) -> Any:
    """:func:`fingerprint`, and what :func:`quick_fingerprint` sees besides: a large array that changes as a whole, a
    list whose values cannot be hashed."""
    return fingerprint(value), quick_fingerprint(value)


def _mark(walk: _Walk, value: Any) -> Any:
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

    Args:
        quick: look at no more than some values of what is large.

    Attributes:
        kinds, functions: classes of the objects seen, and functions.
        draws: whether a generator or an iterator was among them.
        blind: whether there was something that may change unseen.
    """

    def __init__(self, quick: bool = False) -> None:
        self.quick = quick
        self.seen: dict[int, Any] = {}  # kept alive, so that no address comes twice
        self.kinds: dict[type, None] = {}
        self.functions: dict[FunctionType, None] = {}
        self.draws = False
        self.blind = False
        self.left = MOST_OBJECTS

    def __call__(self, value: Any, depth: int) -> Any:
        if isinstance(value, _PLAIN):
            return value
        if type(value) in _PATHS:
            return (type(value).__name__, str(value))
        if id(value) in self.seen:
            return id(value)
        self.seen[id(value)] = value
        if hasattr(value, "_version") and hasattr(value, "shape"):  # what is written past torch changes no version
            array = _numbers(value)
            if self.quick and array is not None and array.nbytes > QUICK_BYTES:  # it may lie in a file
                array = None
            return (id(value), value._version, tuple(value.shape), None if array is None else self._array(array))
        if isinstance(value, np.ndarray):
            content = self._each(value.flat, depth) if value.dtype.hasobject else self._array(value)
            self.blind |= content is None
            return (id(value), value.shape, content)
        if isinstance(value, (bytearray, ctypes.Array, ctypes.Structure, ctypes._SimpleCData)):
            return (id(value), self._array(np.frombuffer(bytes(value) or b"\0", np.uint8)))
        if isinstance(value, (list, tuple, dict, set, frozenset)):
            return self._container(value, depth)
        self._note(value)
        if isinstance(value, (type, ModuleType, FunctionType)):
            return (type(value).__name__, id(value))
        attributes = _attributes(value)
        if attributes is None:
            return (type(value).__name__, id(value), self._by_value(value))
        if depth >= DEEPEST:
            self.blind = True
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
        content = _some(value) if self.quick else _hashed(value)
        if content is None and not self.quick:
            content = self._each(value.values() if isinstance(value, dict) else value, depth)
        self.blind |= content is None
        return (id(value), len(value), content)

    def _array(self, value: np.ndarray) -> Any:
        return _spread(value) if self.quick else _content(value)

    def _each(self, values: Iterable[Any], depth: int) -> Any:
        """Of values that are looked into one by one; None where they are too many."""
        marks = []
        for value in values if depth < DEEPEST and not self.quick else ():
            self.left -= 1
            if self.left < 0:
                return None
            marks.append(self(value, depth + 1))
        return tuple(marks) or None

    def _by_value(self, value: Any) -> int | None:
        """Of an object without attributes: what its value is, if it is compared by that; functions have none."""
        compares: Any = type(value).__eq__
        if compares is object.__eq__:
            self.blind |= not callable(value)
            return None
        try:
            return hash(value)
        except TypeError:
            self.blind = True
            return None


def _hashed(value: Any) -> int | None:
    """Of a container of plain values, not too long; None for others: many objects have a hash that says nothing of what
    they hold."""
    if len(value) > LONGEST:
        return None
    items = value.items() if isinstance(value, dict) else value
    if not _all_plain(items):
        return None
    try:
        return hash(frozenset(items)) if isinstance(value, (set, frozenset)) else hash(tuple(items))
    except TypeError:
        return None


def _attributes(value: Any) -> dict[str, Any] | None:
    """What an object holds by name, in slots, too; None where it has no names."""
    named = getattr(value, "__dict__", None)
    slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    names = [name for own in slots for name in ((own,) if isinstance(own, str) else own) if hasattr(value, name)]
    if named is None and not names:
        return None
    return {**(named or {}), **{name: getattr(value, name) for name in names if not name.startswith("__")}}


def _all_plain(items: Iterable[Any], depth: int = 2) -> bool:
    """Whether these are plain values, or tuples of such."""
    kinds = set(map(type, items))
    if kinds <= _PLAIN_KINDS:
        return True
    inner = (v for item in items if type(item) is tuple for v in item)
    return bool(depth) and kinds <= _PLAIN_KINDS | {tuple} and _all_plain(list(inner), depth - 1)


def _numbers(tensor: Any) -> np.ndarray | None:
    """A tensor's memory as an array; None where it cannot be had so."""
    try:
        found: np.ndarray = tensor.detach().numpy()
    except (TypeError, RuntimeError, AttributeError):
        return None
    return found


def _content(value: np.ndarray) -> int | None:
    if value.nbytes > MOST_BYTES or value.dtype.hasobject:
        return None
    return hash(np.ascontiguousarray(value).tobytes())


class _Values:
    """A container's values as they were, kept to be compared: by identity, and where that differs by value."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        try:
            return isinstance(other, _Values) and self.values == other.values
        except Exception:  # arrays and tensors are not compared to one truth
            return False

    __hash__ = None  # type: ignore[assignment]


def _some(value: Any) -> Any:
    """Of a long list or dictionary its values, or some; of a set what it holds, where that is hashed soon enough."""
    if isinstance(value, (set, frozenset)):
        return _hashed(value) if len(value) <= SPREAD else 0
    values = value if isinstance(value, (list, tuple)) else list(value.values() if isinstance(value, dict) else value)
    if len(values) > QUICK_VALUES:
        return _hashed(list(values[:: len(values) // SPREAD])) or 0
    return _Values(list(values))


def _spread(value: np.ndarray) -> Any:
    """Of an array's values, all where they are few; nothing of a file's, which need not be in memory."""
    if value.dtype.hasobject or _of_a_file(value):
        return None
    if value.nbytes > QUICK_BYTES:
        value = value.flat[:: max(1, value.size // SPREAD)]
    return value.tobytes()


def _of_a_file(value: Any) -> bool:
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return True
        value = value.base
    return False

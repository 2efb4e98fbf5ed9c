"""A cheap mark of a dataset's settings: it changes when a setting, a transform or a list's length changes."""

from __future__ import annotations

from types import ModuleType
from typing import Any

_PLAIN = (int, float, str, bytes, bool, type(None), complex)
DEEPEST = 6  # objects inside objects; a transform below two wrappers is the fourth
SMALL = 32  # longer containers are not looked into


def fingerprint(value: Any) -> Any:
    """Plain values by value, tensors by identity and version, small containers by what they hold, others by identity
    and length, objects by their attributes down to :data:`DEEPEST` levels. It cannot see a change inside a large list
    or an array; the audit of :class:`~hasten.data.cache.SampleCache` is there for that."""
    seen: set[int] = set()

    def walk(value: Any, depth: int) -> Any:
        if isinstance(value, _PLAIN):
            return value
        if id(value) in seen:
            return id(value)
        seen.add(id(value))
        if hasattr(value, "_version") and hasattr(value, "shape"):
            return (id(value), value._version, tuple(value.shape))
        if isinstance(value, (list, tuple)) and len(value) <= SMALL:
            return (type(value).__name__, tuple(walk(v, depth) for v in value))
        if isinstance(value, dict) and len(value) <= SMALL:
            return (type(value).__name__, tuple((k, walk(v, depth)) for k, v in value.items()))
        if isinstance(value, (list, tuple, dict, set)):
            return (id(value), len(value))
        attributes = getattr(value, "__dict__", None)
        if attributes is None or depth >= DEEPEST or isinstance(value, (type, ModuleType)):
            return (type(value).__name__, id(value))
        return (type(value).__name__, id(value), tuple((k, walk(v, depth + 1)) for k, v in attributes.items()))

    return walk(value, 0)

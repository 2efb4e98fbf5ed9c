"""A cheap mark of a dataset's settings: it changes when a setting, a transform or a list's length changes."""

from __future__ import annotations

from typing import Any

_PLAIN = (int, float, str, bytes, bool, type(None), complex)
DEEPEST = 4


def fingerprint(value: Any, depth: int = 0) -> Any:
    """Plain values by value, containers by identity and length, tensors by identity and version, objects by their
    attributes down to :data:`DEEPEST` levels. It cannot see a change inside a large list; the audit of
    :class:`~hasten.data.cache.SampleCache` is there for that."""
    if isinstance(value, _PLAIN):
        return value
    if hasattr(value, "_version") and hasattr(value, "shape"):
        return (id(value), value._version, tuple(value.shape))
    if isinstance(value, (list, tuple)) and len(value) <= 32:
        return (type(value).__name__, tuple(fingerprint(v, depth + 1) for v in value))
    if isinstance(value, (list, tuple, dict, set)):
        return (id(value), len(value))
    attributes = getattr(value, "__dict__", None)
    if attributes is None or depth >= DEEPEST or isinstance(value, type) or callable(getattr(value, "__code__", None)):
        return (type(value).__name__, id(value))
    return (type(value).__name__, id(value), tuple((k, fingerprint(v, depth + 1)) for k, v in attributes.items()))

"""Frozen dataclasses to JSON and back, by their type hints. Unknown numbers (NaN, infinity) travel as null."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")
_SHAPES = {tuple: list, dict: dict}  # what a field of such a type is in JSON


def encode(value: Any) -> Any:
    """A JSON-ready copy of a value made of dataclasses, tuples, dicts and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [encode(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decode(kind: type[T], data: Any) -> T:
    """The inverse of :func:`encode` for a dataclass type.

    Raises:
        ValueError: a field is missing, unknown, or of the wrong shape.
    """
    return typing.cast(T, _decode(kind, data))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode(kind: Any, data: Any) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        arms = [a for a in typing.get_args(kind) if a is not type(None)]
        if data is None:
            return None
        return _decode(arms[0], data) if len(arms) == 1 else data
    if origin in _SHAPES and not isinstance(data, _SHAPES[origin]):
        raise ValueError(f"expected {_SHAPES[origin].__name__}, got {type(data).__name__}")
    if origin is tuple:
        args = typing.get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], v) for v in data)
        return tuple(_decode(a, v) for a, v in zip(args, data, strict=True))
    if origin is dict:
        return {k: _decode(typing.get_args(kind)[1], v) for k, v in data.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), data)
    if kind is float:
        return math.nan if data is None else _number(data)
    return data


def _number(data: Any) -> float:
    if not isinstance(data, int | float):
        raise ValueError(f"expected a number, got {type(data).__name__}")
    return float(data)


def _decode_dataclass(kind: type, data: Any) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{kind.__name__}: expected an object, got {type(data).__name__}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = set(data) - set(fields)
    if unknown:
        raise ValueError(f"{kind.__name__}: unknown field {sorted(unknown)[0]!r}")
    hints = _hints(kind)
    given = {name: _decode(hints[name], data[name]) for name in fields if name in data}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None

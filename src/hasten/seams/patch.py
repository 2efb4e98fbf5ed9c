"""Replacing attributes, with the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MISSING = object()


class Patches:
    """Attributes replaced on modules and classes; :meth:`undo` restores them, last first."""

    def __init__(self) -> None:
        self._old: list[tuple[Any, str, Any, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace ``owner.name``, remembering whether it was the owner's own or inherited."""
        self._old.append((owner, name, value, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Restore what is still as :meth:`set` left it; what the script has replaced since then stays the script's."""
        while self._old:
            owner, name, value, old = self._old.pop()
            if isinstance(value, StandIn):
                value.stand_aside()
            if vars(owner).get(name, _MISSING) is not value:
                continue
            if old is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


class StandIn:
    """Stands in for a built-in function: as such, it does not become a method when it is stored in a class."""

    def __init__(self, call: Callable[..., Any], original: Callable[..., Any]) -> None:
        self._call = call
        self.__wrapped__ = original
        self.__name__ = getattr(original, "__name__", "")
        self.__qualname__ = getattr(original, "__qualname__", self.__name__)
        self.__module__ = getattr(original, "__module__", "builtins")
        self.__doc__ = original.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def stand_aside(self) -> None:
        """Call the original and nothing else: the script may have kept this (``sink=print``)."""
        self._call = self.__wrapped__

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> str:
        return self.__qualname__  # by name, as functions are pickled

"""Replacing attributes, with the way back."""

from __future__ import annotations

from typing import Any

_MISSING = object()


class Patches:
    """Attributes replaced on modules and classes; :meth:`undo` restores them, last first."""

    def __init__(self) -> None:
        self._old: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace ``owner.name``, remembering whether it was the owner's own or inherited."""
        self._old.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def undo(self) -> None:
        while self._old:
            owner, name, old = self._old.pop()
            if old is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, old)

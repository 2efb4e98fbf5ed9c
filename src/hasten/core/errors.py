"""Errors that read like documentation: what happened, the usual cause, the exact change."""

from __future__ import annotations

import os
from collections.abc import Iterable


class HastenError(Exception):
    """A failure of hasten's own that the user can act on.

    Args:
        what: what happened, one sentence.
        cause: the usual cause.
        change: the exact change that cures it.
    """

    def __init__(self, what: str, cause: str = "", change: str = "") -> None:
        self.what, self.cause, self.change = what, cause, change
        lines = [what]
        if cause:
            lines.append(f"  usual cause: {cause}")
        if change:
            lines.append(f"  try: {change}")
        super().__init__("\n".join(lines))


class UsageError(HastenError):
    """Wrong usage: exit code 2."""


class PlanRefused(HastenError):
    """A plan no longer fits the script, the versions or the machine: exit code 2."""


class Unsuited(HastenError):
    """A remedy cannot serve the object it was called on; nothing was changed."""


def nearest(name: object, columns: Iterable[object]) -> str:
    """The column that may have been meant, in quotes; "" where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(str(name), [str(column) for column in columns], 1)
    return repr(near[0]) if near else ""


def in_a_line(error: BaseException) -> str:
    """An error's type, and the first line of what it says where it says something; of hasten's own that line alone."""
    said = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, HastenError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def unforeseen(what: str, error: Exception) -> str:
    """A failure of hasten's own as one line for stderr; with ``HASTEN_DEBUG=1`` its traceback stands before it."""
    import traceback

    shown = "".join(traceback.format_exception(error)) if os.environ.get("HASTEN_DEBUG") else ""
    why = " ".join(str(error).split())
    return f"{shown}hasten: {what} ({type(error).__name__}{': ' if why else ''}{why})\n"

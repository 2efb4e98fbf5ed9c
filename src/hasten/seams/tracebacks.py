"""Keeping hasten's frames out of the tracebacks that a user sees, a script logs, or a test compares."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from hasten.core import OURS
from hasten.seams.patch import Patches


def install(patches: Patches) -> None:
    """Clean what prints tracebacks: the interpreter's own hooks, and the module ``traceback``.

    A hook that the script has set is left as it is.
    """
    _clean(sys, "excepthook", lambda kind, error, trace: (kind, error, without_ours(error, trace)))
    _clean(threading, "excepthook", _cleaned_tuple)
    _clean(sys, "unraisablehook", _cleaned_tuple)
    patches.set(traceback, "walk_stack", _walk_stack(traceback.walk_stack))
    for name in ("walk_tb", "_walk_tb_with_full_positions"):
        original = getattr(traceback, name, None)
        if original is not None:
            patches.set(traceback, name, _walk(original))


def _clean(owner: Any, name: str, clean: Callable[..., tuple[Any, ...]]) -> None:
    plain = getattr(owner, f"__{name}__")

    def hook(*args: Any) -> None:
        plain(*clean(*args))

    if getattr(owner, name) is plain:
        setattr(owner, name, hook)
    setattr(owner, f"__{name}__", hook)


def _cleaned_tuple(args: Any) -> tuple[Any]:
    """Of hooks that take one named tuple: kind, error, traceback, …"""
    kind, error, trace, *others = args
    return (type(args)((kind, error, without_ours(error, trace), *others)),)


def without_ours(error: BaseException | None, trace: TracebackType | None) -> TracebackType | None:
    """A traceback without hasten's frames, so that the user sees what plain Python shows; causes included."""
    seen: set[int] = set()
    left = [error]
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        error.__traceback__ = _strip(error.__traceback__)
        left += [error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            left += error.exceptions
    return _strip(trace)


def _strip(trace: TracebackType | None) -> TracebackType | None:
    frames = []
    while trace is not None:
        if not _is_ours(trace.tb_frame):
            frames.append(trace)
        trace = trace.tb_next
    out: TracebackType | None = None
    for frame in reversed(frames):
        frame.tb_next = out
        out = frame
    return out


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(OURS)


def _walk(original: Callable[[TracebackType | None], Iterator[Any]]) -> Callable[[TracebackType | None], Any]:
    def walk_tb(tb: TracebackType | None) -> Iterator[Any]:
        return (item for item in original(tb) if not _is_ours(item[0]))

    walk_tb.__doc__ = original.__doc__
    return walk_tb


def _walk_stack(original: Callable[[FrameType | None], Iterator[Any]]) -> Callable[[FrameType | None], Any]:
    def walk_stack(f: FrameType | None) -> Iterator[Any]:
        if f is None:  # the original counts the frames from itself to its caller
            return original(None)
        return (item for item in original(f) if not _is_ours(item[0]))

    walk_stack.__doc__ = original.__doc__
    return walk_stack

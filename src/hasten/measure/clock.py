"""An exclusive clock: at any instant exactly one phase is running, so phases sum to the wall time by construction."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from hasten.core.trace import PHASES

INDEX = {name: i for i, name in enumerate(PHASES)}
PYTHON = INDEX["python"]
EVALUATION = INDEX["evaluation"]
CHECKPOINT = INDEX["checkpoint"]
_SAME = list(range(len(PHASES)))
# During an evaluation everything but saving belongs to it.
_EVALUATING = [i if i in (CHECKPOINT,) else EVALUATION for i in _SAME]

Key = tuple[int, CodeType, int]


class PhaseClock:
    """Accumulates nanoseconds per phase on one thread.

    ``enter`` and ``leave`` are the hot path: two clock reads and a few list operations for a watched call.

    Args:
        now: a monotonic clock in nanoseconds (a fake one in tests).
    """

    __slots__ = (
        "calls",
        "current",
        "device",
        "evaluating",
        "last",
        "locate",
        "now",
        "places",
        "remap",
        "spent",
        "stack",
        "thread",
    )

    def __init__(self, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self.now = now
        self.thread = threading.get_ident()
        self.spent = [0] * len(PHASES)
        self.calls = [0] * len(PHASES)
        self.stack: list[int] = []
        self.current = PYTHON
        self.remap = _SAME
        self.evaluating = False
        self.device: Any = None  # see hasten.measure.device
        self.last = now()
        self.places: dict[Key, list[int]] = {}
        self.locate: Callable[[FrameType], FrameType] | None = None

    def enter(self, phase: int) -> None:
        """Start a phase inside the running one."""
        t = self.now()
        current = self.current
        self.spent[current] += t - self.last
        self.stack.append(current)
        self.current = phase = self.remap[phase]
        self.calls[phase] += 1
        self.last = t

    def leave(self) -> None:
        """End the phase entered last."""
        t = self.now()
        self.spent[self.current] += t - self.last
        self.current = self.stack.pop() if self.stack else self._base()
        self.last = t

    def _base(self) -> int:
        return EVALUATION if self.evaluating else PYTHON

    def evaluation(self, on: bool) -> None:
        """From now on, book everything but checkpoints as evaluation (or stop doing so)."""
        if on is self.evaluating:
            return
        t = self.now()
        self.spent[self.current] += t - self.last
        self.last = t
        self.evaluating = on
        self.remap = _EVALUATING if on else _SAME
        base = self._base()
        if not self.stack:
            self.current = base
        else:
            self.stack[0] = base

    def move(self, nanoseconds: int, source: int, target: int) -> None:
        """Re-book time found later to belong elsewhere (the first batch of an evaluation)."""
        moved = min(nanoseconds, self.spent[source])
        self.spent[source] -= moved
        self.spent[target] += moved

    def pause_until(self, now: int) -> None:
        """Leave out everything since the last event: time hasten spent on itself."""
        self.last = now

    def release(self) -> None:
        """Stop marking a device's stream, if that was begun."""

    def cut(self, now: int) -> list[int]:
        """End a step at ``now``: the nanoseconds per phase since the last cut, which start again at 0."""
        spent = self.spent
        spent[self.current] += now - self.last
        self.last = now
        self.spent = [0] * len(PHASES)
        return spent

    def book(self, key: Key, nanoseconds: int) -> None:
        """Charge a watched call to its line."""
        entry = self.places.get(key)
        if entry is None:
            self.places[key] = [1, nanoseconds]
        else:
            entry[0] += 1
            entry[1] += nanoseconds


def timed(clock: PhaseClock, phase_name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` with its time booked to a phase, and to the caller's line while ``clock.locate`` is set."""
    phase = INDEX[phase_name]
    get_ident, get_frame = threading.get_ident, sys._getframe

    def watched(*args: Any, **kwargs: Any) -> Any:
        if get_ident() != clock.thread:
            return call(*args, **kwargs)
        clock.enter(phase)
        start = clock.last
        try:
            return call(*args, **kwargs)
        finally:
            clock.leave()
            if clock.locate is not None:
                frame = clock.locate(get_frame(1))
                clock.book((phase, frame.f_code, frame.f_lasti), clock.last - start)

    watched.__wrapped__ = call  # type: ignore[attr-defined]
    watched.__name__ = getattr(call, "__name__", phase_name)
    watched.__qualname__ = getattr(call, "__qualname__", watched.__name__)
    watched.__module__ = getattr(call, "__module__", None) or watched.__module__
    watched.__doc__ = call.__doc__
    return watched

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

Key = tuple[int, CodeType, int]


class PhaseClock:
    """Accumulates nanoseconds per phase on one thread.

    ``enter`` and ``leave`` are the hot path: two clock reads and a few list operations for a watched call.

    During an evaluation everything but saving belongs to it. Where it ends is known only when training goes on: what
    passes after the last sign of it (:meth:`evaluated`) is kept apart in ``tail`` and given to its own phases then.

    Args:
        now: a monotonic clock in nanoseconds (a fake one in tests).
    """

    __slots__ = (
        "calls",
        "current",
        "device",
        "evaluating",
        "into",
        "last",
        "locate",
        "now",
        "places",
        "settle",
        "spent",
        "stack",
        "tail",
        "thread",
    )

    def __init__(self, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self.now = now
        self.thread = threading.get_ident()
        self.spent = [0] * len(PHASES)
        self.tail = [0] * len(PHASES)
        self.into = self.spent  # or the tail
        self.calls = [0] * len(PHASES)
        self.stack: list[int] = []
        self.current = PYTHON
        self.evaluating = False
        self.settle: Callable[[bool], None] | None = None  # told what the tail was: of the evaluation, or not
        self.device: Any = None  # see hasten.measure.device
        self.last = now()
        self.places: dict[Key, list[int]] = {}
        self.locate: Callable[[FrameType], FrameType] | None = None

    def enter(self, phase: int) -> None:
        """Start a phase inside the running one."""
        t = self.now()
        current = self.current
        self.into[current] += t - self.last
        self.stack.append(current)
        self.current = phase
        if not self.evaluating:
            self.calls[phase] += 1
        self.last = t

    def leave(self) -> None:
        """End the phase entered last."""
        t = self.now()
        self.into[self.current] += t - self.last
        self.current = self.stack.pop() if self.stack else PYTHON
        self.last = t

    def so_far(self, phase: int) -> int:
        """Nanoseconds booked to a phase since the last cut."""
        return self.spent[phase] + self.tail[phase]

    @property
    def booked_as(self) -> int:
        """The phase that the running one counts for."""
        return EVALUATION if self.evaluating and self.current != CHECKPOINT else self.current

    def evaluation(self, on: bool) -> None:
        """An evaluation begins, or training goes on."""
        if on is self.evaluating:
            return
        t = self.now()
        self.into[self.current] += t - self.last
        self.last = t
        self.evaluating = on
        if on:
            self.into = self.tail
            return
        for phase, nanoseconds in enumerate(self.tail):
            self.spent[phase] += nanoseconds
        self._forget_tail(False)
        self.into = self.spent

    def evaluated(self) -> None:
        """A sign of the running evaluation has just ended: everything since the one before belongs to it."""
        saving = self.tail[CHECKPOINT]
        self.spent[CHECKPOINT] += saving
        self.spent[EVALUATION] += sum(self.tail) - saving
        self.calls[EVALUATION] += 1
        self._forget_tail(True)

    def _forget_tail(self, of_evaluation: bool) -> None:
        self.tail[:] = [0] * len(PHASES)
        if self.settle is not None:
            self.settle(of_evaluation)

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
        self.into[self.current] += now - self.last
        self.last = now
        if self.evaluating:
            self.evaluated()
        spent = self.spent
        self.spent = [0] * len(PHASES)
        if not self.evaluating:
            self.into = self.spent
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

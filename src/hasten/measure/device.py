"""Device time of phases by events in the stream, read long after they were recorded: the host never waits for them.

A stop-watch on the host charges the device's work to whichever call happens to block. Here every change of phase puts
an event into the current stream; the time between two neighbouring events is the device's time in the phase between
them. Events are read some steps later, and only once they say that they have passed.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from hasten.core.trace import PHASES
from hasten.measure.clock import INDEX, PhaseClock

WATCHED = frozenset(INDEX[name] for name in ("copy", "forward", "backward", "optimizer", "evaluation"))
MOST_PENDING = 4096  # events not yet read; more are dropped unread


class DeviceTimes:
    """Events by phase, and the milliseconds read from them so far.

    Args:
        make_event: makes a timing event with ``record()``, ``query()`` and ``elapsed_time(other)`` in milliseconds
            (``torch.cuda.Event(enable_timing=True)``).
    """

    def __init__(self, make_event: Callable[[], Any]) -> None:
        self.make_event = make_event
        self.pool: list[Any] = []
        self.pending: deque[tuple[Any, int]] = deque()
        self.milliseconds = [0.0] * len(PHASES)

    def mark(self, phase_before: int) -> None:
        """The phase changes: what the device did since the last mark belonged to ``phase_before``."""
        event = self.pool.pop() if self.pool else self.make_event()
        event.record()
        self.pending.append((event, phase_before))
        if len(self.pending) > MOST_PENDING:
            self.pending.popleft()

    def read(self) -> None:
        """Read the events that have passed; never waits."""
        while len(self.pending) > 1 and self.pending[1][0].query():
            first, _ = self.pending.popleft()
            second, phase = self.pending[0]
            self.milliseconds[phase] += first.elapsed_time(second)
            self.pool.append(first)


class DeviceClock(PhaseClock):
    """A phase clock that also marks the device's stream where a watched phase begins or ends.

    A running :class:`PhaseClock` becomes one by :meth:`take_over`, so that its wrappers need not know.
    """

    __slots__ = ()

    @classmethod
    def take_over(cls, clock: PhaseClock, times: DeviceTimes) -> None:
        """Let ``clock`` mark the device's stream from now on."""
        clock.device = times
        clock.__class__ = cls

    def enter(self, phase: int) -> None:
        before = self.booked_as
        super().enter(phase)
        if self.booked_as in WATCHED or before in WATCHED:
            self.device.mark(before)

    def leave(self) -> None:
        before = self.booked_as
        super().leave()
        if self.booked_as in WATCHED or before in WATCHED:
            self.device.mark(before)

    def release(self) -> None:
        """Mark no more; what was read stays in ``device``."""
        self.__class__ = PhaseClock  # type: ignore[assignment]


def device_waiter() -> Callable[[], object] | None:
    """What waits until the device has done all that it was given; None where the script uses no device.

    A device works behind the host: a stop-watch must be started and stopped after this, or it times the asking and
    not the work (https://docs.pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution).
    """
    torch = sys.modules.get("torch")
    if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    wait = torch.cuda.synchronize
    return getattr(wait, "__wrapped__", wait)  # type: ignore[no-any-return]

"""Which files are opened again and again: counts opens for reading while the window is open."""

from __future__ import annotations

import builtins
import io
import os
import sys
import threading
from collections.abc import Callable, Collection
from types import CodeType
from typing import Any

from hasten.core.facts import Event
from hasten.measure.clock import INDEX, PYTHON
from hasten.seams.locate import is_users, place_of, shown, user_frame
from hasten.seams.patch import Patches, StandIn
from hasten.seams.watch import Watch

_WATCHED_IN = frozenset({PYTHON, INDEX["fetch"]})  # saving, logging and evaluating open files of their own
_get_frame = sys._getframe


class Opens:
    """Opens of the training thread by file and line, between :meth:`start` and :meth:`stop`.

    Args:
        anywhere: of any thread, whatever it does: in a child that asks a dataset.
    """

    def __init__(self, watch: Watch, anywhere: bool = False) -> None:
        self.watch = watch
        self.anywhere = anywhere
        self.counts: dict[tuple[str, CodeType, int], list[int]] = {}
        self._patches = Patches()
        self._steps = [0, 0]
        self._passes = [0, 0]

    def start(self) -> None:
        """Wrap ``open`` and, where it is loaded, ``h5py.File``."""
        self._steps[0], self._passes[0] = self.watch.steps, self._starts()
        opens = StandIn(self._wrapped(builtins.open), builtins.open)
        for owner in (builtins, io):
            self._patches.set(owner, "open", opens)
        h5py = sys.modules.get("h5py")
        if h5py is not None:
            self._patches.set(h5py.File, "__init__", self._wrapped(h5py.File.__init__, position=1))

    def stop(self) -> None:
        self._patches.undo()
        self._steps[1], self._passes[1] = self.watch.steps, self._starts()

    def _starts(self) -> int:
        return sum(record.starts for record in self.watch.loaders.values())

    def _wrapped(self, original: Callable[..., Any], position: int = 0) -> Callable[..., Any]:
        clock = self.watch.clock

        def opens(*args: Any, **kwargs: Any) -> Any:
            elsewhere = clock.booked_as not in _WATCHED_IN or threading.get_ident() != clock.thread
            if elsewhere and not self.anywhere:
                return original(*args, **kwargs)
            started = clock.now()
            try:
                return original(*args, **kwargs)
            finally:
                self._count(args[position:], kwargs, clock.now() - started)

        opens.__wrapped__ = original  # type: ignore[attr-defined]
        opens.__name__ = getattr(original, "__name__", "open")
        opens.__doc__ = original.__doc__
        return opens

    def _count(self, args: tuple[Any, ...], kwargs: dict[str, Any], nanoseconds: int) -> None:
        file = args[0] if args else kwargs.get("file", kwargs.get("name"))
        mode = str(args[1] if len(args) > 1 else kwargs.get("mode", "r"))
        if not isinstance(file, (str, bytes, os.PathLike)) or any(c in mode for c in "wax+"):
            return
        frame = user_frame(_get_frame(2))
        if not is_users(frame.f_code.co_filename):
            return
        entry = self.counts.setdefault((os.fsdecode(file), frame.f_code, frame.f_lasti), [0, 0])
        entry[0] += 1
        entry[1] += nanoseconds

    def of(self, files: Collection[str]) -> tuple[Event, ...]:
        """Of these files, how often each line opened one, and its seconds, in all; ``kind`` is the file's path."""
        whole = set(map(os.path.abspath, files))
        return tuple(
            Event(shown(file), place_of(code, lasti), count, nanoseconds / 1e9)
            for (file, code, lasti), (count, nanoseconds) in self.counts.items()
            if os.path.abspath(file) in whole
        )

    def events(self) -> tuple[Event, ...]:
        """Files opened more often than twice for every pass over a loader: opens and their seconds per step.

        ``kind`` is the file's path.
        """
        steps = max(1, self._steps[1] - self._steps[0])
        usual = 2 * (1 + self._passes[1] - self._passes[0])
        found = [
            Event(shown(file), place_of(code, lasti), count / steps, nanoseconds / 1e9 / steps)
            for (file, code, lasti), (count, nanoseconds) in self.counts.items()
            if count > usual
        ]
        return tuple(sorted(found, key=lambda e: -e.calls)[:40])

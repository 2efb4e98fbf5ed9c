"""How often do the user's lines run in one step? Counted by a tracer in a forked child, so that no step is slowed.

A sampler knows how long a line takes but not whether it ran once or a thousand times, and only the second is cured by
vectorising.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
import sys
from types import CodeType, FrameType
from typing import Any

from hasten.core.codec import decode, encode
from hasten.core.facts import Event, Hot, Place
from hasten.core.trace import COLLATE_LOOP
from hasten.measure.clock import INDEX, PYTHON
from hasten.seams import fork
from hasten.seams.batches import Batches
from hasten.seams.child import exchange_folder
from hasten.seams.locate import is_users, locals_of, shown
from hasten.seams.record import record_batches
from hasten.seams.source import differentiates, logs, loops_around, place_in, targets
from hasten.seams.watch import Watch

STEPS = 2  # steps that are traced
LIMIT_SECONDS = 15.0  # a traced child is given up after this
LEAST_RUNS = 6.0  # runs of a line per step from which it counts as repeated
MOST_FRAMES = 12  # how far out a loop is looked for
_COUNTED_IN = frozenset({PYTHON, INDEX["forward"]})
_FETCH = INDEX["fetch"]
_PHASES = {"loop": ("python", "forward"), COLLATE_LOOP: ("fetch",)}  # whose seconds count for an event of a kind
_FETCHES = os.path.join("_utils", "fetch.py")  # of torch's: asks the dataset, then calls the collate function

Line = tuple[CodeType, int]
Repeats = dict[tuple[str, int], Event]


def count_repeats(watch: Watch) -> Repeats:
    """Lines that run several times in one step because a loop inside the step runs them: (file, line) to the loop.

    An event's place is the loop's header, its calls the iterations per step. The caller has checked that forking is
    safe.
    """
    if watch.compiled_by_script:  # a tracer and the compiler's frame evaluation do not mix
        return {}
    recorded = record_batches(watch)
    if recorded is not None and len(recorded) < STEPS:  # the child must not ask the loader's workers
        return {}
    folder = exchange_folder(watch)
    path = os.path.join(folder, "loops.json")

    def driver(sender: fork.Sender) -> LineCounter:
        if recorded is not None:
            Batches(watch, recorded).take_over()
        return LineCounter(sender, watch, path)

    child = fork.go(watch, driver, allowed=(folder,), processes=False)
    try:
        child.drain(LIMIT_SECONDS)
        with open(path, encoding="utf-8") as file:
            return {(f, n): decode(Event, event) for f, n, event in json.load(file)}
    except (OSError, ValueError):
        return {}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class LineCounter:
    """Counts the user's lines for a few steps of the child's loop."""

    def __init__(self, sender: fork.Sender, watch: Watch, path: str) -> None:
        self.sender = sender
        self.path = path
        self.clock = watch.clock
        self.left = STEPS
        self.counts: dict[Line, int] = {}
        self.begun: dict[Line, list[int]] = {}  # the instruction at which a line begins, and how often it did there
        self.chains: dict[Line, list[Line]] = {}
        self.modules: set[Line] = set()  # in loops over modules: each iteration calls another one
        self.collates: dict[CodeType, bool] = {}  # whether a function was called to put a batch together
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if is_users(frame.f_code.co_filename):
                frame.f_trace = self._line
            frame = frame.f_back
        sys.settrace(self._call)

    def _call(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        return self._line if is_users(frame.f_code.co_filename) else None

    def _line(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line" and (self.clock.booked_as in _COUNTED_IN or self._collating(frame)):
            line = (frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno)
            seen = self.counts.get(line, 0)
            self.counts[line] = seen + 1
            if not seen:
                self.chains[line] = list(_users_lines(frame))
                self.begun[line] = [frame.f_lasti, 0]
                if _over_modules(frame, line[1]):
                    self.modules.add(line)
            first, times = self.begun[line]
            if frame.f_lasti <= first:
                self.begun[line] = [frame.f_lasti, times + 1 if frame.f_lasti == first else 1]
        return self._line

    def _collating(self, frame: FrameType) -> bool:
        if self.clock.booked_as != _FETCH:
            return False
        found = self.collates.get(frame.f_code)
        if found is None:
            found = self.collates[frame.f_code] = _in_collate(frame)
        return found

    def beat(self) -> None:
        self.left -= 1
        if self.left:
            return
        sys.settrace(None)
        rows = [(f, n, encode(event)) for (f, n), event in self.repeats().items()]
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(rows, file)
        self.sender.row(fork.DONE)
        self.sender.leave()

    def repeats(self) -> Repeats:
        """Each repeated line with the innermost loop that repeats it."""
        found: Repeats = {}
        for line, chain in self.chains.items():
            for at in chain:
                runs = self.counts.get(at, 0) / STEPS
                if runs < LEAST_RUNS:
                    break
                loop = next(iter(loops_around(at[0].co_filename, at[1])), None)
                if loop is None:
                    continue
                if at in self.modules:
                    break
                if at[1] == loop.lineno and not (isinstance(loop, ast.While) and loop.end_lineno == loop.lineno):
                    runs -= self.begun[at][1] / STEPS  # a header also runs where its loop begins
                if not differentiates(loop):
                    header = place_in(at[0].co_filename, loop, at[0].co_name)
                    place = Place(
                        shown(header.file), header.line, header.function, header.text, header.column, header.end_column
                    )
                    kind = COLLATE_LOOP if self.collates.get(at[0]) else "loop"
                    found[shown(line[0].co_filename), line[1]] = Event(kind, place, runs, 0.0)
                break
        return found


def _in_collate(frame: FrameType | None) -> bool:
    """Whether torch's fetcher has called what runs, other than to ask the dataset for an item."""
    inner: FrameType | None = None
    while frame is not None:
        name = frame.f_code.co_name
        if name in ("__getitem__", "__getitems__", "__next__", "__iter__"):
            return False
        if frame.f_code.co_filename.endswith(_FETCHES):
            code = inner.f_code if inner is not None else None
            return code is None or code.co_name == "<genexpr>" or not code.co_flags & inspect.CO_GENERATOR
        inner, frame = frame, frame.f_back
    return False


def _over_modules(frame: FrameType, line: int) -> bool:
    """Whether what the innermost loop around a line goes through are modules."""
    import torch

    loop = next(iter(loops_around(frame.f_code.co_filename, line)), None)
    if loop is None or line <= loop.lineno:
        return False
    held = locals_of(frame)
    return any(issubclass(type(held.get(name)), torch.nn.Module) for name in targets(loop))


def _users_lines(frame: FrameType | None) -> Any:
    for _ in range(MOST_FRAMES):
        while frame is not None and not is_users(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is None:
            return
        yield frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno
        frame = frame.f_back


def loop_events(repeats: Repeats, hot: tuple[Hot, ...]) -> tuple[Event, ...]:
    """One event for every loop inside the step: iterations and the sampled seconds of all its lines per step."""
    loops: dict[tuple[str, Place], list[tuple[Hot, Event]]] = {}
    for line in hot:
        event = repeats.get((line.place.file, line.place.line))
        if event is not None and line.phase in _PHASES[event.kind] and not logs(line.place.text):
            loops.setdefault((event.kind, event.place), []).append((line, event))
    events = [
        Event(kind, place, max(e.calls for _, e in lines), sum(h.seconds for h, _ in lines))
        for (kind, place), lines in loops.items()
    ]
    return tuple(sorted(events, key=lambda e: -e.seconds))

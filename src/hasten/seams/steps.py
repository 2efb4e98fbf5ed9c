"""What is kept of the steps of a process: a record of each, or of several, and its memory now and then."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from hasten.core.trace import PHASES

MOST_ROWS = 8192  # step records kept; beyond, neighbours are merged two by two
MEMORY_EVERY = 8  # steps between two readings of the resident memory …
MEMORY_RARELY = 64  # … and after the first thousand
PAGE = os.sysconf("SC_PAGE_SIZE")
WIDTH = len(PHASES) + 1


def _second(path: str) -> int | None:
    """The second number in a file of the kernel's; None where there is none."""
    try:  # opened each time: a descriptor that stayed open would change the numbers that the script's files get
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(file, 64).split()[1])
        finally:
            os.close(file)
    except (OSError, ValueError, IndexError):
        return None


def waited_ns() -> int | None:
    """Nanoseconds for which this thread could have run and waited for a core; None where the kernel does not say."""
    return _second("/proc/thread-self/schedstat")


@dataclass
class Steps:
    """Records of steps.

    Attributes:
        rows: per record, wall nanoseconds then nanoseconds per phase; a record holds ``fold`` steps.
        memory: resident bytes after so many steps; processor: the training thread's nanoseconds on a core then, and
            those that it has waited for one.
    """

    steps: int = 0
    rows: array[int] = field(default_factory=lambda: array("q"))
    fold: int = 1
    memory: list[tuple[int, int]] = field(default_factory=list)
    processor: list[tuple[int, int, int]] = field(default_factory=list)
    _pending: list[int] = field(default_factory=lambda: [0] * WIDTH)
    _pending_count: int = 0

    def add(self, wall: int, spent: Sequence[int]) -> None:
        """One more step: its wall nanoseconds, and those of each phase."""
        self.steps += 1
        if self.fold == 1:
            self.rows.append(wall)
            self.rows.extend(spent)
            if len(self.rows) >= MOST_ROWS * WIDTH:
                self._merge_rows()
        else:
            self._fold(wall, spent)

    def _fold(self, wall: int, spent: Sequence[int]) -> None:
        pending = self._pending
        pending[0] += wall
        for i, x in enumerate(spent, 1):
            pending[i] += x
        self._pending_count += 1
        if self._pending_count >= self.fold:
            self.rows.extend(pending)
            self._pending = [0] * WIDTH
            self._pending_count = 0
            if len(self.rows) >= MOST_ROWS * WIDTH:
                self._merge_rows()

    def _merge_rows(self) -> None:
        rows = self.rows
        merged = array("q")
        for start in range(0, len(rows) - WIDTH, 2 * WIDTH):
            merged.extend(
                a + b for a, b in zip(rows[start : start + WIDTH], rows[start + WIDTH : start + 2 * WIDTH], strict=True)
            )
        self.rows = merged
        self.fold *= 2

    def read_memory(self) -> None:
        """Note resident memory and processor time, now and then."""
        if self.steps % (MEMORY_EVERY if self.steps < 1000 else MEMORY_RARELY):
            return
        self.processor.append((self.steps, time.thread_time_ns(), waited_ns() or 0))
        pages = _second("/proc/self/statm")
        if pages is not None:
            self.memory.append((self.steps, pages * PAGE))
        if len(self.memory) > 4096:
            del self.memory[1::2]
            del self.processor[1::2]

    def records(self) -> list[tuple[int, ...]]:
        """Step records so far: wall nanoseconds, then nanoseconds per phase, each a mean over ``fold`` steps."""
        rows, fold = self.rows, self.fold
        return [tuple(x // fold for x in rows[i : i + WIDTH]) for i in range(0, len(rows), WIDTH)]

    def walls(self, since: int = 0) -> list[float]:
        """Seconds of each step from record ``since`` on, a mean over ``fold`` steps. Asked for between two steps of the
        script, when all phases of thousands of them would take a tenth of a second."""
        return [wall / self.fold / 1e9 for wall in self.rows[since * WIDTH :: WIDTH]]

    def recent(self, count: int) -> list[tuple[int, ...]]:
        """The last ``count`` records at most, as :meth:`records` gives them."""
        rows, fold = self.rows[-count * WIDTH :], self.fold
        return [tuple(x // fold for x in rows[i : i + WIDTH]) for i in range(0, len(rows), WIDTH)]


class Aside:
    """Steps that backward passes would have ended, as long as it is not known whether an optimizer will.

    Attributes:
        end: of the last one; 0 where there is none.
        spent: nanoseconds by phase up to there, of all of them.
    """

    def __init__(self) -> None:
        self.steps = Steps()
        self.end = 0
        self.spent = [0] * len(PHASES)

    def add(self, start: int, now: int, spent: Sequence[int]) -> None:
        """A backward pass has ended; ``start`` is that of the first step, ``spent`` what has passed since then."""
        self.steps.add(now - (self.end or start), [a - b for a, b in zip(spent, self.spent, strict=True)])
        self.end, self.spent = now, list(spent)

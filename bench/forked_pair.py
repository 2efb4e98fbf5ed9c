"""Two forked copies of one process that take turns: the same heap, weights and data, one difference."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator

from hasten.seams.openmp import pause_openmp

_TIME = struct.Struct("<dd")


class Copy:
    """A forked copy of this process that runs a few steps whenever it has the turn.

    Args:
        steps: the training loop to go on with.
        prepare: called once in the copy; what makes it different.
        count: steps a turn.
        settle: steps before the first turn.
    """

    def __init__(self, steps: Iterator[None], prepare: Callable[[], None], count: int, settle: int) -> None:
        turn, self._turn = os.pipe()
        self._answer, answer = os.pipe()
        pause_openmp()
        self.pid = os.fork()
        if self.pid:
            os.close(turn)
            os.close(answer)
            self._read()
            return
        try:
            prepare()
            for _ in range(settle):
                next(steps)
            self._serve(steps, count, turn, answer)
        except BaseException:
            traceback.print_exc()
        os._exit(1)

    def _serve(self, steps: Iterator[None], count: int, turn: int, answer: int) -> None:
        os.close(self._turn)  # this copy's own end, so that it learns when its parent has gone
        os.write(answer, _TIME.pack(0.0, 0.0))
        while os.read(turn, 1):
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(count):
                next(steps)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            os.write(answer, _TIME.pack(wall / count, cpu / count))
        os._exit(0)

    def _read(self) -> tuple[float, float]:
        got = os.read(self._answer, _TIME.size)
        if len(got) < _TIME.size:
            raise SystemExit("a copy has ended")
        wall, cpu = _TIME.unpack(got)
        return wall, cpu

    def time(self) -> tuple[float, float]:
        """Give the turn; wall and CPU seconds a step."""
        os.write(self._turn, b"t")
        return self._read()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def pairs(a: Copy, b: Copy, seconds: float, least: int = 8) -> Iterator[tuple[float, float, float, float]]:
    """Wall and CPU seconds a step of ``a`` and of ``b``, in turns of random order, for so many seconds."""
    end = time.perf_counter() + seconds
    done = 0
    while time.perf_counter() < end or done < least:
        times = {copy: copy.time() for copy in random.sample((a, b), 2)}
        yield (*times[a], *times[b])
        done += 1

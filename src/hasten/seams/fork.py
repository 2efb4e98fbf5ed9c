"""Forking a process that has run OpenMP (see :mod:`hasten.seams.openmp`), and knowing when that is safe."""

from __future__ import annotations

import atexit
import math
import os
import random
import select
import shutil
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hasten.measure import machine
from hasten.seams.cores import by_work, placed, set_cores
from hasten.seams.isolate import Stray, folder_in, isolate, why_not_private
from hasten.seams.openmp import openmp_libraries, pause_openmp
from hasten.seams.silent import silent_fork
from hasten.seams.watch import Departed, Watch

# Progress bars, log writers, queue feeders: a child does without them.
_HARMLESS_THREADS = ("TMonitor", "QueueFeederThread", "_RefreshThread", "_AsyncWriterThread")
_ROW = struct.Struct("<qdddd")  # kind, wall seconds, CPU seconds, loss, spare
ERROR, MOST_SAID = "error", 160  # file in a child's folder that says what ended it; characters of it that are told
DONE, READY, LAST = -1, -2, -3
STALL_SECONDS = 30.0  # a child silent for so long is given up


def grouped() -> bool:
    """Whether this process is one of several that only step together."""
    import torch

    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def why_not() -> str:
    """Why this process must not be forked for a trial; empty when it may."""
    if not sys.platform.startswith("linux"):
        return "forking for trials needs Linux"
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return "CUDA is initialised"
    if grouped():
        return "a process group is initialised"
    main = threading.main_thread()
    others = [
        t.name
        for t in threading.enumerate()
        if t is not main
        and t is not threading.current_thread()
        and not t.name.startswith(_HARMLESS_THREADS)
        and type(t).__name__ not in _HARMLESS_THREADS
    ]
    if others:
        return f"the script runs a thread of its own ({others[0]})"
    if threading.current_thread() is not main:
        return "the script trains in a thread of its own"
    if not openmp_libraries():
        return "torch's OpenMP runtime cannot be paused, it is older than OpenMP 5.0"
    return why_not_private()


class AtEnd:
    """Runs ``call`` when a block is left, but not in a child that departs through it: what is cleaned up belongs to
    the parent."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None or not issubclass(kind, Departed):
            self.call()


_LIVING: list[Child] = []  # children of this process; none outlives hasten's turn


def reap() -> None:
    """End the children that are still there: an interrupted trial leaves none behind."""
    for child in list(_LIVING):
        child.kill()


@dataclass
class Child:
    """A trial child as its parent sees it."""

    pid: int
    line: socket.socket
    started: float
    folder: str = ""
    _buffer: bytes = b""
    _threads: list[int] = field(default_factory=list)
    ended: bool = False
    _last: float = math.inf  # when it said that the script's last step was taken
    gone: bool = False

    @property
    def error(self) -> str:
        """What ended it, in a line: the exception that nobody caught; empty where it ended otherwise, is gone, or was
        not forked."""
        if not self.folder:  # a file of that name in the script's folder is the script's
            return ""
        try:
            with open(os.path.join(self.folder, ERROR), encoding="utf-8", errors="replace") as file:
                return file.read(MOST_SAID)
        except OSError:
            return ""

    def freeze(self) -> None:
        """Stop the child and its workers where they are."""
        self._signal(signal.SIGSTOP)

    def turn(self, cores: Sequence[int] = ()) -> None:
        """Let the child go on, for one unit of steps.

        Args:
            cores: where its threads start, the main thread on the first; the scheduler may move them from there. Left
                alone, either child of a pair stays where it is for seconds: on a busy machine one of them may have its
                OpenMP threads all on one core, and takes five times as long as the other.
        """
        if cores and not self._threads:
            self._threads = by_work(self.pid)
        before = placed(self._threads, cores) if cores else {}
        self._signal(signal.SIGCONT)
        try:
            self.line.send(b"t", socket.MSG_NOSIGNAL)
        except OSError:
            self.ended = True
        for thread, allowed in before.items():
            set_cores(thread, allowed)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            self.ended = True

    def rows(self, timeout: float) -> list[tuple[int, float, float, float, float]]:
        """Rows that arrive within ``timeout`` seconds; sets ``ended`` when the child is gone."""
        poll = select.poll()
        poll.register(self.line, select.POLLIN)
        if not poll.poll(max(0.0, timeout) * 1000):
            return []
        try:
            part = self.line.recv(1 << 16)
        except ConnectionResetError:
            part = b""
        if not part:
            self.ended = True
        self._buffer += part
        whole = len(self._buffer) // _ROW.size * _ROW.size
        out = [_ROW.unpack_from(self._buffer, i) for i in range(0, whole, _ROW.size)]
        self._buffer = self._buffer[whole:]
        for row in out:
            self._last = time.monotonic() if row[0] == LAST else math.inf
        return [row for row in out if row[0] != LAST]

    def is_over(self, seconds: float) -> bool:
        """Whether it has said so many seconds ago that it took the script's last step, and nothing since."""
        return time.monotonic() - self._last > seconds

    def drain(self, seconds: float) -> list[tuple[int, float, float, float, float]]:
        """All rows until the child ends, says that it is done, falls silent, or the time is up; it is gone then."""
        end = time.monotonic() + seconds
        heard = time.monotonic()
        rows: list[tuple[int, float, float, float, float]] = []
        try:
            while not self.ended and time.monotonic() < min(end, heard + STALL_SECONDS):
                new = self.rows(min(1.0, max(0.01, end - time.monotonic())))
                if new:
                    heard = time.monotonic()
                rows.extend(new)
                if any(r[0] == DONE for r in new):
                    break
        finally:
            self.kill()
        return rows

    def kill(self) -> None:
        """End the child and all it started; its folder goes with it."""
        if self.gone:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        self.line.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.ended = self.gone = True
        if self in _LIVING:
            _LIVING.remove(self)


class Sender:
    """The child's way to report: fixed-size rows down the line, then gone by ``os._exit``."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.at_end: Callable[[], None] | None = None

    def await_turn(self) -> None:
        """Wait until the parent gives the turn; end if it is gone."""
        try:
            if self.line.recv(1):
                return
        except OSError:
            pass
        self.leave()

    def row(self, kind: int, wall: float = 0.0, cpu: float = 0.0, loss: float = 0.0, spare: float = 0.0) -> None:
        try:
            self.line.sendall(_ROW.pack(kind, wall, cpu, loss, spare))
        except OSError:
            self.leave()

    def leave(self) -> None:
        """End this child now, running nothing of the user's."""
        call, self.at_end = self.at_end, None
        if call is not None:
            try:
                call()
            except Exception:
                os._exit(1)
        os._exit(0)


def go(
    watch: Watch,
    driver: Callable[[Sender], Any],
    *,
    allowed: tuple[str, ...] = (),
    processes: bool = True,
) -> Child:
    """Fork at a step's end. Returns the child in the parent; in the child raises :class:`Departed`, so that it goes
    on in the user's loop with ``watch.driver`` set to ``driver(sender)``.

    The caller must have asked :func:`why_not`.
    """
    near, far = socket.socketpair()
    folder = folder_in(watch.folder, "child-")
    pause_openmp()
    drawn = random.getstate()
    parent = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    watch.forking = True
    try:
        pid = silent_fork()
        if pid:
            child = Child(pid, near, time.monotonic(), folder)
            _LIVING.append(child)
    finally:
        watch.forking = False
        if os.getpid() == parent:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if pid:
        far.close()
        try:
            os.setpgid(pid, pid)
        except OSError:
            pass
        return child
    near.close()
    random.setstate(drawn)  # Python seeds its generator anew in every forked child
    _become_child(watch, driver, far, parent, folder, allowed, processes)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    raise Departed


def adopt(pid: int, line: socket.socket) -> Child:
    """A process of ours that was not forked but started, and leads a group of its own."""
    child = Child(pid, line, time.monotonic())
    _LIVING.append(child)
    return child


def _become_child(
    watch: Watch,
    driver: Callable[[Sender], Any],
    line: socket.socket,
    parent: int,
    folder: str,
    allowed: tuple[str, ...],
    processes: bool,
) -> None:
    try:
        os.setpgid(0, 0)
        die_with(parent)
        os.register_at_fork(after_in_child=lambda: die_with(os.getppid()))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        watch.sampler.forget()
        watch.clock.locate = None
        watch.at_step = None
        _LIVING.clear()
        debug = bool(os.environ.get("HASTEN_DEBUG"))
        isolate(frozenset((line.fileno(), 2) if debug else (line.fileno(),)), folder, allowed, processes)
        sender = Sender(line)
        os.environ["HASTEN_CACHE_DIR"] = folder

        def quiet(*error: Any) -> None:
            if debug:
                sys.__excepthook__(*error)
            try:
                _note_error(folder, *error)
            finally:
                sender.leave()

        sys.excepthook = quiet
        threading.excepthook = quiet
        atexit.register(sender.leave)
        watch.driver = driver(sender)
    except BaseException as error:
        if os.environ.get("HASTEN_DEBUG"):
            traceback.print_exc()
        try:
            _note_error(folder, type(error), error)
        finally:
            os._exit(1)


def _note_error(folder: str, kind: Any, error: Any = None, *_: Any) -> None:
    """Leave the exception's first line for the parent. Takes what a thread's hook is given, too."""
    kind, error = (kind, error) if error is not None else (kind.exc_type, kind.exc_value)
    said = str(error).strip().split("\n")[0]
    with open(os.path.join(folder, ERROR), "w", encoding="utf-8", errors="replace") as file:
        file.write(said if kind is Stray else f"{kind.__name__}: {said}" if said else kind.__name__)


def die_with(parent: int) -> None:
    """Have this process killed as soon as its parent is gone."""
    machine.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)

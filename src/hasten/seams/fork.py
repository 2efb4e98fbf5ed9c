"""Forking a process that has run OpenMP, and knowing when that is safe.

A plain ``fork()`` after a parallel region dead-locks the child at its next one: libgomp believes in threads that no
longer exist. ``omp_pause_resource_all(omp_pause_hard)`` (OpenMP 5.0, 3.2.44) ends them first, on both sides; they come
back by themselves at the next parallel region, with the same number of threads and so the same sums.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import select
import shutil
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hasten.seams.isolate import PrivateFiles, isolate, why_not_private
from hasten.seams.watch import Departed, Watch

_HARMLESS_THREADS = ("TMonitor", "QueueFeederThread", "tqdm", "SockListener", "hasten")
_ROW = struct.Struct("<qdddd")  # kind, wall seconds, CPU seconds, loss, spare
DONE, NOTE = -1, -2


@functools.cache
def _openmp_libraries() -> tuple[ctypes.CDLL, ...]:
    paths = set()
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            path = line.rstrip("\n").split(" ", 5)[-1].strip()
            if any(name in os.path.basename(path) for name in ("libgomp", "libiomp", "libomp.", "libomp-")):
                paths.add(path)
    libraries = []
    for path in sorted(paths):
        try:
            library = ctypes.CDLL(path)
            library.omp_pause_resource_all  # noqa: B018
            libraries.append(library)
        except (OSError, AttributeError):
            continue
    return tuple(libraries)


def pause_openmp() -> bool:
    """End the OpenMP threads of every runtime in this process; they come back when needed."""
    libraries = _openmp_libraries()
    for library in libraries:
        library.omp_pause_resource_all(2)
    return bool(libraries)


def why_not() -> str:
    """Why this process must not be forked for a trial; empty when it may."""
    if not sys.platform.startswith("linux"):
        return "forking for trials needs Linux"
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return "CUDA is initialised"
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return "a process group is initialised"
    main = threading.main_thread()
    others = [
        t.name
        for t in threading.enumerate()
        if t is not main and t is not threading.current_thread() and not t.name.startswith(_HARMLESS_THREADS)
        and type(t).__name__ not in _HARMLESS_THREADS
    ]
    if others:
        return f"the script runs a thread of its own ({others[0]})"
    if threading.current_thread() is not main:
        return "the script trains in a thread of its own"
    if not _openmp_libraries():
        return "torch's OpenMP library was not found"
    return why_not_private()


@dataclass
class Child:
    """A trial child as its parent sees it."""

    pid: int
    pipe: int
    started: float
    _buffer: bytes = b""
    ended: bool = False

    def rows(self, timeout: float) -> list[tuple[int, float, float, float, float]]:
        """Rows that arrive within ``timeout`` seconds; sets ``ended`` when the child is gone."""
        ready, _, _ = select.select([self.pipe], [], [], max(0.0, timeout))
        if not ready:
            return []
        part = os.read(self.pipe, 1 << 16)
        if not part:
            self.ended = True
        self._buffer += part
        whole = len(self._buffer) // _ROW.size * _ROW.size
        out = [_ROW.unpack_from(self._buffer, i) for i in range(0, whole, _ROW.size)]
        self._buffer = self._buffer[whole:]
        return out

    def kill(self) -> None:
        """End the child and all it started."""
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
        try:
            os.close(self.pipe)
        except OSError:
            pass
        self.ended = True


class Sender:
    """The child's way to report: fixed-size rows into a pipe, then gone by ``os._exit``."""

    def __init__(self, pipe: int, files: PrivateFiles | None) -> None:
        self.pipe = pipe
        self.files = files

    def row(self, kind: int, wall: float = 0.0, cpu: float = 0.0, loss: float = 0.0, spare: float = 0.0) -> None:
        try:
            os.write(self.pipe, _ROW.pack(kind, wall, cpu, loss, spare))
        except OSError:
            self.leave()

    def leave(self) -> None:
        """End this child now, running nothing of the user's."""
        if self.files is not None:
            shutil.rmtree(self.files.folder, ignore_errors=True)
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
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass
    read_end, write_end = os.pipe()
    pause_openmp()
    blocked = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    watch.forking = True
    pid = os.fork()
    watch.forking = False
    if pid:
        os.close(write_end)
        try:
            os.setpgid(pid, pid)
        except OSError:
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        return Child(pid, read_end, time.monotonic())
    _become_child(watch, driver, write_end, allowed, processes)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    raise Departed


def _become_child(
    watch: Watch, driver: Callable[[Sender], Any], pipe: int, allowed: tuple[str, ...], processes: bool
) -> None:
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG: no orphans
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        watch.sampler.forget()
        watch.clock.locate = None
        watch.at_step = None
        files = isolate(frozenset({pipe}), allowed, processes)
        sender = Sender(pipe, files)

        def quiet(*_args: Any) -> None:
            sender.leave()

        sys.excepthook = quiet
        threading.excepthook = quiet
        atexit.register(sender.leave)
        watch.driver = driver(sender)
    except BaseException:
        os._exit(1)

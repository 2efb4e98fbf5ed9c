"""What keeps a forked child from touching anything that is not its own.

Three layers, each enough on its own for what it covers:

1. inherited descriptors: writable ones lead to /dev/null, files open for reading get an offset of their own, files
   open for both become private copies in memory, shared memory becomes private memory;
2. Python's own ways to write (``open``, ``os.replace``, ``torch.save`` …) write to a private folder or do nothing;
3. the kernel refuses every other write to a file (Landlock, where the kernel has it).

Network connections and new processes end the child (:class:`Stray`), which then reports what it has measured so far.
"""

from __future__ import annotations

import builtins
import ctypes
import fcntl
import io
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

MOST_SHARED = 2 << 30  # bytes of shared memory that a child copies; more makes forking refuse
MOST_COPIED = 256 << 20  # bytes of a file open for reading and writing that a child copies into memory
_LIBC = ctypes.CDLL(None, use_errno=True)


class Stray(BaseException):
    """The child was about to do something that would be felt outside of it."""


def shared_mappings() -> list[tuple[int, int, int, int, str]]:
    """Writable shared mappings of this process: start, end, offset, inode, path."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            span, mode, offset, _, inode, *path = line.split(maxsplit=5)
            if "w" in mode and "s" in mode:
                start, end = (int(x, 16) for x in span.split("-"))
                found.append((start, end, int(offset, 16), int(inode), path[0].strip() if path else ""))
    return found


def why_not_private() -> str:
    """Why shared memory cannot be made private here; empty when it can."""
    total = sum(
        end - start
        for start, end, _, _, path in shared_mappings()
        if not (path.startswith("/") and os.path.exists(path) and "/dev/" not in path)
    )
    if total > MOST_SHARED:
        return f"{total >> 20} MiB of shared memory would have to be copied"
    devices = {p for *_, p in shared_mappings() if p.startswith("/dev/") and not p.startswith("/dev/shm")}
    return f"a device is mapped: {sorted(devices)[0]}" if devices - {"/dev/zero (deleted)"} else ""


def privatise_memory() -> None:
    """Turn writable shared mappings into private ones with the same contents."""
    private, fixed, anonymous, read_write = 0x02, 0x10, 0x20, 0x3
    _LIBC.mmap.restype = ctypes.c_void_p
    _LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    for start, end, offset, inode, path in shared_mappings():
        size = end - start
        file = -1
        if path.startswith("/") and os.path.exists(path) and os.stat(path).st_ino == inode:
            file = os.open(path, os.O_RDONLY)
        if file >= 0 and size > 1 << 20:
            _LIBC.mmap(start, size, read_write, private | fixed, file, offset)
        else:
            content = ctypes.string_at(start, size)
            _LIBC.mmap(start, size, read_write, private | fixed | anonymous, -1, 0)
            ctypes.memmove(start, content, size)
        if file >= 0:
            os.close(file)


def privatise_descriptors(keep: frozenset[int]) -> None:
    """Give every inherited descriptor an offset of its own, and lead the writable ones nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number in keep or number == null:
            continue
        try:
            flags = fcntl.fcntl(number, fcntl.F_GETFL)
            kind = os.fstat(number).st_mode
        except OSError:
            continue
        mode = flags & os.O_ACCMODE
        if stat.S_ISREG(kind):
            _own_file(number, mode, flags, null)
        elif stat.S_ISSOCK(kind):
            near, _far = socket.socketpair()
            os.dup2(near.fileno(), number)
            _KEPT.append(_far)
            near.close()
        elif number == 0 or mode != os.O_RDONLY:
            os.dup2(null, number)
    os.close(null)


_KEPT: list[Any] = []


def _own_file(number: int, mode: int, flags: int, null: int) -> None:
    inheritable = os.get_inheritable(number)
    if mode == os.O_WRONLY:
        os.dup2(null, number, inheritable)
        return
    position = os.lseek(number, 0, os.SEEK_CUR)
    try:
        if mode == os.O_RDONLY:
            own = os.open(f"/proc/self/fd/{number}", os.O_RDONLY | (flags & os.O_NONBLOCK))
        else:
            own = _copy_in_memory(number)
    except OSError:
        os.dup2(null, number, inheritable)
        return
    os.lseek(own, position, os.SEEK_SET)
    os.dup2(own, number, inheritable)
    os.close(own)


def _copy_in_memory(number: int) -> int:
    size = os.fstat(number).st_size
    if size > MOST_COPIED:
        raise OSError("too large to copy")
    own = os.memfd_create("hasten")
    done = 0
    while done < size:
        part = os.pread(number, min(1 << 20, size - done), done)
        if not part:
            break
        os.write(own, part)
        done += len(part)
    return own


class PrivateFiles:
    """Python's ways to change files, led to a private folder.

    A file opened for writing is written in the folder; reading it later reads that copy. Folders are not made, files
    are not removed: such calls succeed and do nothing.
    """

    def __init__(self, folder: str, allowed: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.allowed = tuple(os.path.realpath(p) + os.sep for p in (*allowed, self.folder))
        self.copies: dict[str, str] = {}
        self._open = builtins.open
        self._os_open = os.open

    def install(self) -> None:
        builtins.open = self.open
        io.open = self.open
        os.open = self.os_open
        for name in ("remove", "unlink", "rmdir", "mkdir", "chmod", "chown", "utime", "truncate", "symlink", "link"):
            setattr(os, name, self._guarded(getattr(os, name)))
        os.rename = self._moved(os.rename)
        os.replace = self._moved(os.replace)

    def _is_ours(self, path: str) -> bool:
        return path.startswith((*self.allowed, "/dev/", "/proc/"))

    def _real(self, path: Any) -> str:
        try:
            return os.path.realpath(os.fsdecode(path))
        except (TypeError, ValueError):
            return ""

    def _private(self, path: str, keeps: bool) -> str:
        copy = self.copies.get(path)
        if copy is None:
            copy = self.copies[path] = os.path.join(self.folder, str(len(self.copies)))
            if keeps and os.path.isfile(path) and os.path.getsize(path) <= MOST_COPIED:
                with self._open(path, "rb") as source, self._open(copy, "wb") as target:
                    target.write(source.read())
        return copy

    def open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, int):
            return self._open(file, mode, *args, **kwargs)
        path = self._real(file)
        if path and not self._is_ours(path):
            if any(c in mode for c in "wax+"):
                file = self._private(path, keeps="w" not in mode)
                mode = mode.replace("x", "w")
            elif path in self.copies:
                file = self.copies[path]
        return self._open(file, mode, *args, **kwargs)

    def os_open(self, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        real = self._real(path)
        if real and not self._is_ours(real):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
                path, flags = self._private(real, keeps=not flags & os.O_TRUNC), flags & ~os.O_EXCL
            elif real in self.copies:
                path = self.copies[real]
        return self._os_open(path, flags, *args, **kwargs)

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, int) or self._is_ours(self._real(path)):
                return call(path, *args, **kwargs)
            return None

        return guarded

    def _moved(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def moved(source: Any, target: Any, **kwargs: Any) -> None:
            a, b = self._real(source), self._real(target)
            if self._is_ours(a) and self._is_ours(b):
                call(source, target, **kwargs)
            elif a in self.copies:
                self.copies[b] = self.copies.pop(a)

        return moved


def private_folder() -> str:
    """A new folder for one child, in memory where possible; its parent removes it."""
    return tempfile.mkdtemp(prefix="hasten-child-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def refuse_processes_and_connections(folder: str, processes: bool) -> None:
    """New processes and connections end the child; its own loader workers may use sockets in its folder."""

    def stray(*_args: Any, **_kwargs: Any) -> Any:
        raise Stray

    for name in ("connect", "bind"):
        setattr(socket.socket, name, _only_within(folder, getattr(socket.socket, name)))
    if processes:
        subprocess.Popen.__init__ = stray  # type: ignore[method-assign]
        os.system = stray
        for name in ("execv", "execve", "posix_spawn", "posix_spawnp"):
            setattr(os, name, stray)


def _only_within(folder: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family == socket.AF_UNIX and os.fsdecode(address).startswith(folder):
            return call(self, address)
        raise Stray

    return guarded


def silence_event_writers() -> None:
    """TensorBoard's writers hand events to a thread that a child does not have: nothing is handed over."""
    module = sys.modules.get("tensorboard.summary.writer.event_file_writer")
    if module is not None:
        module.EventFileWriter.add_event = lambda self, event: None


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


# Landlock's rights that change the file system: write, remove, make …, refer, truncate (linux/landlock.h, ABI 3).
_WRITES = (1 << 1) | sum(1 << i for i in range(4, 15))


def seal(allowed: tuple[str, ...]) -> bool:
    """Let the kernel refuse every change to files outside ``allowed``. False where the kernel has no Landlock."""
    abi = _LIBC.syscall(444, None, 0, 1)
    if abi < 1:
        return False
    rights = _WRITES & ~(0 if abi >= 3 else 1 << 14) & ~(0 if abi >= 2 else 1 << 13)
    attribute = _RulesetAttr(rights)
    ruleset = _LIBC.syscall(444, ctypes.byref(attribute), ctypes.sizeof(attribute), 0)
    if ruleset < 0:
        return False
    try:
        for path in (*allowed, "/dev/null", "/dev/shm"):
            if not os.path.exists(path):
                continue
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            granted = rights if os.path.isdir(path) else rights & ((1 << 1) | (1 << 14))
            rule = _PathBeneath(granted, parent)
            _LIBC.syscall(445, ruleset, 1, ctypes.byref(rule), 0)
            os.close(parent)
        _LIBC.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        return bool(_LIBC.syscall(446, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def isolate_process(folder: str) -> PrivateFiles:
    """Make a throw-away process harmless from its start on; it may write to ``folder`` only."""
    files = PrivateFiles(folder)
    seal((folder,))
    tempfile.tempdir = folder
    files.install()
    refuse_processes_and_connections(folder, processes=False)
    return files


def isolate(keep: frozenset[int], folder: str, allowed: tuple[str, ...] = (), processes: bool = True) -> PrivateFiles:
    """Make this freshly forked child harmless.

    Args:
        keep: descriptors that stay as they are (the child's own pipe).
        folder: the child's own folder.
        allowed: folders it may write to.
        processes: whether new processes end it (False lets a trial start loader workers).
    """
    privatise_memory()
    privatise_descriptors(keep)
    files = PrivateFiles(folder, allowed)
    seal((*allowed, folder))
    tempfile.tempdir = folder
    multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    files.install()
    silence_event_writers()
    refuse_processes_and_connections(folder, processes)
    return files

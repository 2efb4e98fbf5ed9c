"""What keeps a forked child from touching anything that is not its own.

Three layers, each enough on its own for what it covers:

1. inherited descriptors: what leads outside leads nowhere, files open for reading get an offset of their own, files
   open for both become private copies in memory, shared memory becomes private memory;
2. Python's own ways to write (``open``, ``os.replace``, ``torch.save`` …) write to a private folder or do nothing
   (:mod:`hasten.seams.files`);
3. the kernel refuses every other change to a file (:mod:`hasten.seams.seal`, where the kernel has it).

Network connections and new programs end the child (:class:`Stray`), which then reports what it has measured so far.
Signals reach only the child's own processes.
"""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing.util
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

from hasten.measure import machine
from hasten.seams.files import MOST_COPIED, PrivateFiles
from hasten.seams.seal import abi, seal

MOST_SHARED = 2 << 30  # bytes of shared memory that a child copies; more makes forking refuse
LEAST_ROOM = 4 << 30  # free bytes of /dev/shm below which folders are made elsewhere: the script's workers need it
# Libraries that write files without asking Python; without Landlock nothing would keep a child of theirs from it.
_WRITERS = ("cv2", "h5py", "lmdb", "netCDF4", "pyarrow", "safetensors", "tables", "tensorflow")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CORE = 4  # RLIMIT_CORE; a script may have a module named ``resource``
_LED: list[PrivateFiles] = []  # of a throw-away process
_SILENT: list[socket.socket] = []  # far ends; while they are open, reading waits, as on a silent line


class Stray(BaseException):
    """The child was about to do something that would be felt outside of it."""

    def __str__(self) -> str:
        return "it was about to start a program or to open a connection"


# -- memory ------------------------------------------------------------------------------------------------------


def shared_mappings() -> list[tuple[int, int, int, int, str, str]]:
    """Writable shared mappings of this process: start, end, offset, inode, permissions, path."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            span, mode, offset, _, inode, *path = line.split(maxsplit=5)
            if "w" in mode and "s" in mode:
                start, end = (int(x, 16) for x in span.split("-"))
                found.append((start, end, int(offset, 16), int(inode), mode, path[0].strip() if path else ""))
    return found


def why_not_private() -> str:
    """Why a child of this process could not be kept from touching what is not its own; empty when it can."""
    mappings = shared_mappings()
    total = sum(
        end - start
        for start, end, *_, path in mappings
        if not (path.startswith("/") and os.path.exists(path) and "/dev/" not in path)
    )
    if total > MOST_SHARED:
        return f"{total >> 20} MiB of shared memory would have to be copied"
    devices = {p for *_, p in mappings if p.startswith("/dev/") and not p.startswith("/dev/shm")}
    if devices - {"/dev/zero (deleted)"}:
        return f"a device is mapped: {sorted(devices)[0]}"
    if not abi():
        writer = next((name for name in _WRITERS if name in sys.modules), "")
        return f"this kernel has no Landlock, and {writer} writes files by itself" if writer else ""
    return ""


def privatise_memory() -> None:
    """Turn writable shared mappings into private ones with the same contents."""
    private, fixed, anonymous = 0x02, 0x10, 0x20
    _LIBC.mmap.restype = ctypes.c_void_p
    _LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    for start, end, offset, inode, mode, path in shared_mappings():
        size = end - start
        protection = 0x7 if "x" in mode else 0x3
        file = -1
        if path.startswith("/") and os.path.exists(path) and os.stat(path).st_ino == inode:
            file = os.open(path, os.O_RDONLY)
        if file >= 0 and size > 1 << 20:
            _LIBC.mmap(start, size, protection, private | fixed, file, offset)
        else:
            content = ctypes.string_at(start, size)
            _LIBC.mmap(start, size, protection, private | fixed | anonymous, -1, 0)
            ctypes.memmove(start, content, size)
        if file >= 0:
            os.close(file)


# -- descriptors -------------------------------------------------------------------------------------------------


class Descriptors:
    """The descriptors of a child, each made its own or led nowhere.

    Args:
        keep: those that stay as they are.
    """

    def __init__(self, keep: frozenset[int]) -> None:
        self.keep = keep
        self.room = MOST_COPIED

    def privatise(self) -> None:
        """Nothing that this process writes, sends or reads is missed or seen elsewhere."""
        null = os.open(os.devnull, os.O_RDWR)
        for number in (int(name) for name in os.listdir("/proc/self/fd")):
            if number not in self.keep and number != null:
                try:
                    self._own(number, null)
                except OSError:  # not open any more, or it cannot be had for oneself
                    self._lead(number, null)
        os.close(null)

    def _own(self, number: int, null: int) -> None:
        kind = os.fstat(number).st_mode
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        if stat.S_ISREG(kind):
            self._own_file(number, flags, null)
        elif stat.S_ISDIR(kind):
            self._replace(number, os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_DIRECTORY))
        elif stat.S_ISSOCK(kind):
            near, far = socket.socketpair()
            _SILENT.append(far)
            self._replace(number, near.detach())
        elif not (stat.S_ISCHR(kind) and flags & os.O_ACCMODE == os.O_RDONLY and number):
            self._lead(number, null)

    def _own_file(self, number: int, flags: int, null: int) -> None:
        access = flags & os.O_ACCMODE
        if access == os.O_WRONLY:
            self._lead(number, null)
            return
        if flags & os.O_PATH:
            return
        position = os.lseek(number, 0, os.SEEK_CUR)
        size = os.fstat(number).st_size
        if access == os.O_RDWR and size <= self.room:
            self.room -= size
            own = _copy_in_memory(number, size)
            fcntl.fcntl(own, fcntl.F_SETFL, flags & (os.O_APPEND | os.O_NONBLOCK))
        else:
            own = os.open(f"/proc/self/fd/{number}", os.O_RDONLY | flags & os.O_NONBLOCK)
        os.lseek(own, position, os.SEEK_SET)
        self._replace(number, own)

    def _lead(self, number: int, null: int) -> None:
        try:
            os.dup2(null, number, os.get_inheritable(number))
        except OSError:
            pass

    def _replace(self, number: int, own: int) -> None:
        os.dup2(own, number, os.get_inheritable(number))
        os.close(own)


def _copy_in_memory(number: int, size: int) -> int:
    own = os.memfd_create("hasten")
    done = 0
    while done < size:
        part = os.pread(number, min(1 << 20, size - done), done)
        if not part:
            break
        os.write(own, part)
        done += len(part)
    return own


# -- processes and connections -----------------------------------------------------------------------------------


def refuse_processes_and_connections(folder: str, processes: bool) -> None:
    """New programs and connections end the child; its own loader workers may use sockets in its folder, and torch
    itself may call a compiler.

    Args:
        processes: end it for forking, too.
    """

    def stray(*_args: Any, **_kwargs: Any) -> Any:
        raise Stray

    for name in ("connect", "connect_ex", "bind"):
        setattr(socket.socket, name, _only_within(folder, getattr(socket.socket, name)))
    subprocess.Popen.__init__ = _only_torch(subprocess.Popen.__init__)  # type: ignore[method-assign]
    os.system = stray
    for name in ("execv", "execve", "posix_spawn", "posix_spawnp"):
        setattr(os, name, stray)
    multiprocessing.util.spawnv_passfds = stray
    memory = sys.modules.get("multiprocessing.shared_memory")
    if memory is not None:  # a name in /dev/shm would outlive the child
        memory._posixshmem = _NoNames()  # type: ignore[attr-defined]
    if processes:
        os.fork = os.forkpty = stray
    os.kill = _own_processes(os.kill)
    os.killpg = _own_group(os.killpg)
    if hasattr(signal, "pidfd_send_signal"):
        signal.pidfd_send_signal = lambda *_args, **_kwargs: None


class _NoNames:
    """Stands in for the C functions behind ``SharedMemory``."""

    def shm_open(self, *_args: Any, **_kwargs: Any) -> int:
        raise Stray

    def shm_unlink(self, name: str) -> None:
        return None


def _only_within(folder: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family == socket.AF_UNIX and os.fsdecode(address).startswith(folder):
            return call(self, address)
        raise Stray

    return guarded


def _only_torch(call: Callable[..., Any]) -> Callable[..., Any]:
    torch = sys.modules.get("torch")
    root = os.path.dirname(getattr(torch, "__file__", "") or "\0") + os.sep

    def guarded(*args: Any, **kwargs: Any) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == subprocess.__file__:
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(root):
            return call(*args, **kwargs)
        raise Stray

    return guarded


def _own_processes(call: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def kill(pid: int, number: int) -> None:
        """Reaches this process and those that it started; nothing happens to others."""
        if pid in (0, os.getpid(), -os.getpgrp()) or (pid > 0 and _parent(pid) == os.getpid()):
            call(pid, number)

    return kill


def _own_group(call: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def killpg(group: int, number: int) -> None:
        """Reaches this process's own group."""
        if group in (0, os.getpgrp()):
            call(group, number)

    return killpg


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def silence_event_writers() -> None:
    """TensorBoard's writers hand events to a thread that a child does not have: nothing is handed over."""
    module = sys.modules.get("tensorboard.summary.writer.event_file_writer")
    if module is not None:
        module.EventFileWriter.add_event = lambda self, event: None


def die_first() -> None:
    """If this process crashes it leaves no core file; if memory is short it goes before its parent."""
    _LIBC.setrlimit(_CORE, (ctypes.c_ulong * 2)(0, 0))
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass


# -- all of it ---------------------------------------------------------------------------------------------------


def folder_in(base: str, prefix: str) -> str:
    """A new private folder in ``base``, the session's folder, which goes with the session; in memory where there is
    no session."""
    return tempfile.mkdtemp(prefix=prefix, dir=base if os.path.isdir(base) else roomy_folder())


def roomy_folder() -> str:
    """Where temporary folders are made: in memory where there is plenty of it."""
    try:
        room = os.statvfs("/dev/shm")
        if os.access("/dev/shm", os.W_OK) and room.f_bavail * room.f_frsize > LEAST_ROOM:
            return "/dev/shm"
    except OSError:
        pass
    return tempfile.gettempdir()


def _accelerators() -> list[str]:
    return [f"/dev/{name}" for name in os.listdir("/dev") if name.startswith(("nvidia", "dri", "kfd"))]


def isolate_process(folder: str) -> PrivateFiles:
    """Make a throw-away process harmless from its start: it writes to ``folder`` only and goes with its parent."""
    machine.die_with_parent()
    die_first()
    files = PrivateFiles(folder)
    seal((folder, "/dev/shm", *_accelerators()))
    tempfile.tempdir = folder
    files.install()
    refuse_processes_and_connections(folder, processes=False)
    _LED.append(files)
    return files


def lead_libraries() -> None:
    """In a throw-away process, once torch is there, and once more when all that trains has been imported."""
    for files in _LED:
        files.lead_libraries()


def isolate(keep: frozenset[int], folder: str, allowed: tuple[str, ...] = (), processes: bool = True) -> PrivateFiles:
    """Make this freshly forked child harmless.

    Args:
        keep: descriptors that stay as they are (the child's own pipe).
        folder: the child's own folder.
        allowed: folders it may write to.
        processes: whether forking ends it (False lets a trial start loader workers, which share memory by name).
    """
    die_first()
    privatise_memory()
    Descriptors(keep).privatise()
    files = PrivateFiles(folder, allowed)
    seal((*allowed, folder) if processes else (*allowed, folder, "/dev/shm"))
    tempfile.tempdir = folder
    multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    files.install()
    silence_event_writers()
    refuse_processes_and_connections(folder, processes)
    return files

"""Python's own ways to change files, led to a private folder."""

from __future__ import annotations

import builtins
import errno
import fcntl
import gc
import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

MOST_COPIED = 256 << 20  # bytes of a file that is to be changed which are copied
_DEVICES = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Each of these changes what its first argument names; in a child it changes nothing of the user's.
_FIRST = (
    *("rmdir", "chmod", "lchmod", "fchmod", "chown", "lchown", "fchown", "utime", "chflags", "truncate"),
    *("setxattr", "removexattr", "mkfifo", "mknod"),
)
_LOCKS = frozenset(
    getattr(fcntl, name)
    for name in ("F_SETLK", "F_SETLKW", "F_OFD_SETLK", "F_OFD_SETLKW", "F_SETLEASE", "F_NOTIFY")
    if hasattr(fcntl, name)
)


class PrivateFiles:
    """What is opened for writing is written in the folder, and read from there later.

    Folders are not made, files are not removed, moved, or given other permissions: such calls succeed and do nothing.
    Locks are taken for granted. What was written or made is listed by ``os.listdir`` and ``os.scandir``, and so
    found by patterns.
    """

    def __init__(self, folder: str, allowed: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.allowed = tuple(os.path.realpath(p) + os.sep for p in (*allowed, self.folder))
        self.copies: dict[str, str] = {}
        self.made: set[str] = set()
        self.led: list[Callable[..., Any]] = []  # libraries' calls as they have been replaced
        self._open = builtins.open
        self._os_open = os.open
        self._stat = os.stat
        self._remove = os.remove
        self._listdir, self._scandir = os.listdir, os.scandir
        self._count = 0

    def install(self) -> None:
        """Replace the calls, for good: this process is a child that will be thrown away."""
        unlink = os.unlink
        builtins.open = self.open
        io.open = self.open
        os.open = self.os_open
        os.stat = self.stat
        os.remove = os.unlink = self.remove
        os.mkdir = self._made(os.mkdir)
        os.listdir, os.scandir = self.listdir, self.scandir
        for name in _FIRST:
            if hasattr(os, name):
                setattr(os, name, self._unless_ours(getattr(os, name), 0))
        for name in ("symlink", "link"):
            setattr(os, name, self._unless_ours(getattr(os, name), 1))
        os.rename = self._moved(os.rename)
        os.replace = self._moved(os.replace)
        vars(shutil)["rmtree"] = self._removed(shutil.rmtree)
        _grant_locks()
        self._forget_temporaries(unlink)
        self.lead_libraries()
        self._lead_databases()

    # -- paths ---------------------------------------------------------------------------------------------------

    def _is_ours(self, path: str) -> bool:
        return path.startswith((*self.allowed, "/memfd:", f"/proc/{os.getpid()}/")) or path in _DEVICES

    def _real(self, path: Any, folder: int | None = None) -> str:
        """The path without links; empty where it is none."""
        try:
            if isinstance(path, int):
                return os.readlink(f"/proc/self/fd/{path}")
            if folder is not None:
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
            return os.path.realpath(os.fsdecode(path))
        except (OSError, TypeError, ValueError):
            return ""

    def _private(self, path: str, keeps: bool) -> str:
        copy = self.copies.get(path)
        if copy is None:
            copy = self.copies[path] = self._copy_of(path) if keeps and os.path.isfile(path) else self._new()
        return copy

    def _new(self) -> str:
        self._count += 1
        return os.path.join(self.folder, str(self._count))

    def _copy_of(self, path: str) -> str:
        copy = self._new()
        if os.path.getsize(path) > MOST_COPIED:
            raise OSError(errno.ENOSPC, "too large to be copied for a trial", path)
        with self._open(path, "rb") as source, self._open(copy, "wb") as target:
            target.write(source.read())
        return copy

    # -- opening -------------------------------------------------------------------------------------------------

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

    def os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        real = self._real(path, dir_fd)
        if real and not self._is_ours(real):
            if flags & _CHANGING:
                path, flags, dir_fd = self._private(real, keeps=not flags & os.O_TRUNC), flags & ~os.O_EXCL, None
            elif real in self.copies:
                path, dir_fd = self.copies[real], None
        return self._os_open(path, flags, mode, dir_fd=dir_fd)

    def stat(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if not isinstance(path, int) and (self.copies or self.made):
            real = self._real(path, dir_fd)
            if real in self.copies:
                return self._stat(self.copies[real])
            if self._is_made_up(real):
                return self._stat(self.folder)
        return self._stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    def _is_made_up(self, folder: str) -> bool:
        return folder in self.made and not os.path.lexists(folder)

    def listdir(self, path: Any = ".") -> list[Any]:
        real = self._real(path)
        there = [] if self._is_made_up(real) else self._listdir(path)
        return there + self._beside(real, set(there), path)

    def _beside(self, real: str, there: set[Any], path: Any) -> list[Any]:
        """Names of what was written or made in a folder, in order, beside those that are there; bytes for bytes."""
        written = {os.path.basename(p) for p in (*self.copies, *self.made) if os.path.dirname(p) == real}
        names: Iterable[Any] = map(os.fsencode, written) if isinstance(path, bytes) else written
        return sorted(set(names) - there)

    def scandir(self, path: Any = ".") -> Any:
        real = self._real(path)
        if self._is_made_up(real):
            there = []
        else:
            with self._scandir(path) as entries:
                there = list(entries)
        names = self._beside(real, {entry.name for entry in there}, path)
        folder = "" if isinstance(path, int) else os.fspath(path)
        return _Entries([*there, *(_Entry(name, os.path.join(folder, name), real) for name in names)])

    # -- changing ------------------------------------------------------------------------------------------------

    def remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        real = self._real(path, dir_fd)
        if self._is_ours(real):
            self._remove(path, dir_fd=dir_fd)
        else:
            self.copies.pop(real, None)

    def _made(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            real = self._real(path, dir_fd)
            if self._is_ours(real):
                call(path, mode, dir_fd=dir_fd)
            else:
                self.made.add(real)

        return made

    def _removed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def removed(path: Any, *args: Any, **kwargs: Any) -> None:
            real = self._real(path, kwargs.get("dir_fd"))
            if self._is_ours(real + os.sep):
                call(path, *args, **kwargs)
            else:
                self.copies = {k: v for k, v in self.copies.items() if not k.startswith(real + os.sep)}
                self.made = {p for p in self.made if p != real and not p.startswith(real + os.sep)}

        return removed

    def _unless_ours(self, call: Callable[..., Any], which: int) -> Callable[..., Any]:
        def only_ours(*args: Any, **kwargs: Any) -> Any:
            folder = kwargs.get("dir_fd", kwargs.get("dst_dir_fd"))
            if len(args) > which and self._is_ours(self._real(args[which], folder)):
                return call(*args, **kwargs)
            return None

        return only_ours

    def _moved(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def moved(src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
            source, target = self._real(src, src_dir_fd), self._real(dst, dst_dir_fd)
            if self._is_ours(source) and self._is_ours(target):
                call(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            elif source in self.copies:
                self.copies[target] = self.copies.pop(source)
            elif os.path.isfile(source):
                self.copies[target] = self._copy_of(source)

        return moved

    # -- what does not go through Python's own calls -------------------------------------------------------------

    def _forget_temporaries(self, unlink: Any) -> None:
        """Temporary files of the parent hold on to the call that removes them."""
        closer = tempfile._TemporaryFileCloser  # type: ignore[attr-defined]
        for call in (getattr(closer, "close", None), getattr(closer, "cleanup", None)):
            if getattr(call, "__defaults__", None):
                call.__defaults__ = tuple(self.remove if d is unlink else d for d in call.__defaults__)  # type: ignore[union-attr]

    def lead_libraries(self) -> None:
        """Compiled code that opens paths by itself, and has been loaded by now, is given private ones. What cannot be
        led is left out: a tokenizer's files are the same whenever they are written."""
        writer = getattr(sys.modules.get("torch.serialization"), "_open_zipfile_writer_file", None)
        for owner, name in (
            (writer, "__init__"),  # torch.save
            (sys.modules.get("safetensors.torch"), "serialize_file"),
            (sys.modules.get("safetensors.numpy"), "serialize_file"),
        ):
            call = getattr(owner, name, None) if owner is not None else None
            if call is not None and call not in self.led:
                led = self._led(call)
                self.led.append(led)
                setattr(owner, name, led)
        self._lead_reading()
        tokenizers: Any = sys.modules.get("transformers.tokenization_utils_base")
        if hasattr(tokenizers, "PreTrainedTokenizerBase"):
            tokenizers.PreTrainedTokenizerBase.save_pretrained = lambda *_, **__: ()

    def _lead_reading(self) -> None:
        """``safe_open`` is a class, which libraries have by its name: it is replaced wherever it is."""
        original = getattr(sys.modules.get("safetensors"), "safe_open", None)
        if original is None or original in self.led:
            return

        def safe_open(filename: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self.copies.get(self._real(filename), filename), *args, **kwargs)

        self.led.append(safe_open)
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get("safe_open") is original:
                module.__dict__["safe_open"] = safe_open

    def _led(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call whose second argument is what it writes to."""

        def led(first: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
            path = self._real(name)
            ours = not path or self._is_ours(path)
            return call(first, name if ours else self._private(path, keeps=False), *args, **kwargs)

        return led

    def _lead_databases(self) -> None:
        """SQLite makes journals beside its files: open databases keep theirs in memory, new ones are copies."""
        module: Any = sys.modules.get("sqlite3")
        if module is None:
            return
        for found in gc.get_objects():
            if issubclass(type(found), module.Connection):
                try:
                    found.execute("pragma journal_mode=memory").close()
                except module.Error:
                    continue
        connect = module.connect

        def private(database: Any, *args: Any, **kwargs: Any) -> Any:
            path = self._real(database) if database != ":memory:" and not kwargs.get("uri") else ""
            if path and not self._is_ours(path):
                database = self._private(path, keeps=True)
            return connect(database, *args, **kwargs)

        module.connect = module.dbapi2.connect = private


def _grant_locks() -> None:
    """A lock taken by a child would be felt by others, and its parent may hold it."""
    control = fcntl.fcntl

    def granted(*_args: Any, **_kwargs: Any) -> None:
        return None

    def fcntl_unless_lock(fd: Any, cmd: int, arg: Any = 0) -> Any:
        return (0 if isinstance(arg, int) else arg) if cmd in _LOCKS else control(fd, cmd, arg)

    fcntl.flock = fcntl.lockf = granted
    fcntl.fcntl = fcntl_unless_lock
    if hasattr(os, "lockf"):
        os.lockf = granted


class _Entry:
    """Tells of a private file or folder what ``os.DirEntry`` tells."""

    def __init__(self, name: Any, path: Any, folder: str) -> None:
        self.name, self.path = name, path
        self._real = os.path.join(folder, os.fsdecode(name))

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.stat(self._real)

    def inode(self) -> int:
        return self.stat().st_ino

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return stat.S_ISDIR(self.stat().st_mode)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return not self.is_dir()

    def is_symlink(self) -> bool:
        return False

    is_junction = is_symlink


class _Entries:
    """What ``os.scandir`` gives."""

    def __init__(self, entries: list[Any]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> _Entries:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())

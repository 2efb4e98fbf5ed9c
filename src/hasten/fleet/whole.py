"""Files that are whole or not there: written under a name of their own, then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hasten.core.errors import HastenError, UsageError

PATIENCE = 2.0  # seconds that another process may take to end
_mine = threading.local()

Stood = tuple[int, int, int, int]


def stood(path: Path) -> Stood | None:
    """What tells the file that stands there now from others that were saved there; None without one."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def written(path: Path, write: Callable[[Path], object], before: Stood | None = None) -> Stood | None:
    """Let ``write`` make a file, and put it in the place of ``path``: whole or not at all, whoever else does so at the
    same time. An older file's mode is kept.

    Args:
        before: what stood there when it was last read or written; another file that stands there now is not replaced.

    Returns:
        What stands there now.

    Raises:
        HastenError: it cannot be written; an older file is untouched.
        UsageError: another file than ``before`` stands there, or another process is at work on it; it is untouched.
    """
    if path.exists() and not path.is_file():
        raise HastenError(f"cannot write {path}: it is no file", "a folder, a device or a pipe", "the name of a file")
    _check(path, before)  # the same again, when all is written and nobody else writes
    try:
        with beside(path) as folder:
            made = folder / path.name
            made.touch()
            mode = (path if path.exists() else made).stat().st_mode  # of a new file: what the umask leaves
            write(made)
            os.chmod(made, mode & 0o777)  # safetensors writes files that only their owner may read
            _synced(made)
            now = stood(path)
            free = before is None or (now is not None and now[:2] in _own_locks())
            with contextlib.nullcontext() if free else alone(path):
                _check(path, before)
                os.replace(made, path)
                new = stood(path)
        with contextlib.suppress(OSError):  # so that a power cut leaves the new name; some systems cannot
            _synced(path.parent)
        return new
    except UsageError:
        raise
    except Exception as error:
        raise HastenError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}",
            "the disk is full, or the folder is missing or cannot be written",
            "a path on another disk; the fleet is still in memory and an older file is untouched",
        ) from error


def _check(path: Path, before: Stood | None) -> None:
    """Raises: UsageError: another file than ``before`` stands there."""
    if before and stood(path) not in (before, None):
        raise UsageError(
            f"{path} has changed since this fleet was loaded from it, or saved there",
            "another process has saved there what it has learned",
            "fleet.save(another path); or Fleet.load(path, …) and the update once more; nothing was written",
        )


def _own_locks() -> set[tuple[int, int]]:
    """Files, by device and number, whose lock this thread holds by ``alone``."""
    held: set[tuple[int, int]] = _mine.__dict__.setdefault("files", set())
    return held


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep every other process that asks for the same from reading and replacing a file meanwhile.

    By the system's own lock on the file that stands there now: who comes later, when another one has taken its place,
    reads that one. It ends with the process, and lies in no file. A file that is not there is nobody's.

    Raises:
        UsageError: another one is at work on it.
    """
    held = _standing(path)
    own = {(found.st_dev, found.st_ino) for found in ([] if held is None else [os.fstat(held)])}
    mine = _own_locks()
    mine |= own
    try:
        yield
    finally:
        mine -= own
        if held is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_UN)  # also for processes that the user has forked meanwhile
            os.close(held)


def _standing(path: Path) -> int | None:
    """A handle that holds the lock on the file that has this name."""
    while True:
        try:
            held = os.open(path, os.O_RDONLY)
        except OSError:  # who reads it says why
            return None
        if not waited_for(held):
            os.close(held)
            raise UsageError(
                f"another process is at work on {path}",
                "a second update was started before the first one had ended",
                "call it again when the other one has ended; nothing was done",
            )
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(held), os.stat(path)):
                return held
        os.close(held)  # replaced while its lock was waited for


def waited_for(held: int) -> bool:
    """Whether a handle's lock is its own now; where a file system knows no such locks, it is."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        except OSError:  # some network file systems
            return True


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A folder of one's own beside ``path``, removed in the end.

    What processes that were killed have left there is removed, too. They are told from those at work by the system's
    lock on their folder, which ends with its process; where a file system knows no locks nothing is removed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError):
            held = _locked(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    folder, own = _made(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if own is not None:
            os.close(own)


def _made(path: Path) -> tuple[Path, int | None]:
    """A new folder and the lock on it, None where there are no locks."""
    while True:
        folder = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        folder.mkdir(0o700)
        try:
            held = _locked(folder)
        except (BlockingIOError, FileNotFoundError):  # taken for one that was left, before it was locked
            continue
        except OSError:
            return folder, None
        if folder.exists():
            return folder, held
        os.close(held)


def _locked(folder: Path) -> int:
    """A handle that holds the lock.

    Raises:
        OSError: another process holds it, or there are no locks.
    """
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(held)
        raise
    return held


def _synced(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

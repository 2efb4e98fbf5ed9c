"""Where the report goes: files are checked before the script is run, and written whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from hasten.core.errors import UsageError, unforeseen
from hasten.core.plan import write_atomically

STDOUT = "-"
_DESCRIPTORS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


def check(path: str, device: bool = True) -> None:
    """Find out now, not after hours of training, whether ``path`` can be written.

    Args:
        device: whether it may be a device or a pipe.

    Raises:
        UsageError: it cannot.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", "the file's name is missing", f"{path}/report")
    if _special(path):
        if not device or not os.access(path, os.W_OK):
            reason = "this user may not write it" if device else "it is no plain file"
            raise UsageError(f"cannot write {path}: {reason}", "a typing error", "the path of a file")
        return
    if not target.parent.is_dir():
        raise UsageError(
            f"cannot write {path}: there is no folder {target.parent}",
            "a typing error, or the folder was not made yet",
            f"mkdir -p {target.parent}",
        )
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}",
            "this user may not write the folder, or the disk is full or read-only",
            "a path in another folder" if device else "a path in another folder, or --no-save-plan",
        ) from None


def apart(**given: str | None) -> None:
    """Raises UsageError where two options (by their names, ``save_plan`` for ``--save-plan``) name one file."""
    seen: dict[str, str] = {}
    for name, path in given.items():
        if not path:
            continue
        first = seen.setdefault(path if path == STDOUT else os.path.realpath(path), name)
        if first != name:
            options = " and ".join(f"--{n.replace('_', '-')}" for n in (first, name))
            raise UsageError(f"{options} go to {path}", "a typing error", "a path for each")


def spares(read: Iterable[str | os.PathLike[str]], **given: str | None) -> None:
    """Raises UsageError where an option (named as in ``apart``) goes to a file that is read: it would be lost."""
    kept = {os.path.realpath(path) for path in read if os.path.isfile(path)}
    for name, path in given.items():
        if path and path != STDOUT and os.path.realpath(path) in kept:
            raise UsageError(
                f"--{name.replace('_', '-')} {path} would be written over what is read there", "a typing error",
                "a path of its own",
            )  # fmt: skip


def write(path: str, text: str) -> None:
    """Write a whole file; ``-`` is stdout.

    Raises:
        OSError: what was writable before the script ran is no longer.
    """
    if path == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())  # UTF-8, whatever the locale: a page says so of itself
        sys.stdout.buffer.flush()
    elif _special(path):
        with open(path, "a", encoding="utf-8") as file:  # /dev/stdout may be a file that the script has written to
            file.write(text)
    else:
        write_atomically(Path(path).resolve(), text)


def attempt(what: str, action: Callable[[], object]) -> bool:
    """Do it; say so on stderr if it fails, so that the rest of the report is not lost with it."""
    try:
        action()
    except OSError as error:
        sys.stderr.write(f"hasten: could not write {what}: {error.strerror or error}\n")
        return False
    except Exception as error:  # a failure of ours: the script's exit code must survive it
        sys.stderr.write(unforeseen(f"could not write {what}", error))
        return False
    return True


def _special(path: str) -> bool:
    """A device, a pipe, or a descriptor that is open (``/dev/stdout``, ``>(command)``): no file may replace it."""
    if os.path.abspath(path).startswith(_DESCRIPTORS):
        return True
    return os.path.exists(path) and not os.path.isfile(path)

"""What making samples does besides: words that are printed, files that are read or written."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import struct
import sys
from collections.abc import Iterable
from typing import Any

MOST_FILES = 256  # remembered for all samples; a file that is opened once, and that all come from, is among the first
_WRITING = frozenset("wax+")
_NOTED = struct.Struct("<qqqqI")  # a file's state, and how long its path is
State = tuple[int, int, int, int]


class Effects:
    """Watches while samples are made: ``with effects: dataset[0]``.

    Attributes:
        acted: whether, since the last ``with`` began, something was printed or a file was opened for writing.
        files: the first :data:`MOST_FILES` that were read, with what they were then.
        read: those that were read since it was last emptied.
    """

    def __init__(self) -> None:
        self.acted = False
        self.files: dict[str, State | None] = {}
        self.read: dict[str, State | None] = {}
        self._streams: list[Any] = []
        self._opens: tuple[Any, Any] | None = None

    def __enter__(self) -> Effects:
        self.acted = False
        for stream in {id(s): s for s in (sys.stdout, sys.stderr) if s is not None}.values():
            self._watch(stream)
        self._opens = builtins.open, io.open
        builtins.open = io.open = self._opener(builtins.open)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._opens is not None:
            builtins.open, io.open = self._opens
            self._opens = None
        while self._streams:
            with contextlib.suppress(AttributeError):
                del self._streams.pop().write

    def changed(self) -> bool:
        """Whether a file that was read is another one now."""
        return any(_state(path) != state for path, state in self.files.items())

    def renew(self) -> None:
        """From here on these files are compared with what they are now: whoever has read one may keep it open."""
        self.files = {path: _state(path) for path in self.files}

    def _watch(self, stream: Any) -> None:
        write = stream.write

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.acted = True
            return write(*args, **kwargs)

        try:
            if "write" not in vars(stream):
                stream.write = watched
                self._streams.append(stream)
        except (TypeError, AttributeError):  # a stream that takes no attributes is not watched
            pass

    def _opener(self, original: Any) -> Any:
        def opened(file: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
            if isinstance(mode, str) and _WRITING.intersection(mode):
                self.acted = True
            elif isinstance(file, (str, bytes, os.PathLike)):
                path = os.path.abspath(os.fsdecode(file))
                if path not in self.read:
                    self.read[path] = _state(path)
                if path not in self.files and len(self.files) < MOST_FILES:
                    self.files[path] = self.read[path]
            return original(file, mode, *args, **kwargs)

        return opened


def packed(files: Iterable[tuple[str, State | None]]) -> bytes:
    """Files and what they were as bytes, fit to be kept beside a sample; without any, none."""
    parts = []
    for path, state in files:
        name = os.fsencode(path)
        parts.append(_NOTED.pack(*(state or _NOWHERE), len(name)) + name)
    return b"".join(parts)


def outdated(record: bytes) -> bool:
    """Whether one of the files that :func:`packed` has noted is another one now."""
    at = 0
    while at < len(record):
        *state, length = _NOTED.unpack_from(record, at)
        at += _NOTED.size + length
        if (_state(record[at - length : at]) or _NOWHERE) != tuple(state):
            return True
    return False


_NOWHERE = (0, 0, 0, 0)


def _state(path: str | bytes) -> State | None:
    """Another one whenever the file is written to, or another is put in its place."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

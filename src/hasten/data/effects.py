"""What making samples does besides: words that are printed, files that are read or written."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import sys
from typing import Any

MOST_FILES = 256  # remembered; a file that all samples come from is among the first
_WRITING = frozenset("wax+")


class Effects:
    """Watches while samples are made: ``with effects: dataset[0]``.

    Attributes:
        acted: whether, since the last ``with`` began, something was printed or a file was opened for writing.
        files: files that were read so far, with what they were then.
    """

    def __init__(self) -> None:
        self.acted = False
        self.files: dict[str, tuple[int, int] | None] = {}
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

    def forget(self) -> None:
        self.files.clear()

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
            elif isinstance(file, (str, bytes, os.PathLike)) and len(self.files) < MOST_FILES:
                path = os.path.abspath(os.fsdecode(file))
                if path not in self.files:
                    self.files[path] = _state(path)
            return original(file, mode, *args, **kwargs)

        return opened


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size

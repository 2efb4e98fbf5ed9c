"""Rows of bytes in shared memory or a nameless file, written once each, read through a map, shared by workers."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hasten.measure.machine import available_bytes

SHARE_OF_MEMORY = 0.5  # of the memory that is free; the page cache must be able to hold the rows
SHARE_OF_DISK = 0.5
IN_MEMORY = 64 << 20  # bytes up to which rows lie in shared memory: writing them needs no call of the system each


def cache_folder() -> str:
    """``$HASTEN_CACHE_DIR``, else ``$XDG_CACHE_HOME/hasten``, else ``~/.cache/hasten``; made if missing."""
    try:
        base = os.environ.get("HASTEN_CACHE_DIR") or os.path.join(
            os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache"), "hasten"
        )
        os.makedirs(base, exist_ok=True)
        return base
    except (OSError, RuntimeError):  # the second where this user has no home folder
        return tempfile.gettempdir()


class NoRoom(OSError):
    """There is not enough memory or disk for the rows."""


ALIGNMENT = 64


class RowStore:
    """``rows`` rows of bytes, each written once, column after column so that a column can be gathered at once.

    Few bytes lie in memory. More lie in a file, which is removed from its folder as soon as it is open, so that nothing
    remains whatever ends the process. Its writes go through ``pwrite`` (a full disk is an error, not a crash); reads
    through a memory map. Whether a row has been written is a byte in shared memory, set after the row: forked workers
    fill and read the same store.

    Args:
        rows: how many.
        widths: bytes of a row in each column.
        noting: bytes that a row has room for besides, for a note that says whether it still holds.

    Raises:
        NoRoom: the rows would not fit.

    Attributes:
        wanted: bytes that the longest content and the longest note needed for which a process had no room.
    """

    def __init__(self, rows: int, widths: tuple[int, ...], folder: str | None = None, noting: int = 0) -> None:
        self.rows = rows
        self.widths = widths
        self.noting = noting
        self.offsets, size = [], 0
        for width in (*widths, noting):
            self.offsets.append(size)
            size += -(-rows * width // ALIGNMENT) * ALIGNMENT
        self._notes_at = self.offsets.pop()
        if size > SHARE_OF_MEMORY * available_bytes():
            raise NoRoom(errno.ENOMEM, f"{size >> 20} MiB of samples do not fit in half of the free memory")
        self._fd = -1  # of the file, where there is one
        size = max(size, 1)
        self._map = mmap.mmap(-1, size) if size <= IN_MEMORY else self._in_file(size, folder or cache_folder())
        self._flags = mmap.mmap(-1, rows + 128)
        self.signals = np.frombuffer(self._flags, np.uint8, 64)
        self.served = np.frombuffer(self._flags, np.int64, 1, 64)  # batches, of all processes
        self.wanted = np.frombuffer(self._flags, np.int64, 2, 72)
        self.written = np.frombuffer(self._flags, np.uint8, rows, 128)

    def _in_file(self, size: int, folder: str) -> mmap.mmap:
        if size > SHARE_OF_DISK * shutil.disk_usage(folder).free:
            raise NoRoom(errno.ENOSPC, f"{size >> 20} MiB of samples do not fit in half of the free disk")
        self._file = tempfile.TemporaryFile(dir=folder, prefix="hasten-")  # noqa: SIM115  kept as long as the store
        self._fd = self._file.fileno()
        os.ftruncate(self._fd, size)
        return mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ)

    def write(self, row: int, parts: Sequence[bytes], note: bytes = b"") -> None:
        """One part a column, none longer than the column is wide; ``note`` ends in no zero byte.

        Raises:
            OSError: the disk is full; the row then stays unwritten.
        """
        for part, offset, width in zip(parts, self.offsets, self.widths, strict=True):
            self._put(part, offset + row * width)
        self._note(row, note)
        self.written[row] = 1

    def _note(self, row: int, note: bytes) -> None:
        if self.noting:
            self._put(note.ljust(self.noting, b"\0"), self._notes_at + row * self.noting)

    def notes(self, rows: np.ndarray) -> list[bytes]:
        """What was noted beside each of ``rows``."""
        if not self.noting:
            return [b""] * len(rows)
        found: list[bytes] = np.ndarray(self.rows, f"S{self.noting}", self._map, self._notes_at)[rows].tolist()
        return found

    def _put(self, part: bytes, at: int) -> None:
        if self._fd < 0:
            self._map[at : at + len(part)] = part
        elif os.pwrite(self._fd, part, at) != len(part):
            raise NoRoom(errno.ENOSPC, "the disk is full")

    def write_rows(self, rows: np.ndarray, columns: Sequence[np.ndarray], notes: Sequence[bytes] = ()) -> None:
        """Many rows: ``columns[c][i]`` is as wide as column ``c`` and goes into row ``rows[i]``, with ``notes[i]``.

        Raises:
            OSError: the disk is full; the rows then stay unwritten.
        """
        for column, offset, width in zip(columns, self.offsets, self.widths, strict=True):
            if not width:
                continue
            parts = np.ascontiguousarray(column).reshape(len(rows), -1).view(np.uint8)
            if self._fd < 0:
                np.ndarray((self.rows, width), np.uint8, self._map, offset)[rows] = parts
                continue
            for row, part in zip(rows.tolist(), parts, strict=True):
                self._put(part.tobytes(), offset + row * width)
        for row, note in zip(rows.tolist(), notes, strict=False):
            self._note(row, note)
        self.written[rows] = 1

    def read(self, row: int, column: int) -> memoryview:
        """A row's bytes in one column (no copy)."""
        start = self.offsets[column] + row * self.widths[column]
        return memoryview(self._map)[start : start + self.widths[column]]

    def forget(self) -> None:
        """All rows unwritten again."""
        self.written[:] = 0

    def view(self, column: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> np.ndarray:
        """A column as ``(rows, *shape)`` of ``dtype`` (no copy)."""
        return np.ndarray((self.rows, *shape), dtype, self._map, self.offsets[column])

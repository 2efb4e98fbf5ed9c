"""Rows of bytes in one file without a name, written once each, read through a memory map, shared by forked workers."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from hasten.measure.machine import available_bytes

SHARE_OF_MEMORY = 0.5  # of the memory that is free; the page cache must be able to hold the rows
SHARE_OF_DISK = 0.5


def cache_folder() -> str:
    """``$HASTEN_CACHE_DIR``, else ``$XDG_CACHE_HOME/hasten``, else ``~/.cache/hasten``; made if missing."""
    base = os.environ.get("HASTEN_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache"), "hasten"
    )
    try:
        os.makedirs(base, exist_ok=True)
        return base
    except OSError:
        return tempfile.gettempdir()


class NoRoom(OSError):
    """There is not enough memory or disk for the rows."""


class RowStore:
    """``rows`` slots of ``stride`` bytes, each written once.

    The file is removed from its folder as soon as it is open, so that nothing remains whatever ends the process.
    Writes go through ``pwrite`` (a full disk is an error, not a crash); reads through a memory map. Whether a row has
    been written is a byte in shared memory, set after the row: forked workers fill and read the same store.

    Raises:
        NoRoom: the rows would not fit.
    """

    def __init__(self, rows: int, stride: int, folder: str | None = None) -> None:
        size = rows * stride
        folder = folder or cache_folder()
        if size > SHARE_OF_MEMORY * available_bytes():
            raise NoRoom(errno.ENOMEM, f"{size >> 20} MiB of samples do not fit in half of the free memory")
        if size > SHARE_OF_DISK * shutil.disk_usage(folder).free:
            raise NoRoom(errno.ENOSPC, f"{size >> 20} MiB of samples do not fit in half of the free disk")
        self.rows = rows
        self.stride = stride
        self._file = tempfile.TemporaryFile(dir=folder, prefix="hasten-")
        self._fd = self._file.fileno()
        os.ftruncate(self._fd, max(size, 1))
        self._map = mmap.mmap(self._fd, max(size, 1), mmap.MAP_SHARED, mmap.PROT_READ)
        self.bytes = np.frombuffer(self._map, np.uint8)[:size].reshape(rows, stride)
        self._flags = mmap.mmap(-1, rows + 64)
        self.written = np.frombuffer(self._flags, np.uint8)[:rows]
        self.signals = np.frombuffer(self._flags, np.uint8)[rows : rows + 64]

    def write(self, row: int, content: bytes) -> None:
        """Raises OSError when the disk is full; the row then stays unwritten."""
        done = os.pwrite(self._fd, content, row * self.stride)
        if done != len(content):
            raise NoRoom(errno.ENOSPC, "the disk is full")
        self.written[row] = 1

    def forget(self) -> None:
        """All rows unwritten again."""
        self.written[:] = 0

    def view(self, offset: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> np.ndarray:
        """A column: ``(rows, *shape)`` of ``dtype`` at a byte offset inside each row (no copy)."""
        strides = (self.stride, *np.empty(shape, dtype).strides)
        return np.ndarray((self.rows, *shape), dtype, self._map, offset, strides)

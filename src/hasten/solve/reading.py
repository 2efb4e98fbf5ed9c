"""Bytes of a file, read past the page cache where the file is too large for it.

A file that is larger than the memory at hand pushes everything else out of the page cache and itself, too: what was
cached of it is gone when the next pass wants it, and finding room for it takes more time than copying it. Such a file
is read by ``O_DIRECT`` into the caller's own buffers. Smaller files go through the cache, where a second pass finds
them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.measure import machine
from hasten.solve.problems import BadData

Bytes = NDArray[np.uint8]

PAGE = 4096  # what O_DIRECT wants positions, lengths and addresses to be multiples of, at most
CACHED = 0.5  # share of the memory at hand up to which a file may fill the page cache


def aligned(size: int) -> Bytes:
    """(size,) bytes that begin on a page."""
    raw = np.empty(size + PAGE, np.uint8)
    skip = -raw.ctypes.data % PAGE
    return raw[skip : skip + size]


class Reader:
    """A file that is read from its parts.

    Args:
        path: the file.
        direct: whether past the page cache; by size unless given. Where the file system cannot, it is not.
    """

    def __init__(self, path: Path, direct: bool | None = None) -> None:
        self.handle = os.open(path, os.O_RDONLY)
        self.past: int | None = None
        if direct is None:
            direct = os.fstat(self.handle).st_size > CACHED * machine.available_bytes()
        if direct and hasattr(os, "O_DIRECT"):
            try:
                self.past = os.open(path, os.O_RDONLY | os.O_DIRECT)
            except OSError:
                pass

    def read(self, buffer: Bytes, start: int, size: int) -> Bytes:
        """(size,) bytes of the file from ``start`` on, somewhere in the buffer.

        Args:
            buffer: at least ``size`` + 2 ``PAGE``, from ``aligned``.

        Raises:
            BadData: the file ends before.
        """
        lead = start % PAGE
        done = 0
        if self.past is not None:
            whole: Any = buffer[: -(-(lead + size) // PAGE) * PAGE]
            try:
                done = os.preadv(self.past, [memoryview(whole)], start - lead) - lead
            except OSError:  # this file system takes O_DIRECT and then will not read by it
                os.close(self.past)
                self.past = None
            done = min(max(done, 0), size)
        found: Any = buffer[lead : lead + size]
        view = memoryview(found)
        while done < size:
            got = os.preadv(self.handle, [view[done:]], start + done)
            if not got:
                raise BadData("the file ends before its header says", "a torn file", "write it again")
            done += got
        return buffer[lead : lead + size]

    def close(self) -> None:
        """Close the file."""
        for handle in (self.handle, self.past):
            if handle is not None:
                os.close(handle)

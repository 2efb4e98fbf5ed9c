"""What a file holds, as a digest, by which moments know what they were made of."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any, Self

from hasten.solve.problems import BadData
from hasten.solve.reading import PAGE, Reader, aligned

READ_BYTES = 4 << 20


class Digest:
    """The digest of a file, made by a thread beside the pass over its rows; ``with`` ends the thread.

    Every byte counts: by samples of them, a file with a few rows corrected would pass for the one before. The pass
    itself does not see all bytes, nor in their order: columns of Parquet are left out, and one that was killed goes on
    from its middle.

    Raises:
        BadData: the file cannot be read; here, or in ``result``.
    """

    def __init__(self, path: str) -> None:
        self.path, self._digest = path, hashlib.blake2b(digest_size=16)
        self._stopped, self._error = threading.Event(), ""
        try:
            self._reader, self._left = Reader(Path(path)), Path(path).stat().st_size
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from None
        self._thread = threading.Thread(target=self._read, name="hasten-digest", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def result(self) -> str:
        """The digest, after all of the file was read."""
        self._thread.join()
        if self._error:
            raise self._unreadable(self._error)
        return self._digest.hexdigest()

    def _read(self) -> None:
        buffer, at = aligned(READ_BYTES + 2 * PAGE), 0
        try:
            while self._left and not self._stopped.is_set():
                size = min(READ_BYTES, self._left)
                part: Any = self._reader.read(buffer, at, size)
                self._digest.update(part)
                at, self._left = at + size, self._left - size
        except (OSError, BadData) as error:
            self._error = str(error).splitlines()[0]
        finally:
            self._reader.close()

    def _unreadable(self, reason: str) -> BadData:
        return BadData(f"cannot read {self.path}: {reason}", "a typing error", f"ls -l {self.path}")

"""What a file holds, as a digest, by which moments know what they were made of."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from pathlib import Path
from typing import Any, Self

from hasten.solve.problems import BadData
from hasten.solve.reading import PAGE, Reader, aligned

READ_BYTES = 4 << 20


class Digest:
    """The digests of files, made by a thread beside the pass over their rows; ``with`` ends the thread.

    Every byte counts: by samples of them, a file with a few rows corrected would pass for the one before. The pass
    itself does not see all bytes, nor in their order: columns of Parquet are left out, and one that was killed goes on
    from its middle.

    Raises:
        BadData: a file cannot be read; here, or in ``results``.
    """

    def __init__(self, *paths: str | Path) -> None:
        self.paths, self._found = [Path(path) for path in paths], list[str]()
        self._stopped, self._error = threading.Event(), ""
        for path in self.paths:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise _unreadable(path, error.strerror or str(error)) from None
        self._thread = threading.Thread(target=self._read, name="hasten-digest", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def results(self) -> list[str]:
        """One digest a file, after all of them were read."""
        self._thread.join()
        if self._error:
            raise _unreadable(self.paths[len(self._found)], self._error)
        return self._found

    def _read(self) -> None:
        buffer = aligned(READ_BYTES + 2 * PAGE)
        try:
            for path in self.paths:
                digest = hashlib.blake2b(digest_size=16)
                left, at = path.stat().st_size, 0
                with contextlib.closing(Reader(path)) as reader:
                    while left and not self._stopped.is_set():
                        size = min(READ_BYTES, left)
                        part: Any = reader.read(buffer, at, size)
                        digest.update(part)
                        at, left = at + size, left - size
                if left:
                    return  # nobody waits for it
                self._found.append(digest.hexdigest())
        except (OSError, BadData) as error:
            self._error = str(error).splitlines()[0]


def _unreadable(path: Path, reason: str) -> BadData:
    return BadData(f"cannot read {path}: {reason}", "a typing error", f"ls -l {path}")

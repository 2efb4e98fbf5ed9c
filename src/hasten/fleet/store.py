"""Where finished models and models in flight are kept: memory that workers share, or a file that outlives a kill.

The file is laid out in full before anything is trained (``posix_fallocate``), so a full disk is an error at the
start. A finished model is one record with a checksum. A model in flight has two halves that are written in turns; a
half counts only after its number has been written behind it, and where its checksum is right (a power cut may tear it).
So kill -9 at any time loses at most the epoch in flight.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.core.errors import HastenError, UsageError
from hasten.core.plan import write_atomically
from hasten.fleet.state import FAILED, HEAD, RUNNING, State
from hasten.fleet.whole import waited_for

CAUSE = 256  # bytes of a failure's cause
SEAL = 4  # numbers in front of a record: number of the writing, job, checksum, spare
ROUNDING = "rounding"  # of an identity: what engines round by; a finished journal answers whatever it is now


class Store:
    """Records of all models, and slots for those in flight.

    Args:
        totals: numbers in each model's flat row.
        epochs: epochs of the recipe.
        slots: models that may be in flight at once; what is resumed keeps the number it was begun with.
        folder: where the file lies; None for anonymous memory that forked workers share.
        identity: what a resume must agree with.
        moments: whether the optimizer's moments of finished models are kept, too.

    Raises:
        UsageError: the folder holds another fleet's journal, or one that is not finished and was begun by engines that
            round otherwise.
        HastenError: the disk is full.
    """

    def __init__(
        self,
        totals: Sequence[int],
        epochs: int,
        slots: int,
        folder: Path | None,
        identity: dict[str, Any],
        moments: bool = False,
    ) -> None:
        self.epochs = epochs
        self.per_model = 3 if moments else 1
        self.totals = np.asarray(totals, np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.totals)]).astype(np.int64)
        self.widest = int(self.totals.max(initial=0))
        self.numbers = SEAL + HEAD + 2 * epochs
        begun = peek(folder)
        self.slots = int(begun.get("slots", slots)) if folder is not None else 0
        self.in_flight = 2 * self.slots
        models = len(totals)
        self.half = self.numbers * 8 + 4 * self.widest * 4
        sizes = [models * self.numbers * 8, models * CAUSE, self.per_model * int(self.starts[-1]) * 4]
        sizes = [-(-s // 64) * 64 for s in sizes]
        self.half = -(-self.half // 64) * 64
        size = sum(sizes) + self.in_flight * self.half
        self.folder = folder
        self.resumed = False
        self.map = self._open(max(size, 64), {**identity, "slots": self.slots, "bytes": size})
        a, b, c = sizes
        self.records = np.frombuffer(self.map, np.float64, models * self.numbers).reshape(models, self.numbers)
        self.causes = np.frombuffer(self.map, np.uint8, models * CAUSE, a).reshape(models, CAUSE)
        self.weights = np.frombuffer(self.map, np.float32, self.per_model * int(self.starts[-1]), a + b)
        self.flight = np.frombuffer(self.map, np.uint8, self.in_flight * self.half, a + b + c)
        self.flight = self.flight.reshape(self.in_flight, self.half)
        if self.resumed and any(self.finished(index) is None for index in range(models)):
            _check_rounding(folder, begun.get(ROUNDING, {}), identity.get(ROUNDING, {}))

    def _open(self, size: int, identity: dict[str, Any]) -> mmap.mmap:
        if self.folder is None:
            return mmap.mmap(-1, size)
        _made(self.folder)
        head, path = self.folder / "fleet.json", self.folder / "fleet.state"
        identity = json.loads(json.dumps(identity))
        found = peek(self.folder)
        if found:
            differs = sorted(k for k in {*found, *identity} - {ROUNDING} if found.get(k) != identity.get(k))
            if differs:
                raise UsageError(
                    f"{self.folder} holds the journal of another fleet: {', '.join(differs)} differ",
                    "keys, rows, model, recipe, engine or this version of hasten have changed since it was begun",
                    f"another folder, or remove {self.folder}",
                )
            self.resumed = path.exists() and path.stat().st_size == size
        try:
            with open(path, "r+b" if self.resumed else "w+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                mapped = mmap.mmap(file.fileno(), size)
            if not self.resumed:
                write_atomically(head, json.dumps(identity, indent=1))
        except OSError as error:
            if not self.resumed:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise HastenError(
                f"cannot keep {size / 1e6:.3g} MB of training state in {self.folder}: {error.strerror or error}",
                "the disk is full, or the folder cannot be written; nothing was trained and nothing was lost",
                "make room, or a folder on another disk, or no journal",
            ) from error
        return mapped

    # -- finished models -----------------------------------------------------------------------------------------------

    def row(self, index: int) -> npt.NDArray[np.float32]:
        """The final weights of one model, as kept. (total,)."""
        row: npt.NDArray[np.float32] = self.moments_of(index)[0]
        return row

    def moments_of(self, index: int) -> npt.NDArray[np.float32]:
        """Final weights, and moments where they are kept. (1 or 3, total)."""
        start, total = int(self.starts[index]) * self.per_model, int(self.totals[index])
        return self.weights[start : start + self.per_model * total].reshape(self.per_model, total)

    def finish(self, index: int, state: State) -> None:
        """Keep a finished model."""
        self.moments_of(index)[:] = state.flat[: self.per_model]
        cause = state.cause.encode("utf-8")[:CAUSE]
        self.causes[index] = 0
        self.causes[index, : len(cause)] = np.frombuffer(cause, np.uint8)
        record = self.records[index]
        record[0] = 0
        record[SEAL:] = state.numbers
        record[2] = self._checksum(index)
        record[1], record[0] = index, 1  # the number last: before it, the record does not count

    def finished(self, index: int) -> State | None:
        """A finished model; None where there is none or its record is torn. Only the weights' row is filled."""
        record = self.records[index]
        if record[0] != 1 or record[1] != index or record[2] != self._checksum(index):
            return None
        state = State(self.epochs, int(self.totals[index]))
        state.numbers[:] = record[SEAL:]
        state.flat[0] = self.row(index)
        state.cause = bytes(self.causes[index]).rstrip(b"\0").decode("utf-8", "replace")
        return state if state.status != RUNNING else None

    def _checksum(self, index: int) -> int:
        if self.folder is None:  # memory that ends with its processes: the number written last is enough
            return 0
        first = zlib.crc32(self.row(index).tobytes())
        return zlib.crc32(self.causes[index].tobytes(), zlib.crc32(self.records[index, SEAL:].tobytes(), first))

    def stacked(self, indices: Sequence[int], total: int) -> npt.NDArray[np.float32]:
        """The weights of finished models of one kind, (models, total): a view where they lie side by side in memory of
        their own, else a copy."""
        first = indices[0] if indices else 0
        together = list(indices) == list(range(first, first + len(indices)))
        if together and self.folder is None and self.per_model == 1:
            start = int(self.starts[first])
            return self.weights[start : start + len(indices) * total].reshape(len(indices), total)
        return np.array([self.row(index) for index in indices], np.float32).reshape(len(indices), total)

    # -- models in flight ----------------------------------------------------------------------------------------------

    def save(self, slot: int, index: int, state: State) -> None:
        """Keep a model in flight, in the older half of its slot."""
        halves = [self._head(2 * slot), self._head(2 * slot + 1)]
        older = 0 if halves[0][0] <= halves[1][0] else 1
        number = max(halves[0][0], halves[1][0]) + 1
        head, flat = self._head(2 * slot + older), self._flat(2 * slot + older, index)
        head[0] = 0
        head[SEAL:] = state.numbers
        flat[:] = state.flat
        head[2] = _sum(head[SEAL:], flat)
        head[1], head[0] = index, number

    def in_flight_states(self) -> dict[int, tuple[int, State]]:
        """The newest whole state of every model in flight, with its slot, by index."""
        newest: dict[int, tuple[int, State]] = {}
        for i in range(self.in_flight):
            head = self._head(i)
            index = int(head[1])
            if head[0] < 1 or not 0 <= index < len(self.totals):
                continue
            state = State(self.epochs, int(self.totals[index]))
            state.numbers[:] = head[SEAL:]
            state.flat[:] = self._flat(i, index)
            if head[2] != _sum(state.numbers, state.flat):
                continue
            if index not in newest or state.steps > newest[index][1].steps:
                newest[index] = i // 2, state
        return newest

    def _head(self, i: int) -> npt.NDArray[np.float64]:
        return self.flight[i, : self.numbers * 8].view(np.float64)

    def _flat(self, i: int, index: int) -> npt.NDArray[np.float32]:
        total = int(self.totals[index])
        start = self.numbers * 8
        return self.flight[i, start : start + 4 * total * 4].view(np.float32).reshape(4, total)

    def flush(self) -> None:
        """Ask the system to write everything to the disk (against a power cut; kill -9 needs no flush)."""
        if self.folder is not None:
            self.map.flush()

    def statuses(self) -> npt.NDArray[np.int64]:
        """RUNNING, DONE, STOPPED or FAILED of every record that counts; -1 of the others. (models,), int64."""
        return np.where(self.records[:, 0] == 1, self.records[:, SEAL + 5], -1).astype(np.int64)


@contextlib.contextmanager
def alone(folder: Path | None) -> Iterator[None]:
    """Keep every other call of ``fit`` from this journal.

    By the system's own lock on the folder: it ends with the run and the workers that it has forked, however they end,
    and lies in no file.

    Raises:
        UsageError: another one is at work on it.
        HastenError: the folder cannot be made.
    """
    if folder is None:
        yield
        return
    _made(folder)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not waited_for(held):  # the processes of a run that was killed may take a moment to end
            raise UsageError(
                f"another call of fit is at work on the journal {folder}",
                "a second process, or a thread, was started with the same journal before the first one had ended",
                "wait for the other one, or another folder",
            )
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_UN)  # also for processes that the user has forked meanwhile
        os.close(held)


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HastenError(
            f"cannot make the folder {folder}: {error.strerror}",
            "it may not be written there, or a file has that name",
            "another folder",
        ) from error


def peek(folder: Path | None) -> dict[str, Any]:
    """What a journal was begun with; empty where there is none.

    Raises:
        UsageError: the head of the journal cannot be read.
    """
    if folder is None or not (folder / "fleet.json").exists():
        return {}
    try:
        found: dict[str, Any] = json.loads((folder / "fleet.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {folder / 'fleet.json'}: {error}", "it was edited", f"remove {folder}") from None
    return found


def _sum(numbers: npt.NDArray[np.float64], flat: npt.NDArray[np.float32]) -> int:
    """A checksum that a float64 holds, in a tenth of a CRC's time: it is taken after every epoch."""
    words = (int(part.reshape(-1).view(np.uint64).sum()) for part in (numbers, flat))
    return sum(words) % 2**53


def _check_rounding(folder: Path | None, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    differs = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if differs:
        raise UsageError(
            f"{folder} was begun by other arithmetic ({', '.join(differs)} differ): what is left would be rounded "
            "otherwise than what was trained",
            "hasten, torch, the compiler or the processor is another one than when it was begun",
            f"what it was begun with, or another folder, or remove {folder}",
        )


def failed_state(epochs: int, total: int, cause: str) -> State:
    """A model that could not be trained."""
    state = State(epochs, total)
    state.flat[:] = np.nan
    state.fail(cause)
    assert state.status == FAILED
    return state

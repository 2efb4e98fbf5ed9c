"""One pass over a file larger than memory, with a progress bar, going on where it was killed."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hasten.solve import storage
from hasten.solve.ahead import blocks_ahead
from hasten.solve.arrays import targets_of
from hasten.solve.files import fingerprint
from hasten.solve.problems import BadData, CannotWrite
from hasten.solve.source import Block, Source, first_block, open_source

if TYPE_CHECKING:
    from hasten.solve.moments import Moments

M = TypeVar("M", bound="Moments")


def scan(
    kind: type[M],
    path: str | os.PathLike[str],
    target: str | Sequence[str] | None = None,
    *,
    y: Any = None,
    sample_weight: Any = None,
    features: Sequence[str] | None = None,
    folds: int = 0,
    missing: str = "mean",
    precision: str = "float64",
    checkpoint: str | os.PathLike[str] | None = None,
    every: float = 30.0,
    progress: bool = False,
) -> M:
    """Moments of a file.

    Args:
        path: ``.parquet``, ``.csv`` (also compressed), or ``.npy`` (rows, columns); a folder of such files, a pattern
            such as "data/part-*.parquet", or a list of paths, whose rows are counted in the order of names.
        target: name of the column to predict, or several; a number in a ``.npy``, whose last column it is by default.
        y: targets beside the file: an array, or the path of another ``.npy``.
        sample_weight: (rows,) beside the file.
        features: columns to predict from; None for all others.
        folds: as in ``Moments``.
        missing: as in ``Moments``.
        checkpoint: where the state is written every ``every`` seconds, and at Ctrl-C. A pass that was killed goes on
            from there, with the same bits as if it had not been, on a machine of the same kind; when the pass is done
            the file is removed.
        progress: show a bar on stderr.

    Raises:
        BadData: as ``Moments.update``; or the checkpoint belongs to another file or other settings.
    """
    source = open_source(path, y, sample_weight, target=target, features=features)
    if checkpoint is not None:
        source.fingerprint += _beside(y) + _beside(sample_weight)
    return scan_source(
        kind, source, folds=folds, missing=missing, precision=precision, checkpoint=checkpoint, every=every,
        progress=progress,
    )  # fmt: skip


def _beside(given: Any) -> str:
    """A fingerprint of what lies beside a file: another one does not go on from the checkpoint."""
    if given is None or isinstance(given, str):
        return "" if given is None else f" {given}"
    if isinstance(given, os.PathLike):
        return f" {fingerprint(Path(given))}"
    values: Any = np.ascontiguousarray(targets_of(given))
    return f" {hashlib.blake2b(values, digest_size=16).hexdigest()}"


def scan_source(
    kind: type[M], source: Source, *, folds: int = 0, missing: str = "mean", precision: str = "float64",
    checkpoint: str | os.PathLike[str] | None = None, every: float = 30.0, progress: bool = False,
    budget: float = math.inf, seconds: float = math.inf, keep: bool = False,
) -> M:  # fmt: skip
    """As ``scan``, for any source.

    Args:
        budget: seconds after which the pass is given up, as the user gave them. seconds: what is left of them.
        keep: leave the state of the whole pass in the checkpoint, for the caller to remove.
    """
    out = kind(folds=folds or None, missing=missing, precision=precision)
    first = 0
    if checkpoint is not None:
        storage.sweep(Path(checkpoint))
        if Path(checkpoint).exists():
            out, first = _resume(kind, checkpoint, source, out)
    done = _run(out, source, first, checkpoint, every, progress, budget, seconds)
    if checkpoint is not None and keep:
        _keep(out, source, checkpoint, done)
    elif checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return out


def _run(
    out: Moments, source: Source, first: int, checkpoint: str | os.PathLike[str] | None, every: float, progress: bool,
    budget: float, seconds: float,
) -> int:  # fmt: skip
    """Add the rows from ``first`` on; the number of all of them."""
    saved = start = time.monotonic()
    done, spent, kept = first, False, checkpoint
    with Bar(source, first, progress) as bar, _interrupts(checkpoint is not None) as interrupts:
        for block in blocks_ahead(source, first, out):
            if spent:
                raise _over(done, source.rows, budget, kept)
            out._add_block(block, None, None, source.rows)
            done = block.start + len(block.x)
            bar.at(done)
            spent = time.monotonic() - start > seconds  # which matters if there are more rows
            if checkpoint is not None and (spent or interrupts or time.monotonic() - saved >= every):
                kept = checkpoint if _keep(out, source, checkpoint, done) else None
                saved = time.monotonic()
            if interrupts:
                said = [f"{done} rows are kept in {os.fspath(kept)}: run it again to go on"] if kept else []
                raise KeyboardInterrupt(*said)
    out._release()
    return done


def _keep(out: Moments, source: Source, checkpoint: str | os.PathLike[str], done: int) -> bool:
    """Write the state. A full disk costs the file, not the pass: then there is a warning."""
    try:
        out.save(checkpoint, fingerprint=source.fingerprint, next_row=str(done))
    except CannotWrite as error:
        warnings.warn(f"the pass goes on, but would begin anew after an interruption: {error}", stacklevel=2)
        return False
    return True


def _over(done: int, rows: int | None, budget: float, checkpoint: str | os.PathLike[str] | None) -> BadData:
    kept = "--checkpoint FILE, which keeps what was read for the next run"
    if checkpoint is not None:
        kept = f"the same again: what was read is kept in {os.fspath(checkpoint)}, and the next run goes on from there"
    return BadData(
        f"{done}{f' of {rows}' if rows else ''} rows were read when the budget of {budget:g} s was spent",
        "a large file, or a busy machine",
        f"a larger --budget, or {kept}",
    )


@contextlib.contextmanager
def _interrupts(wanted: bool) -> Iterator[list[int]]:
    """The Ctrl-C so far: the first one waits for the rows that are being added, so that the state can be kept; a second
    one does not wait. Outside the main thread, and where Ctrl-C means something else already, all is as it was."""
    got: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    if not (wanted and here and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield got
        return

    def note(number: int, _: object) -> None:
        got.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield got
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _resume(kind: type[M], checkpoint: str | os.PathLike[str], source: Source, fresh: M) -> tuple[M, int]:
    found, notes = storage.load(kind, checkpoint)
    same = (found.folds, found.missing, found.precision) == (fresh.folds, fresh.missing, fresh.precision)
    same = same and notes.get("fingerprint") == source.fingerprint
    if not (same and _same_columns(found, first_block(source))):
        raise BadData(
            f"the checkpoint {os.fspath(checkpoint)} belongs to another file or other settings",
            "the file was changed, or the options differ from those of the pass that was interrupted",
            f"rm {os.fspath(checkpoint)}",
        )
    return found, int(notes["next_row"])


def _same_columns(found: Moments, block: Block) -> bool:
    before = found.encoder.numeric, found.encoder.categorical, found.target_names
    return before == (block.names, block.category_names, block.targets)


class Bar:
    """A progress bar on stderr, or nothing."""

    def __init__(self, source: Source, first: int, shown: bool) -> None:
        self.progress: Any = None
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            parts = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
            self.progress = Progress(*parts, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self.task = self.progress.add_task("", total=source.rows, completed=first)

    def __enter__(self) -> Bar:
        if self.progress is not None:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    def at(self, rows: int) -> None:
        """So many rows are done."""
        if self.progress is not None:
            self.progress.update(self.task, completed=rows)

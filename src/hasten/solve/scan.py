"""One pass over a file larger than memory, with a progress bar, going on where it was killed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hasten.solve import storage
from hasten.solve.ahead import blocks_ahead
from hasten.solve.problems import BadData
from hasten.solve.source import Source, open_source

if TYPE_CHECKING:
    from hasten.solve.moments import Moments

M = TypeVar("M", bound="Moments")


def scan(
    kind: type[M],
    path: str | os.PathLike[str],
    target: str | Sequence[str] | None = None,
    *,
    y: Any = None,
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
        path: ``.parquet``, ``.csv`` (also compressed), or ``.npy`` (rows, columns).
        target: name of the column to predict, or several; a number in a ``.npy``, whose last column it is by default.
        y: targets beside a ``.npy``: an array, or the path of another ``.npy``.
        features: columns to predict from; None for all others.
        folds: as in ``Moments``.
        missing: as in ``Moments``.
        checkpoint: where the state is written every ``every`` seconds. A pass that was killed goes on from there, with
            the same bits as if it had not been, on a machine of the same kind; when the pass is done the file is
            removed.
        progress: show a bar on stderr.

    Raises:
        BadData: as ``Moments.update``; or the checkpoint belongs to another file or other settings.
    """
    source = open_source(path, y, target=target, features=features)
    return scan_source(
        kind, source, folds=folds, missing=missing, precision=precision, checkpoint=checkpoint, every=every,
        progress=progress,
    )  # fmt: skip


def scan_source(
    kind: type[M], source: Source, *, folds: int = 0, missing: str = "mean", precision: str = "float64",
    checkpoint: str | os.PathLike[str] | None = None, every: float = 30.0, progress: bool = False,
    budget: float = math.inf,
) -> M:  # fmt: skip
    """As ``scan``, for any source.

    Args:
        budget: seconds after which the pass is given up.
    """
    out = kind(folds=folds or None, missing=missing, precision=precision)
    first = 0
    if checkpoint is not None and Path(checkpoint).exists():
        out, first = _resume(kind, checkpoint, source, out)
    _run(out, source, first, checkpoint, every, progress, budget)
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return out


def _run(
    out: Moments, source: Source, first: int, checkpoint: str | os.PathLike[str] | None, every: float, progress: bool,
    budget: float,
) -> None:  # fmt: skip
    saved = start = time.monotonic()
    with Bar(source, first, progress) as bar:
        for block in blocks_ahead(source, first, out):
            out._add_block(block, None, None, source.rows)
            done = block.start + len(block.x)
            bar.at(done)
            if time.monotonic() - start > budget:
                raise BadData(
                    f"{done} of {source.rows or 'unknown'} rows were read when the budget of {budget:g} s was spent",
                    "a large file, or a busy machine",
                    "a larger --budget; with --checkpoint FILE the next run goes on from here",
                )
            if checkpoint is not None and time.monotonic() - saved >= every:
                out.save(checkpoint, fingerprint=source.fingerprint, next_row=str(done))
                saved = time.monotonic()
    out._release()


def _resume(kind: type[M], checkpoint: str | os.PathLike[str], source: Source, fresh: M) -> tuple[M, int]:
    found, notes = storage.load(kind, checkpoint)
    same = (found.folds, found.missing, found.precision) == (fresh.folds, fresh.missing, fresh.precision)
    if notes.get("fingerprint") != source.fingerprint or not same:
        raise BadData(
            f"the checkpoint {os.fspath(checkpoint)} belongs to another file or other settings",
            "the file was changed, or the options differ from those of the pass that was interrupted",
            f"rm {os.fspath(checkpoint)}",
        )
    return found, int(notes["next_row"])


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

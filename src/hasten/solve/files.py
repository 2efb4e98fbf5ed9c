"""Files larger than memory in blocks that a thread reads ahead: ``.npy`` and Parquet; CSV in ``solve.comma``."""

from __future__ import annotations

import contextlib
import copy
import queue
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hasten.solve.columns import Kinds, check_names
from hasten.solve.kernel import UNIT_ROWS
from hasten.solve.problems import BadData, need
from hasten.solve.reading import PAGE, Reader, aligned
from hasten.solve.source import ArraySource, Block, Source, TableSource

if TYPE_CHECKING:
    from hasten.solve.comma import CsvSource

READ_BYTES = 12 << 20  # one read: long enough for a disk, and few sums to add up in columns as wide as 200
AHEAD = 2  # blocks that wait between two threads
HELD = AHEAD + 2  # blocks of a source in use: those that wait, one on each side
BATCH_ROWS = 1 << 16


def open_file(
    path: Any, target: Sequence[str], features: Any, y: Any, weight: Any,
    classes: Sequence[str] = (), known: Kinds | None = None,
) -> Source:  # fmt: skip
    """A file as a ``Source``, by its name's ending; or many: a folder, a pattern, a list of paths.

    Args:
        known: what columns held in earlier rows: one without any value is of that kind, and in a CSV texts that look
            like numbers are still texts.

    Raises:
        BadData: there is no such file, or it is of no known kind.
    """
    from hasten.solve.folders import told
    from hasten.solve.shards import Shards, files_of
    from hasten.solve.streams import beside

    files = files_of(path)
    columns = told(path, files) if files is not None else {}
    if files is not None and (len(files) > 1 or columns):
        source: Source = Shards(files, target, features, classes, known, columns)
        return beside(source if y is None else source.whole(), y, weight)
    file = Path(files[0] if files else path)
    if not file.is_file():
        raise BadData(f"there is no file {file}", "a typing error", "ls -l " + str(file.parent))
    name = file.name.lower()
    if name.endswith(".npy"):
        return NpySource(file, y, weight, target, features)
    if name.endswith((".parquet", ".pq")):
        return beside(ParquetSource(file, target, features, classes, known), y, weight)
    name = name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".csv", ".tsv")):
        from hasten.solve.comma import CsvSource

        separator = "\t" if name.endswith(".tsv") else ","
        return beside(CsvSource(file, target, features, separator, classes, known), y, weight)
    raise BadData(
        f"{file.name}: files of this kind cannot be read",
        "another format, or one of these compressed once more",
        "save it as .parquet, .csv (also .csv.gz) or .npy",
    )


def fingerprint(path: Path) -> str:
    """Size and time of change: another file is another fingerprint."""
    found = path.stat()
    return f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"


class NpySource(Source):
    """Rows of a two-dimensional C-ordered ``.npy`` file; the last column is the target unless ``y`` is given.

    Args:
        y: targets beside the file: an array, or the path of another ``.npy``.
        target: column numbers to predict, as texts; empty for the last one if ``y`` is None.
        features: column numbers to predict from, as texts; None for all others.
    """

    file = True

    def __init__(self, path: Path, y: Any, weight: Any, target: Sequence[str] = (), features: Any = None) -> None:
        self.path, self.fingerprint = path, fingerprint(path)
        with open(path, "rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, self.dtype = read(file)
            except ValueError as error:
                raise BadData(f"{path.name} is no .npy file: {error}", "a torn file", "numpy.save again") from None
            self.offset = file.tell()
        if len(shape) != 2 or fortran or self.dtype not in (np.float32, np.float64):
            wide = 32 if self.dtype.itemsize < 4 else 64
            raise BadData(
                f"{path.name} holds {self.dtype} {shape}{' in Fortran order' if fortran else ''}",
                "saved in another form",
                f"numpy.save(path, numpy.ascontiguousarray(X, dtype=numpy.float{wide})) with X: (rows, columns)",
            )
        self.rows, self.width = int(shape[0]), int(shape[1])
        if path.stat().st_size < self.offset + self.rows * self.width * self.dtype.itemsize:
            raise BadData(f"{path.name} is shorter than its header says", "a torn file", "write it again")
        beside = ArraySource(np.zeros((self.rows, 0)), y, weight)
        self.y, self.weight, self.targets = beside.y, beside.weight, beside.targets
        self.at = [] if y is not None else [int(t) for t in target if t.isdecimal()] or [self.width - 1]
        chosen = [str(name) for name in features or []]
        check_names([str(j) for j in range(self.width)], target or [str(j) for j in self.at], chosen)
        self.chosen = [int(j) for j in chosen]
        self.keep = self.chosen or [j for j in range(self.width) if j not in self.at]
        if self.at:
            self.targets = [f"column {j}" for j in self.at]
        self.names = [f"x{j}" for j in self.keep]

    def whole(self) -> NpySource:
        """The same rows without a target: all columns are features, or those that were chosen."""
        found = copy.copy(self)
        found.at, found.targets, found.keep = [], [], self.chosen or list(range(self.width))
        found.names = [f"x{j}" for j in found.keep]
        return found

    def blocks(self, first: int = 0) -> Iterator[Block]:
        row_bytes = self.width * self.dtype.itemsize
        step = max(READ_BYTES // max(row_bytes, 1), 1)
        step = max(step - step % UNIT_ROWS, min(step, UNIT_ROWS))  # so that the kernel's blocks fit
        assert self.rows is not None
        rows = self.rows
        buffers = [aligned(step * row_bytes + 2 * PAGE) for _ in range(AHEAD + 1 + HELD)]

        def read() -> Iterator[tuple[int, Any]]:
            with contextlib.closing(Reader(self.path)) as reader:
                for k, start in enumerate(range(first, rows, step)):
                    count = min(step, rows - start)
                    raw = reader.read(buffers[k % len(buffers)], self.offset + start * row_bytes, count * row_bytes)
                    yield start, raw.view(self.dtype).reshape(count, self.width)

        for start, part in ahead(read):
            here = slice(start, start + len(part))
            y = self._y(part, here)
            x = part if self.keep == list(range(self.width)) else _without(part, self.at, self.keep)
            yield Block(x, y, None if self.weight is None else self.weight[here], self.names, self.targets, start=start)

    def _y(self, part: Any, here: slice) -> Any:
        if self.at:
            return part[:, self.at[0] : self.at[0] + 1] if len(self.at) == 1 else part[:, self.at]
        return None if self.y is None else np.asarray(self.y[here])


class ParquetSource(Source):
    """Rows of a Parquet file; only the columns that are used are read."""

    file = True

    def __init__(
        self, path: Path, target: Sequence[str], features: Any, classes: Sequence[str] = (), known: Kinds | None = None
    ) -> None:
        self.classes, self.known = list(classes), known
        self.parquet = need("pyarrow.parquet", "reading Parquet")
        self.path, self.target, self.features = path, list(target), features
        self.fingerprint = fingerprint(path)
        with readable(path), self.parquet.ParquetFile(path) as file:
            self.rows = file.metadata.num_rows
            self.sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            if not features:
                self.features = _without_index(file.schema_arrow.names, self.target)
            self.named = check_columns(file.schema_arrow, self.target, self.features, classes, known).named

    def blocks(self, first: int = 0) -> Iterator[Block]:
        group, start = 0, 0
        while group < len(self.sizes) and start + self.sizes[group] <= first:
            start += self.sizes[group]
            group += 1

        def read() -> Iterator[Any]:
            columns = None if not self.features else [*self.features, *self.target]
            with readable(self.path), self.parquet.ParquetFile(self.path) as file:
                for i in range(
                    group, len(self.sizes)
                ):  # batches end with their group: the same blocks from any group on
                    yield from file.iter_batches(BATCH_ROWS, row_groups=[i], columns=columns)

        yield from tables(ahead(read), self, start, first)


def ahead(read: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """What ``read`` yields, read by a thread up to ``AHEAD`` items before they are asked for."""
    items: queue.Queue[Any] = queue.Queue(AHEAD)
    stop = threading.Event()
    end = object()

    def work() -> None:
        try:
            found = read()
            with contextlib.closing(found) if isinstance(found, Generator) else contextlib.nullcontext():
                for item in found:
                    if not _put(items, item, stop):
                        return
            _put(items, end, stop)
        except BaseException as error:
            _put(items, error, stop)

    thread = threading.Thread(target=work, name="hasten reader", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        with contextlib.suppress(queue.Empty):
            while True:
                items.get_nowait()
        thread.join()


def _put(items: queue.Queue[Any], item: Any, stop: threading.Event) -> bool:
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            items.put(item, timeout=0.1)
            return True
    return False


def _without_index(names: Sequence[str], target: Sequence[str]) -> list[str] | None:
    """The features where pandas has written the numbers of its rows beside them, which are none; None elsewhere."""
    kept = [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]
    return None if len(kept) == len(names) else [name for name in kept if name not in target]


def check_columns(
    schema: Any, target: Sequence[str], features: Any, classes: Sequence[str], known: Kinds | None
) -> TableSource:
    """Are the columns there, and of kinds that can be used?"""
    return TableSource(schema.empty_table(), target=target, features=features, classes=classes, known=known)


def tables(batches: Iterator[Any], file: ParquetSource | CsvSource, start: int, first: int) -> Iterator[Block]:
    """Blocks of Arrow's batches from row ``first`` on. Args: start: number of the first batch's first row."""
    arrow = need("pyarrow", "reading a table")
    for batch in batches:
        table = arrow.Table.from_batches([batch])
        skip = min(max(first - start, 0), len(table))
        if skip < len(table):
            part = table.slice(skip)
            rows = TableSource(
                part, None, None, file.target, file.features, file.classes, file.known, at=start + skip
            )  # fmt: skip
            yield from rows.blocks()
        start += len(table)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Arrow's errors in our words."""
    arrow = need("pyarrow", f"reading {path.name}")
    try:
        yield
    except BadData:
        raise
    except (arrow.ArrowInvalid, arrow.ArrowKeyError, OSError, UnicodeError) as error:
        raise BadData(
            f"{path.name} cannot be read: {error}",
            "a torn file, a line of more or fewer fields, or a column whose kind changes after the first megabytes",
            "write it again; for CSV with mixed columns, convert it to Parquet once",
        ) from None


def _without(part: Any, at: list[int], keep: list[int]) -> Any:
    """The columns that are kept; without a copy where only the last or first one, the target, is not."""
    if len(keep) == part.shape[1] - 1 and keep == sorted(keep) and at in ([0], [part.shape[1] - 1]):
        return part[:, 1:] if at == [0] else part[:, :-1]
    return part[:, keep]

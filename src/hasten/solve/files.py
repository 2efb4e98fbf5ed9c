"""Files larger than memory: ``.npy``, Parquet and CSV in blocks that a thread reads ahead."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import re
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.solve.arrays import tell_rounded
from hasten.solve.columns import Kinds
from hasten.solve.kernel import UNIT_ROWS
from hasten.solve.problems import BadData, need, no_rows
from hasten.solve.reading import PAGE, Reader, aligned
from hasten.solve.source import ArraySource, Block, Source, TableSource, check_names

READ_BYTES = 12 << 20  # one read: long enough for a disk, and few sums to add up in columns as wide as 200
AHEAD = 2  # blocks that wait between two threads
HELD = AHEAD + 2  # blocks of a source in use: those that wait, one on each side
BATCH_ROWS = 1 << 16
CSV_BYTES = 4 << 20
DIFFERENT = 10  # numbers, of which fewer may well be codes
FEW = 0.2  # of a column's texts that are no numbers, at most, where the column is likely one of numbers


def open_file(
    path: str | os.PathLike[str], target: Sequence[str], features: Any, y: Any, weight: Any,
    classes: Sequence[str] = (), known: Kinds | None = None,
) -> Source:  # fmt: skip
    """A file as a ``Source``, by its name's ending.

    Args:
        known: what columns held in earlier rows: one without any value is of that kind, and in a CSV texts that look
            like numbers are still texts.

    Raises:
        BadData: there is no such file, or it is of no known kind.
    """
    from hasten.solve.streams import beside

    file = Path(path)
    if file.is_dir():
        raise BadData(
            f"{file} is a folder", "a table of many files",
            f'each file by itself: sum(Moments(part, "y") for part in sorted(Path("{file}").glob("*.parquet"))); '
            "hasten solve PART --save MODEL, then hasten solve PART --update MODEL",
        )  # fmt: skip
    if not file.is_file():
        raise BadData(f"there is no file {file}", "a typing error", "ls -l " + str(file.parent))
    name = file.name.lower().removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".npy"):
        return NpySource(file, y, weight, target, features)
    if name.endswith((".parquet", ".pq")):
        return beside(ParquetSource(file, target, features, classes, known), y, weight)
    if name.endswith((".csv", ".tsv")):
        separator = "\t" if name.endswith(".tsv") else ","
        return beside(CsvSource(file, target, features, separator, classes, known), y, weight)
    raise BadData(
        f"{file.name}: files of this kind cannot be read",
        "another format",
        "save it as .parquet, .csv or .npy",
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
        if isinstance(y, str | os.PathLike):
            y = np.load(y, mmap_mode="r")
        beside = ArraySource(np.zeros((self.rows, 0)), y, weight)
        self.y, self.weight, self.targets = beside.y, beside.weight, beside.targets
        self.at = [] if y is not None else [int(t) for t in target if t.isdecimal()] or [self.width - 1]
        chosen = [str(name) for name in features or []]
        check_names([str(j) for j in range(self.width)], target or [str(j) for j in self.at], chosen)
        self.keep = [int(j) for j in chosen] or [j for j in range(self.width) if j not in self.at]
        if self.at:
            self.targets = [f"column {j}" for j in self.at]
        self.names = [f"x{j}" for j in self.keep]

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
        with _readable(path), self.parquet.ParquetFile(path) as file:
            self.rows = file.metadata.num_rows
            self.sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            if not features:
                self.features = _without_index(file.schema_arrow.names, self.target)
            self.named = _check(file.schema_arrow, self.target, self.features, classes, known).named

    def blocks(self, first: int = 0) -> Iterator[Block]:
        group, start = 0, 0
        while group < len(self.sizes) and start + self.sizes[group] <= first:
            start += self.sizes[group]
            group += 1

        def read() -> Iterator[Any]:
            columns = None if not self.features else [*self.features, *self.target]
            with _readable(self.path), self.parquet.ParquetFile(self.path) as file:
                for i in range(
                    group, len(self.sizes)
                ):  # batches end with their group: the same blocks from any group on
                    yield from file.iter_batches(BATCH_ROWS, row_groups=[i], columns=columns)

        yield from _tables(ahead(read), self, start, first)


class CsvSource(Source):
    """Rows of a CSV file, also compressed; the kinds of its columns are found from its first megabytes, whole numbers
    being numbers."""

    file = True

    def __init__(
        self, path: Path, target: Sequence[str], features: Any, separator: str = ",", classes: Sequence[str] = (),
        known: Kinds | None = None,
    ) -> None:  # fmt: skip
        self.classes, self.known = list(classes), known
        self.csv = need("pyarrow.csv", "reading CSV")
        self.arrow = need("pyarrow", "reading CSV")
        self.kinds = dict.fromkeys(known.categorical if known else [], self.arrow.string())
        self.path, self.target, self.features, self.separator = path, list(target), features, separator
        self.fingerprint = fingerprint(path)
        if not path.stat().st_size:
            raise no_rows()
        if known:
            with _readable(path), self._open() as reader:
                empty = {field.name for field in reader.schema if field.type == self.arrow.null()}
            self.kinds |= dict.fromkeys(empty.intersection(known.numeric), self.arrow.float64())
        with _readable(path), self._open() as reader:
            _one_separator(path, reader.schema.names, separator)
            batches = list(itertools.islice(reader, 1))
            if not sum(map(len, batches)) and all(kind == self.arrow.null() for kind in reader.schema.types):
                raise no_rows()
            self.named = _check(reader.schema, self.target, features, classes, known).named
            for batch in batches:
                used = [*features, *self.target] if features else reader.schema.names
                _look_at_texts(batch, used)
                self.kinds |= _whole_as_floats(batch, used)

    def _open(self) -> Any:
        stream = self.arrow.input_stream(str(self.path), compression="detect")
        return self.csv.open_csv(
            stream,
            read_options=self.csv.ReadOptions(block_size=CSV_BYTES),
            parse_options=self.csv.ParseOptions(delimiter=self.separator),
            convert_options=self.csv.ConvertOptions(strings_can_be_null=True, column_types=self.kinds),
        )

    def blocks(self, first: int = 0) -> Iterator[Block]:
        def read() -> Iterator[Any]:
            with _readable(self.path), self._open() as reader:
                yield from reader

        yield from _tables(ahead(read), self, 0, first)


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


def _check(
    schema: Any, target: Sequence[str], features: Any, classes: Sequence[str], known: Kinds | None
) -> TableSource:
    """Are the columns there, and of kinds that can be used?"""
    return TableSource(schema.empty_table(), target=target, features=features, classes=classes, known=known)


def _one_separator(path: Path, names: Sequence[str], separator: str) -> None:
    """Raises: BadData: the one column's name holds what separates fields elsewhere."""
    other = next((c for c in ";\t|," if c != separator and c in names[0]), None)
    if len(names) == 1 and other is not None:
        cause = {";": "semicolons between fields", "\t": "tabs between fields", "|": "bars between fields"}
        raise BadData(
            f"{path.name} holds one column, {names[0]!r}", cause.get(other, "commas between fields"),
            f'pandas.read_csv("{path.name}", sep={other!r}).to_parquet("{path.name.split(".")[0]}.parquet")',
        )  # fmt: skip


def _whole_as_floats(batch: Any, used: Sequence[str]) -> dict[str, Any]:
    """The kind float64 for columns of whole numbers: later rows may hold others, and all become float64 anyway."""
    arrow = need("pyarrow", "reading CSV")
    found = {name: arrow.float64() for name in used if arrow.types.is_integer(batch.column(name).type)}
    for name in found:
        tell_rounded(batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64), f"column {name!r}")
    return found


class NumbersAsTexts(UserWarning):
    """Nearly all texts of a column are numbers, and each different one is a category."""


def _look_at_texts(batch: Any, used: Sequence[str]) -> None:
    """Warns where a column holds a few texts among numbers, as signs for missing values.

    Raises:
        BadData: a column holds numbers with commas, each of which would be a category.
    """
    compute, arrow = need("pyarrow.compute", "reading CSV"), need("pyarrow", "reading CSV")
    for name in used:
        texts = batch.column(name).drop_null()
        if not (arrow.types.is_string(texts.type) and len(texts)):
            continue
        numbers = compute.match_substring_regex(texts, r"^\s*[+-]?\d+(,\d+)*([.]\d+)?\s*$")
        with_comma = texts.filter(compute.match_substring(texts, ","))
        if compute.all(numbers).as_py() and len(with_comma):
            raise BadData(
                f"column {name!r} holds numbers with commas, such as {with_comma[0].as_py()!r}",
                "decimal commas, or commas between thousands",
                'pandas.read_csv(path, decimal=",").to_parquet("data.parquet"); thousands="," if that is meant',
            )
        numbers = compute.match_substring_regex(texts, r"^\s*[+-]?(\d+[.]?\d*|[.]\d+)([eE][+-]?\d+)?\s*$")
        different, others = texts.filter(numbers).unique(), texts.filter(compute.invert(numbers))
        if len(others) and len(different) >= DIFFERENT and len(others) <= FEW * len(texts):
            warnings.warn(
                f"column {name!r} holds numbers and a few texts, such as {others[0].as_py()!r}, so each number is a "
                'category. If that text means a missing value: pandas.read_csv(path, na_values=["…"]).to_parquet(…)',
                NumbersAsTexts, stacklevel=2,
            )  # fmt: skip


def _tables(batches: Iterator[Any], file: ParquetSource | CsvSource, start: int, first: int) -> Iterator[Block]:
    arrow = need("pyarrow", "reading a table")
    for batch in batches:
        table = arrow.Table.from_batches([batch])
        skip = min(max(first - start, 0), len(table))
        if skip < len(table):
            part = table.slice(skip)
            rows = TableSource(part, None, None, file.target, file.features, file.classes, file.known)
            for block in rows.blocks():
                yield Block(
                    block.x, block.y, block.weight, block.names, block.targets, block.categories, block.category_names,
                    start + skip + block.start,
                )  # fmt: skip
        start += len(table)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Arrow's errors in our words."""
    arrow = need("pyarrow", f"reading {path.name}")
    try:
        yield
    except BadData:
        raise
    except (arrow.ArrowInvalid, arrow.ArrowKeyError, OSError) as error:
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

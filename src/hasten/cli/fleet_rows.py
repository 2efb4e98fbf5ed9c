"""Files of rows for ``hasten fleet``: Parquet, a folder of it, or CSV."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import hashlib
import shlex
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hasten.core.errors import UsageError, nearest

HEAD = 1 << 16  # bytes of a file that are looked at to tell what it is


def digest_of(path: Path) -> str:
    """Of a file, or of all files of a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            digest.update(part.read_bytes())
    return digest.hexdigest()


def read(path: Path, by: str) -> Any:
    """The rows of a file.

    Args:
        by: the column of keys, which are text: CSV does not say so, and 0412 would become 412.

    Raises:
        UsageError: it cannot be read, or pyarrow is not installed.
    """
    from hasten.fleet.extras import need

    if not path.exists():
        raise UsageError(f"there is no file {path}", "a typing error", "a .parquet, .csv or .csv.gz file")
    _check_kind(path, by)
    pa = need("pyarrow", "reading a file of rows")
    try:
        if path.suffix.lower() == ".parquet" or path.is_dir():
            return read_parquet(path, by)
        return read_csv(path, by)
    except (OSError, ValueError, pa.ArrowException) as error:  # files of a folder may hold a column as other kinds
        raise UsageError(
            f"cannot read {path}: {str(error).splitlines()[0]}",
            "a typing error, or neither Parquet nor CSV",
            "a .parquet, .csv or .csv.gz file",
        ) from None


def read_parquet(path: Path, by: str) -> Any:
    """The rows of a Parquet file, or of a folder of them. Keys that names of folders tell (``store=0412/``) are text.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    from hasten.fleet.extras import need

    pa, parquet = need("pyarrow", "reading a file of rows"), need("pyarrow.parquet", "reading a file of rows")
    whole = parquet.ParquetDataset(path) if path.is_dir() else None
    if whole is None or not whole.fragments or by in (held := set(whole.fragments[0].physical_schema.names)):
        return parquet.read_table(path)
    told = {
        field.name: getattr(field.type, "value_type", field.type) for field in whole.schema if field.name not in held
    }
    kinds = {name: pa.string() if name == by else kind for name, kind in told.items()}
    hive = need("pyarrow.dataset", "reading a file of rows").partitioning(pa.schema(kinds), flavor="hive")
    return parquet.read_table(path, partitioning=hive)


def read_csv(path: Path, by: str) -> Any:
    """The rows of a CSV file. Where no commas stand between its columns, they may stand in its numbers: whichever way
    more columns are numbers is taken.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    from hasten.fleet.extras import need

    pa, csvs = need("pyarrow", "reading a file of rows"), need("pyarrow.csv", "reading a file of rows")
    mark = delimiter(path)

    def table(point: str) -> Any:
        text = csvs.ConvertOptions(column_types={by: "string"}, decimal_point=point)
        return csvs.read_csv(path, parse_options=csvs.ParseOptions(delimiter=mark), convert_options=text)

    found = table(".")
    if mark == "," or not any(pa.types.is_string(field.type) for field in found.schema if field.name != by):
        return found
    return max((found, table(",")), key=lambda t: sum(pa.types.is_floating(field.type) for field in t.schema))


def _check_kind(path: Path, by: str) -> None:
    """Refuse what can be no file of rows with this column, before anything is installed to read it.

    Raises:
        UsageError: it is neither Parquet nor CSV, or its first line lacks the column.
    """
    if path.is_dir() and path.suffix.lower() != ".parquet" and not any(path.rglob("*.parquet")):
        raise UsageError(
            f"{path} is a folder without Parquet files", "another folder, or one of CSV files",
            "a folder of .parquet files, or one .parquet, .csv or .csv.gz file",
        )  # fmt: skip
    compressed: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
    why, cause, change = "", "a typing error, or neither Parquet nor CSV", "a .parquet, .csv or .csv.gz file"
    if not path.is_file() or path.suffix.lower() in (".zst", ".lz4", ".br", ".snappy"):  # which Python cannot open
        return
    try:
        with compressed.get(path.suffix.lower(), open)(path, "rb") as file:
            head: bytes = file.read(HEAD)
    except (OSError, EOFError, zlib.error) as error:
        why = str(error)
    else:
        line = head.partition(b"\n")[0].decode("utf-8", "replace").strip("\ufeff\r")
        if path.suffix.lower() == ".parquet":
            why = "" if head.startswith(b"PAR1") else "it does not begin as Parquet does"
        elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            why, cause = "it is text in UTF-16, and rows are read in UTF-8", "what a spreadsheet has written"
            change = f"iconv -f UTF-16 -t UTF-8 {shlex.quote(str(path))} > rows.csv"
        elif b"\0" in head:
            why = "it is no text"
        elif by not in (columns := next(csv.reader([line], delimiter=mark_of(line)), [])) and line.count('"') % 2 == 0:
            why = f"there is no column {by!r} in its first line, {line[:60]!r}"
            change = nearest(by, columns) or change
    if why:
        raise UsageError(f"cannot read {path}: {why}", cause, change)


def mark_of(line: str) -> str:
    """What stands between the columns of a head: a comma, or where it has none, a semicolon or a tab."""
    return next((mark for mark in (",", ";", "\t") if mark in line), ",")


def delimiter(path: Path) -> str:
    """What stands between the columns of a CSV file."""
    from hasten.fleet.extras import need

    with need("pyarrow", "reading a file of rows").input_stream(str(path)) as file:
        return mark_of(file.read(HEAD).partition(b"\n")[0].decode("utf-8", "replace"))

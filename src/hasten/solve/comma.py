"""CSV files in blocks; the kinds of their columns are found before the first pass."""

from __future__ import annotations

import codecs
import csv
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.solve.arrays import tell_rounded
from hasten.solve.columns import Kinds, not_utf8, with_texts_as_names
from hasten.solve.files import ahead, check_columns, fingerprint, readable, tables
from hasten.solve.problems import BadData, need, no_rows
from hasten.solve.source import Block, Source

CSV_BYTES = 4 << 20
DIFFERENT = 10  # numbers, of which fewer may well be codes
FEW = 0.2  # of a column's texts that are no numbers, at most, where the column is likely one of numbers
LONGEST = 2**63  # beyond, Arrow takes whole numbers of a CSV for float64


class CsvSource(Source):
    """Rows of a CSV file in UTF-8, or in UTF-16 with its mark; also compressed.

    The kinds of its columns are found from its first megabytes, or from the first ones in which a column holds a value;
    whole numbers are numbers.
    """

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
        with readable(path):
            self.encoding = self._encoding()
            _one_separator(path, self._header(), separator)
            with self._open(self.kinds) as reader:
                schema, batch = reader.schema, next(iter(reader), None)
        if not batch and all(kind == self.arrow.null() for kind in schema.types):
            raise no_rows()
        with_texts_as_names(schema.empty_table())  # each once
        used = [name for name in schema.names if not features or name in (*features, *self.target)]
        empty = [name for name in used if schema.field(name).type == self.arrow.null()]
        held = [name for name in empty if known and name in known.numeric]
        self.kinds |= dict.fromkeys(held, self.arrow.float64())
        with readable(path):
            self.kinds |= self._later([name for name in empty if name not in held])
        schema = self.arrow.schema([(field.name, self.kinds.get(field.name, field.type)) for field in schema])
        if batch:
            _look_at_texts(batch, used)
        self.named = check_columns(schema, self.target, features, classes, known).named
        if batch:
            self._tell_long(batch, used)
            self.kinds |= _whole_as_floats(batch, used)

    def _stream(self) -> Any:
        return self.arrow.input_stream(str(self.path), compression="detect")

    def _open(self, kinds: dict[str, Any], only: Sequence[str] = ()) -> Any:
        return self.csv.open_csv(
            self._stream(),
            read_options=self.csv.ReadOptions(block_size=CSV_BYTES, encoding=self.encoding),
            parse_options=self.csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
            convert_options=self.csv.ConvertOptions(
                strings_can_be_null=True, column_types=kinds, include_columns=list(only)
            ),
        )

    def _encoding(self) -> str:
        """As Python names it, by the file's first bytes.

        Raises:
            BadData: they are of another one.
        """
        with self._stream() as stream:
            head = stream.read(4096)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not head.startswith(codecs.BOM_UTF32_LE):
            return "utf-16"
        if head.count(b"\0") > len(head) // 4:
            raise BadData(
                f"{self.path.name} holds zero bytes between its letters", "UTF-16 without its mark, or no text at all",
                f"iconv -f utf-16le -t utf-8 {self.path.name} > utf8.csv",
            )  # fmt: skip
        return "utf8"

    def _header(self) -> list[str]:
        """Names in the first line.

        Raises:
            BadData: it is of another encoding.
        """
        with self._stream() as stream:
            head = stream.read(CSV_BYTES)
        try:
            text = (
                head.splitlines()[0].decode("utf-8-sig")
                if self.encoding == "utf8"
                else head.decode("utf-16", "replace")
            )
        except UnicodeDecodeError:
            raise not_utf8(f"the first line of {self.path.name} holds letters", self.path.name) from None
        return next(csv.reader(text.splitlines()[:1], delimiter=self.separator), [""])

    def _later(self, names: list[str]) -> dict[str, Any]:
        """Kinds of columns without a value in the first megabytes, by the first ones with one."""
        found: dict[str, Any] = {}
        if not names:
            return found
        with self._open(dict.fromkeys(names, self.arrow.string()), names) as reader:
            for batch in reader:
                for name in [name for name in names if name not in found]:
                    texts = batch.column(name).drop_null()
                    if len(texts):
                        found[name] = self._kind(name, texts)
                if len(found) == len(names):
                    break
        return found

    def _kind(self, name: str, texts: Any) -> Any:
        """What Arrow takes a column's texts for; whole numbers are float64."""
        page = self.arrow.BufferOutputStream()
        self.csv.write_csv(self.arrow.table({name: texts}), page)
        lines = self.csv.ParseOptions(newlines_in_values=True)
        found = self.csv.read_csv(self.arrow.BufferReader(page.getvalue()), parse_options=lines)
        batch = found.combine_chunks().to_batches()[0]
        _look_at_texts(batch, [name])
        return _whole_as_floats(batch, [name]).get(name, batch.schema.types[0])

    def _tell_long(self, batch: Any, used: Sequence[str]) -> None:
        """Warn of whole numbers that no integer of Arrow's holds."""
        compute = need("pyarrow.compute", "reading CSV")
        wide = [name for name in used if self.arrow.types.is_floating(batch.column(name).type)]
        wide = [name for name in wide if (compute.max(compute.abs(batch.column(name))).as_py() or 0) >= LONGEST]
        if not wide:
            return
        with self._open(dict.fromkeys(wide, self.arrow.string()), wide) as reader:
            texts = reader.read_next_batch()
        for name in wide:
            if compute.any(compute.match_substring_regex(texts.column(name), r"^\s*[+-]?\d{16,}\s*$")).as_py():
                tell_rounded(batch.column(name).to_numpy(zero_copy_only=False), f"column {name!r}")

    def blocks(self, first: int = 0) -> Iterator[Block]:
        def read() -> Iterator[Any]:
            with readable(self.path), self._open(self.kinds) as reader:
                yield from reader

        yield from tables(ahead(read), self, 0, first)


def _one_separator(path: Path, names: Sequence[str], separator: str) -> None:
    """Raises: BadData: the one column's name holds what separates fields elsewhere."""
    other = next((c for c in ";\t|," if c != separator and c in names[0]), None)
    if len(names) == 1 and other is not None:
        cause = {";": "semicolons between fields", "\t": "tabs between fields", "|": "bars between fields"}
        raise BadData(
            f"{path.name} holds one column, {names[0]!r}", cause.get(other, "commas between fields"),
            f'pandas.read_csv("{path.name}", sep={other!r}).to_parquet("{path.name.split(".")[0]}.parquet")'
            + ("; with decimal=\",\" where numbers have commas" if other == ";" else ""),
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

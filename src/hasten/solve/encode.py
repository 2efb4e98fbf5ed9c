"""Categories and missing values as columns of zeros and ones, found while the data pass by.

A value that is missing is replaced by a fixed number and marked in an indicator column. Since replacing it by another
number is a linear map of the two columns, sums of products of the marked data turn into those of mean-imputed data
after the pass, exactly, though the mean was not known during it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hasten.solve.arrays import absent
from hasten.solve.kernel import Array, Floats
from hasten.solve.problems import BadData, need
from hasten.solve.source import Block, Source

if TYPE_CHECKING:
    from hasten.solve.moments import Moments

MOST_COLUMNS = 20_000  # a scatter of more takes more than 3 GB
MISSING = "missing"


class Encoder:
    """The sparse columns seen so far.

    Args:
        numeric: names of dense feature columns.
        categorical: names of columns that hold categories.
        columns: names of sparse columns, in the order in which they were found.
    """

    def __init__(self, numeric: Sequence[str], categorical: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
        self.numeric, self.categorical = list(numeric), list(categorical)
        self.columns = {name: i for i, name in enumerate(columns)}

    @property
    def sparse(self) -> bool:
        """Whether there are sparse columns, or will be."""
        return bool(self.categorical or self.columns)

    @property
    def names(self) -> list[str]:
        """Names of all columns: numbers first. A number's is in quotes where a category has the same."""
        return [*(json.dumps(n, ensure_ascii=False) if n in self.columns else n for n in self.numeric), *self.columns]

    def pairs(self) -> list[tuple[int, int]]:
        """(dense feature, its indicator among the sparse columns)."""
        if not self.columns:
            return []
        found = ((j, self.columns.get(indicator(name))) for j, name in enumerate(self.numeric))
        return [(j, i) for j, i in found if i is not None]

    def place(self, name: str) -> int:
        """The sparse column of that name, new if need be."""
        if name not in self.columns:
            if len(self.columns) + len(self.numeric) >= MOST_COLUMNS:
                raise BadData(
                    f"{MOST_COLUMNS} columns are reached at {name!r}",
                    "a column of many different texts (an identifier, a free text) is taken for categories",
                    "leave it out, or replace it by numbers",
                )
            self.columns[name] = len(self.columns)
        return self.columns[name]

    def encode(self, x: Array, categories: Sequence[Array], fill: Floats) -> tuple[Array, Any]:
        """A block without holes, and its sparse part.

        Args:
            x: (rows, features) with NaN where a value is missing.
            categories: one (rows,) array of texts a categorical column; None or NaN where missing.
            fill: (features,) what stands in for missing values.

        Returns:
            x, filled; a ``csr_array`` (rows, sparse columns), or None where there are none.
        """
        holes = np.isnan(x)
        rows: list[Array] = []
        places: list[Array] = []
        if holes.any():
            x = np.where(holes, fill, x)  # float64: rounded to float32 it would be another number than ``fill`` says
            row, column = np.nonzero(holes)
            place = np.full(x.shape[1], -1)
            for j in np.unique(column):
                place[j] = self.place(indicator(self.numeric[j]))
            rows, places = [row], [place[column]]
        for name, values in zip(self.categorical, categories, strict=True):
            levels, codes = factorize(values)
            ids = np.array([self.place(level_name(name, level)) for level in levels], dtype=np.int64)
            rows.append(np.arange(len(values)))
            places.append(ids[codes])
        if not self.columns:
            return x, None
        row = np.concatenate(rows) if rows else np.empty(0, np.int64)
        place = np.concatenate(places) if places else np.empty(0, np.int64)
        sparse = need("scipy.sparse", "a table with categories or missing values")
        return x, sparse.csr_array((np.ones(len(row)), (row, place)), shape=(len(x), len(self.columns)))

    def known(self, x: Array, categories: Sequence[Array], fill: Floats) -> Array:
        """(rows, features + sparse columns) dense, for predicting: categories that were never seen are all zeros."""
        out = np.zeros((len(x), len(self.numeric) + len(self.columns)))
        p = len(self.numeric)
        holes = np.isnan(x)
        out[:, :p] = np.where(holes, fill, x)
        for j, i in self.pairs():
            out[:, p + i] = holes[:, j]
        for name, values in zip(self.categorical, categories, strict=True):
            levels, codes = factorize(values)
            for code, level in enumerate(levels):
                place = self.columns.get(level_name(name, level))
                if place is not None:
                    out[codes == code, p + place] = 1.0
        return out


class Encoded(Source):
    """A table's rows as numbers, with the categories and missing values that moments know."""

    def __init__(self, source: Source, m: Moments) -> None:
        self.source, self.m, self.rows, self.again = source, m, source.rows, source.again

    def blocks(self, first: int = 0) -> Iterator[Block]:
        fill, names = self.m.imputed, self.m.names
        for block in self.source.blocks(first):
            x = self.m.encoder.known(block.x, block.categories, fill)
            yield replace(block, x=x, names=names, categories=(), category_names=[])


def encoded(source: Source, m: Moments) -> Source:
    """The rows as numbers in the columns of ``m``; the source itself where it holds nothing else."""
    return Encoded(source, m) if m.encoder.sparse and not isinstance(source, Encoded) else source


def indicator(name: str) -> str:
    """The name of the column that marks missing values of ``name``."""
    return f"{quoted(name)} is {MISSING}"


def level_name(name: str, level: str | None) -> str:
    """The name of the column that marks one category; None is a missing one, which the text ``missing`` is not."""
    return indicator(name) if level is None else f"{quoted(name)}={level}"


def quoted(name: str) -> str:
    """A column's name as the beginning of another's, in quotes where it could be taken for a longer or shorter one:
    the category ``b=c`` of ``a`` is not the category ``c`` of ``a=b``."""
    return json.dumps(name, ensure_ascii=False) if "=" in name or name.startswith('"') else name


def factorize(values: Array) -> tuple[list[str | None], Array]:
    """Categories as texts, and each row's number among them; what is missing is a category, too: None."""
    seen: dict[str | None, int] = {}
    codes = np.empty(len(values), np.int64)
    for i, value in enumerate(values.tolist()):
        text = None if absent(value) else str(value)
        codes[i] = seen.setdefault(text, len(seen))
    return list(seen), codes

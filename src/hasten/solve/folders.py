"""Columns that the names of folders tell, as ``day=1/part.parquet``: how Hive, Spark and pyarrow write large tables."""

from __future__ import annotations

import copy
import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from hasten.solve.arrays import seconds_of
from hasten.solve.kernel import Array
from hasten.solve.problems import BadData
from hasten.solve.source import Block, Source

NONE = "__HIVE_DEFAULT_PARTITION__"  # how a missing value is written
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def is_told(folder: Path) -> bool:
    """Whether the name of a folder tells the value of a column."""
    return folder.name[0] not in "._" and "=" in folder.name[1:] and folder.is_dir()


def told(path: Any, files: Sequence[Path]) -> dict[str, Array]:
    """(files,) values of the columns that folders below what was given tell: numbers, dates as seconds, or texts.

    Args:
        path: a folder, a pattern, or a list of paths. files: of it.

    Raises:
        BadData: the folders of one file tell other columns than those of the first one.
    """
    base = _base(path)
    rows = [_pairs(Path(os.path.abspath(file)).relative_to(base).parent) for file in files]
    other = next((i for i, row in enumerate(rows) if [*row] != [*rows[0]]), None)
    if other is not None:
        raise BadData(
            f"the folders of {files[other]} tell the columns {[*rows[other]]}, those of {files[0]} {[*rows[0]]}",
            "files of two tables", "one table, by a pattern or a list of paths",
        )  # fmt: skip
    return {name: _typed([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _base(path: Any) -> Path:
    """The folder below which names of folders count: that which was given, or what a pattern or list has in common."""
    if isinstance(path, list | tuple):
        return Path(os.path.commonpath([os.path.dirname(os.path.abspath(each)) for each in path]))
    whole = Path(os.path.abspath(path))
    if whole.is_dir():
        return whole
    plain = next((i for i, part in enumerate(whole.parts) if glob.has_magic(part)), len(whole.parts) - 1)
    return Path(*whole.parts[:plain])


def _pairs(folder: Path) -> dict[str, str]:
    pairs = (part.partition("=") for part in folder.parts if "=" in part[1:])
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _typed(values: Sequence[str]) -> Array:
    held = [value for value in values if value != NONE]
    if all(NUMBER.fullmatch(value) for value in held):
        return np.array([np.nan if value == NONE else float(value) for value in values])
    if all(DATE.fullmatch(value) for value in held):
        try:
            return seconds_of(np.array(["NaT" if value == NONE else value for value in values], dtype="datetime64[s]"))
        except ValueError:  # no date after all
            pass
    return np.array([None if value == NONE else value for value in values], dtype=object)


class Told(Source):
    """The rows of a file with the columns that its folders tell, which a column of its own of that name goes before."""

    def __init__(self, source: Source, values: Mapping[str, Any]) -> None:
        self.source, self.rows, self.again, self.file = source, source.rows, source.again, source.file
        self.fingerprint = source.fingerprint
        self.texts = {name: value for name, value in values.items() if value is None or isinstance(value, str)}
        self.numbers = {name: float(value) for name, value in values.items() if name not in self.texts}
        self.named = [*source.named, *self.numbers] if len(source.named) and not self.texts else []

    def whole(self) -> Told:
        """As ``NpySource.whole``."""
        found = copy.copy(self)
        found.source = self.source.whole()
        return found

    def blocks(self, first: int = 0) -> Iterator[Block]:
        for block in self.source.blocks(first):
            own = {*block.names, *block.category_names, *block.targets}
            numbers = {name: value for name, value in self.numbers.items() if name not in own}
            texts = {name: value for name, value in self.texts.items() if name not in own}
            rows = len(block.x)
            yield replace(
                block,
                x=np.column_stack([block.x, np.tile([*numbers.values()], (rows, 1))]) if numbers else block.x,
                names=[*block.names, *numbers],
                categories=(*block.categories, *(np.full(rows, value, dtype=object) for value in texts.values())),
                category_names=[*block.category_names, *texts],
            )

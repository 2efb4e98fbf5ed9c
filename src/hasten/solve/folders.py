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
from hasten.solve.columns import Kinds, check_apart, class_texts
from hasten.solve.kernel import Array
from hasten.solve.problems import BadData, NoColumn
from hasten.solve.source import Block, Source, coded, texts_to_predict

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


def opened(
    path: Path, target: Sequence[str], features: Any, classes: Sequence[str], known: Kinds | None,
    values: Mapping[str, Any],
) -> Source:  # fmt: skip
    """A file as ``open_file`` opens it, with the columns that its folders tell; one of its own goes before these.

    Args:
        values: what the folders tell.

    Raises:
        BadData: as ``open_file``.
    """
    from hasten.solve.files import open_file

    check_apart(target, features or [])
    inside, asked, y = list(target), list(features or []), None
    while True:
        try:
            source = open_file(path, inside, asked or None, y, None, classes if inside else (), known)
            break
        except NoColumn as error:
            if error.name not in values:
                raise
            inside, asked = ([name for name in names if name != error.name] for names in (inside, asked))
            if (
                target and not inside and path.name.lower().endswith(".npy")
            ):  # whose last column is a target without another one
                y = np.zeros(len(np.load(path, mmap_mode="r")))
    chosen = [name for name in features if name not in asked] if features else [*values]
    beside = {name: values[name] for name in chosen if name not in target}
    predicted = {name: values[name] for name in target if name not in inside}
    bare = bool(features) and not asked
    if not (beside or predicted or bare):
        return source
    return Told(source, beside, target, predicted, classes, bare)


class Told(Source):
    """The rows of a file with the columns that its folders tell, which a column of its own of that name goes before.

    Args:
        values: of the features that folders tell. predicted: of the targets that they tell.
        target: names of all targets, those of the file in its order. classes: as ``open_file`` takes them.
        bare: whether no column of the file is a feature.

    Raises:
        BadData: a target holds texts, or none of the classes.
    """

    def __init__(
        self, source: Source, values: Mapping[str, Any], target: Sequence[str] = (),
        predicted: Mapping[str, Any] | None = None, classes: Sequence[str] = (), bare: bool = False,
    ) -> None:  # fmt: skip
        self.source, self.rows, self.again, self.file = source, source.rows, source.again, source.file
        self.fingerprint, self.bare = source.fingerprint, bare
        self.texts = {name: value for name, value in values.items() if value is None or isinstance(value, str)}
        self.numbers = {name: float(value) for name, value in values.items() if name not in self.texts}
        inside = [] if bare else source.named
        more = [name for name in self.numbers if name not in inside]
        self.named = [*inside, *more] if (bare or len(inside)) and not self.texts else []
        self.target = list(target)
        self.predicted = {name: _predicted(name, value, classes) for name, value in (predicted or {}).items()}
        self.classes = [f"{name}={c}" for name in self.predicted for c in classes]

    def whole(self) -> Told:
        """As ``NpySource.whole``."""
        found = copy.copy(self)
        found.source = self.source.whole()
        return found

    def blocks(self, first: int = 0) -> Iterator[Block]:
        for block in self.source.blocks(first):
            if self.bare:
                block = replace(block, x=block.x[:, :0], names=[], categories=(), category_names=[])
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
                **self._targets(block),
            )

    def _targets(self, block: Block) -> dict[str, Any]:
        """y of a block, and its columns' names, in the order in which they were asked for."""
        if not self.predicted:
            return {}
        inside = iter(range(len(block.targets)))
        parts, names = [], []
        for name in self.target:
            if name in self.predicted:
                parts.append(np.tile(self.predicted[name], (len(block.x), 1)))
                names += self.classes or [name]
            else:
                at = next(inside)
                parts.append(block.y[:, at : at + 1])
                names.append(block.targets[at])
        return {"y": np.column_stack(parts), "targets": names}


def _predicted(name: str, value: Any, classes: Sequence[str]) -> Array:
    """What a folder tells of a target, as a row of y."""
    if classes:
        row: Array = coded(class_texts(np.array([value], dtype=object)), classes, name, 0)[0]
        return row
    if value is None or isinstance(value, str):
        raise texts_to_predict(name)
    return np.array([float(value)])

"""A table of many files as one source: a folder, a pattern such as ``data/part-*.parquet``, or a list of paths."""

from __future__ import annotations

import copy
import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hasten.solve.columns import Kinds
from hasten.solve.combine import other_columns
from hasten.solve.folders import is_told, opened
from hasten.solve.problems import BadData
from hasten.solve.source import Block, Source, first_block

ENDINGS = (".parquet", ".pq", ".csv", ".tsv", ".npy")
PACKED = (".gz", ".zst")
HEAD = 1 << 16  # bytes by whose first ones most files of one size are told apart


def ending(path: str | os.PathLike[str]) -> str:
    """What kind of file it is: one of ``ENDINGS``, or "" for any other."""
    name = os.fspath(path).lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return next((end for end in ENDINGS if name.endswith(end)), "")


def files_of(path: Any) -> list[Path] | None:
    """The files of a folder, a pattern, or a list of paths, in the order of their names; None of anything else.

    Of a folder those that hold rows by their ending, or where there are none those in its folders whose names tell a
    column (``day=1``); names that begin with ``_`` or ``.`` are of other programs.

    Raises:
        BadData: there are none, they are of several kinds, or a folder holds other folders.
    """
    if isinstance(path, list | tuple):
        if not path or not all(isinstance(each, str | os.PathLike) for each in path):
            return None
        found = [Path(each) for each in path]
        missing = next((each for each in found if not each.is_file()), None)
        if missing is not None:
            raise BadData(f"there is no file {missing}", "a typing error", f"ls -l {missing.parent}")
        return _of_one_kind(found, f"a list of {len(found)} files", f"*{ending(found[0])}")
    if not isinstance(path, str | os.PathLike):
        return None
    text = os.fspath(path)
    if os.path.isdir(text):
        found = _of_rows(Path(text))
        if not found:
            inner = any(each.is_dir() and each.name[0] not in "._" for each in Path(text).iterdir())
            raise BadData(
                f"{text} is a folder without files of rows", "folders inside it" if inner else "another folder",
                f'"{text}/*/*.parquet" for those of its folders' if inner else f"ls -l {text}",
            )  # fmt: skip
        return _of_one_kind([each for each in found if each.is_file()], f"{text} is a folder", f"{text}/*.parquet")
    if glob.has_magic(text) and not os.path.exists(text):
        found = [Path(each) for each in sorted(glob.glob(text, recursive=True)) if os.path.isfile(each)]
        if not found:
            raise BadData(f"no file is called {text}", "a typing error", f"ls -l {os.path.dirname(text) or '.'}")
        return _of_one_kind(found, f"{text} stands for files", f"{text.rstrip('*')}*.parquet")
    return None


def _of_rows(folder: Path) -> list[Path]:
    inside = sorted(folder.iterdir())
    found = [each for each in inside if each.name[0] not in "._" and ending(each)]
    return found or [file for each in inside if is_told(each) for file in _of_rows(each)]


def _of_one_kind(found: list[Path], what: str, pattern: str) -> list[Path]:
    kinds = sorted({ending(each) or each.name for each in found})
    if len(kinds) > 1:
        raise BadData(
            f"{what}, of several kinds: {', '.join(kinds[:6])}", "other tables beside the one that is meant",
            f'those of one kind: "{pattern}"; or each by itself: hasten solve PART --save MODEL, then '
            "hasten solve PART --update MODEL",
        )  # fmt: skip
    return found


def check_copies(files: Sequence[Path], told: Mapping[str, Any]) -> None:
    """Raises: BadData: two files are the same, byte by byte: a part that was written again by a retry.

    Args:
        told: (files,) values of the columns that folders tell: files that differ in these are not the same.
    """
    sizes: dict[tuple[Any, ...], list[Path]] = {}
    for i, path in enumerate(files):
        with open(path, "rb") as file:
            beside = (str(values[i]) for values in told.values())
            sizes.setdefault((path.stat().st_size, file.read(HEAD), *beside), []).append(path)
    for alike in (alike for (size, *_), alike in sizes.items() if len(alike) > 1 and size):
        seen: dict[str, Path] = {}
        for path in alike:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "blake2b").hexdigest()
            if digest in seen and path.samefile(seen[digest]):  # to remove one may be to remove the only one
                raise BadData(f"{path} is given twice", "a list, or a link, that names it again", "each file once")
            if digest in seen:
                raise BadData(
                    f"{path} holds the same bytes as {seen[digest]}", "a part that was written twice, by a retry",
                    f"rm {path}",
                )  # fmt: skip
            seen[digest] = path


class Shards(Source):
    """The rows of files one after the other, of the same columns; texts may hold other categories in each.

    Args:
        files: of one kind. target, features, classes, known: as ``open_file`` takes them.
        told: (files,) values of the columns that folders tell.

    Raises:
        BadData: two files are the same; later, naming the file, that it holds other columns.
    """

    file = True

    def __init__(
        self, files: Sequence[Path], target: Sequence[str], features: Any, classes: Sequence[str] = (),
        known: Kinds | None = None, told: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        told = told or {}
        check_copies(files, told)
        self.files, self.counts = list(files), dict[int, int]()
        self.sources: list[Source] = []
        for i, path in enumerate(files):
            try:
                here = {name: values[i] for name, values in told.items()}
                self.sources.append(opened(path, target, features, classes, known, here))
            except BadData as error:
                raise _named(error, path) from None
            if known is None and self.sources[-1].rows != 0:
                first = first_block(self.sources[-1])  # a column without any value is what it was in earlier files
                known = Kinds(first.names, first.category_names)
        rows = [source.rows for source in self.sources]
        self.rows = None if None in rows else sum(r for r in rows if r is not None)
        self.named = self.sources[0].named
        prints = "\n".join(source.fingerprint for source in self.sources)
        self.fingerprint = f"{len(files)} files {hashlib.blake2b(prints.encode(), digest_size=16).hexdigest()}"

    def whole(self) -> Shards:
        """As ``NpySource.whole``."""
        found = copy.copy(self)
        found.sources = [source.whole() for source in self.sources]
        return found

    def blocks(self, first: int = 0) -> Iterator[Block]:
        start, columns = 0, None
        for i, source in enumerate(self.sources):
            count = self.counts.get(i) if source.rows is None else source.rows
            if count is not None and start + count <= first:
                start += count
                continue
            inside = 0
            for block in source.blocks(max(first - start, 0) if count is not None else 0):
                columns = columns or _columns(block)
                if _columns(block) != columns:
                    raise _named(other_columns(_columns(block), columns), self.files[i])
                inside = block.start + len(block.x)
                skip = max(first - start - block.start, 0)
                if skip < len(block.x):
                    whole = replace(block, start=start + block.start)
                    yield whole.taken(slice(skip, None)) if skip else whole
            if source.rows is None:
                self.counts[i] = inside
            start += inside if source.rows is None else source.rows


def _named(error: BadData, path: Path) -> BadData:
    """The error with the name of the file."""
    what = error.what if path.name in error.what else f"{path}: {error.what}"
    return BadData(what, error.cause, error.change)


def _columns(block: Block) -> tuple[list[str], list[str], list[str]]:
    return block.names, block.category_names, block.targets

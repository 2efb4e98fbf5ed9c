"""Moments on disk: one safetensors file, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from hasten.solve.encode import Encoder, quoted
from hasten.solve.kernel import Stats, Sums
from hasten.solve.problems import BadData, CannotWrite, need

if TYPE_CHECKING:
    from hasten.solve.moments import Moments

M = TypeVar("M", bound="Moments")

FORMAT = "hasten.solve.Moments 1"
_STATS = ("rows", "weight", "mean", "scatter")


def save(moments: Moments, path: str | os.PathLike[str], notes: dict[str, str]) -> None:
    """Write ``moments`` with ``notes``; the sums as they are, so that nothing is rounded once more."""
    numpy = need("safetensors.numpy", "saving moments")
    tensors: dict[str, Any] = {"fill": moments.fill}
    if moments._base is not None:
        tensors |= {f"base.{name}": getattr(moments._base, name) for name in (*_STATS, "rest")}
    if moments._most is not None:
        tensors["most"] = moments._most
    if np.any(moments._aside):
        tensors["aside"] = moments._aside
    if moments._sums is not None:
        tensors |= {f"sums.{name}": getattr(moments._sums.sums, name) for name in _STATS}
        tensors["sums.shift"] = moments._sums.shift
    header = {
        "missing": moments.missing,
        "precision": moments.precision,
        "folds": moments.folds,
        "numeric": moments.encoder.numeric,
        "categorical": moments.encoder.categorical,
        "columns": list(moments.encoder.columns),
        "targets": moments.target_names,
        "cells": [_plain(label) for label in moments.cells],
        "shards": [_plain(name) for name in sorted(moments.shards, key=str)],
        "apart_by": moments.apart,
        "rows_seen": moments._rows_seen,
        "quoted": True,  # names of columns that hold "=", in those of their categories
        "apart": True,  # a missing category and the text "missing"
        "notes": notes,
    }
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    text = numpy.save(arrays, metadata={"format": FORMAT, "moments": json.dumps(header)})
    write_bytes(Path(path), text)


def load(kind: type[M], path: str | os.PathLike[str]) -> tuple[M, dict[str, str]]:
    """Moments and notes.

    Raises:
        BadData: the file is missing, torn, or not one of ours.
    """
    safetensors = need("safetensors", "loading moments")
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format', 'unknown')!r}, not {FORMAT!r}")
            header = json.loads(about["moments"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        return _rebuilt(kind, header, tensors), header["notes"]
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise BadData(
            f"cannot read moments from {os.fspath(path)}: {error}",
            "the file is missing, cut short, or was not written by Moments.save",
            "make it again: hasten solve … --save FILE; in Python Moments(X, y).save(path)",
        ) from None


def _rebuilt(kind: type[M], header: dict[str, Any], tensors: dict[str, Any]) -> M:
    named = [*header["numeric"], *header["categorical"]]
    if header["columns"] and not header.get("quoted") and any(quoted(name) != name for name in named):
        raise ValueError("an older version took categories of columns whose names hold = for one another")
    mixed = {f"{quoted(name)}=missing" for name in header["categorical"]} & set(header["columns"])
    if mixed and not header.get("apart"):
        raise ValueError("an older version took missing categories for the text 'missing'")
    out = kind(missing=header["missing"], precision=header["precision"])
    out.folds, out.fill = header["folds"], tensors["fill"]
    out.encoder = Encoder(header["numeric"], header["categorical"], header["columns"])
    out.target_names = header["targets"]
    out.apart = tuple(header["apart_by"]) if "apart_by" in header else _kept_apart(header)
    out.cells = {tuple(label) if out.crossed else label: i for i, label in enumerate(header["cells"])}
    out.shards, out._rows_seen = frozenset(header["shards"]), header["rows_seen"]
    out._most, out._aside = tensors.get("most"), tensors.get("aside", 0.0)
    if "base.mean" in tensors:
        out._base = Stats(*(tensors[f"base.{name}"] for name in _STATS))
        out._base.rest = tensors.get("base.rest", out._base.rest)  # older files have none
    if "sums.mean" in tensors:
        out._sums = Sums(len(header["numeric"]), len(header["targets"]), header["precision"])
        out._sums.sums = Stats(*(tensors[f"sums.{name}"] for name in _STATS))
        out._sums.shift = tensors["sums.shift"]
    return out


def _kept_apart(header: dict[str, Any]) -> tuple[str, ...]:
    """What the cells of an older file keep apart, as far as it tells."""
    if header.get("crossed"):
        return "folds", "groups"
    if header["cells"] in ([], [0]):
        return ()
    return ("folds",) if header["folds"] else ("groups",)


def _plain(label: Any) -> Any:
    """A label as JSON can hold it."""
    if isinstance(label, str | int | float | bool):
        return label
    if isinstance(label, tuple):  # of a fold and a group
        return [_plain(part) for part in label]
    raise BadData(
        f"the label {label!r} of a group, fold or shard is a {type(label).__name__}, which cannot be saved",
        "labels that are neither text nor numbers",
        "groups.astype(str), shard=str(…)",
    )


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name beside ``path``, fsync, rename: never torn, even by kill -9.

    Raises:
        CannotWrite: the disk is full, or the folder may not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, content)
    except OSError as error:
        raise CannotWrite(os.fspath(path), error) from None


def _write(path: Path, content: bytes) -> None:
    if path.exists() and not path.is_file():  # a device or a pipe is written to, never replaced by a file
        with open(path, "wb") as device:
            device.write(content)
        return
    name, file = _temporary(path)
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(name, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def _temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file beside ``path``, with a lock by which ``sweep`` knows that somebody is writing it."""
    while True:
        name = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        file = open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")  # noqa: SIM115  less the umask
        with contextlib.suppress(OSError):  # this file system knows no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if name.exists():
            return name, file
        file.close()  # swept before it was locked


@contextlib.contextmanager
def alone(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other updates from the moments in ``path``: of two at once, the later one would lose the other's rows.

    By the system's own lock on the file, which ends with the process.

    Raises:
        BadData: another one is at work on them.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                held = stack.enter_context(open(path, "rb"))
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(held.fileno()), os.stat(path)):
                    break  # else it was replaced by the other one's at this moment
            except BlockingIOError:
                raise BadData(
                    f"another run adds rows to {os.fspath(path)}", "two updates at once", "wait for the other one"
                ) from None
            except OSError:  # there is no such file, which ``load`` says; or its file system knows no locks
                break
        yield


def sweep(path: Path) -> None:
    """Remove what saves of ``path`` that were killed have left beside it; a file that is being written has a lock."""
    left = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}")
    for name in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if not left.fullmatch(name.name):
            continue
        with contextlib.suppress(OSError), open(name, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name.unlink(missing_ok=True)

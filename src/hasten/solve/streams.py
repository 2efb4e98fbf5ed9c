"""Batches of loaders and generators as a ``Source``; targets and weights that lie beside rows read in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hasten.solve.arrays import in_host, is_table, target_names, targets_of, weights_of
from hasten.solve.columns import Kinds, check_names
from hasten.solve.problems import BadData, need
from hasten.solve.source import Block, Source, check_lengths, open_source


class Scanned:
    """A dataset of Arrow's as batches, read anew for each pass."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(self.dataset.to_batches())


def in_batches(X: Any) -> Any:
    """Arrow's datasets and scanners, and whatever else hands out Arrow's stream (a query of a database), as batches of
    tables; anything else as it is."""
    if is_table(X) or hasattr(X, "__array__") or hasattr(X, "__iter__"):
        return X
    if hasattr(X, "to_batches"):
        return Scanned(X) if hasattr(X, "scanner") else iter(X.to_batches())  # a scanner may have one pass
    if hasattr(X, "__arrow_c_stream__"):
        return need("pyarrow", "reading Arrow's stream").RecordBatchReader.from_stream(X)
    return X


def is_batches(X: Any) -> bool:
    """Whether X holds batches of rows: a loader, an iterator, a list of ``(X, y)`` or of tables and matrices."""
    if isinstance(X, list | tuple):
        first = X[0] if len(X) else None
        if isinstance(first, list | tuple) and len(first):
            first = first[0]
            if isinstance(first, list | tuple) and len(first) and isinstance(first[0], list | tuple):
                return True  # lists of rows, too deep for a matrix
        return isinstance(first, Mapping) or is_table(first) or getattr(first, "ndim", 0) > 1
    matrix = any(hasattr(X, name) for name in ("__array__", "__array_interface__", "shape"))
    return hasattr(X, "__iter__") and not matrix


class BatchSource(Source):
    """Batches of an iterable: ``(X, y)``, ``(X, y, weight)`` or ``X`` alone; a ``DataLoader``, a generator.

    Args:
        target, features: names of columns, where batches are tables.
        known: what these held in earlier rows.
    """

    def __init__(
        self, batches: Any, target: Sequence[str] = (), features: Any = None, known: Kinds | None = None
    ) -> None:
        self.batches, self.target, self.features, self.known = batches, list(target), features, known
        self.again = iter(batches) is not batches
        self._begun = False

    def blocks(self, first: int = 0) -> Iterator[Block]:
        if self._begun and not self.again:
            raise BadData(
                "this iterator was read once and cannot be read again",
                "a generator was given where more than one pass is needed",
                "give an object whose __iter__ starts anew (a DataLoader, a list of batches), or save it to a file",
            )
        self._begun = True
        start, known = 0, self.known
        for batch in self.batches:
            x, y, weight = _parts(batch, self.target, self.features)
            named = {} if y is not None and isinstance(batch, Mapping) else {
                "target": self.target, "features": self.features,
            }  # fmt: skip
            source = open_source(x, y, weight, known=known, **named)
            for block in source.blocks():
                known = known or Kinds(block.names, block.category_names)
                if start >= first:
                    yield replace(block, start=start)
                start += len(block.x)


def _parts(batch: Any, target: Sequence[str], features: Any) -> tuple[Any, Any, Any]:
    if isinstance(batch, Mapping):
        return _columns(batch, target, features)
    if not isinstance(batch, tuple | list):
        return batch, None, None
    if not 1 <= len(batch) <= 3:
        raise BadData(f"a batch has {len(batch)} parts", "more than one input", "(X, y) or (X, y, weight)")
    x, y, weight = (*batch, None, None)[:3]
    return x, y, weight


def _columns(batch: Mapping[Any, Any], target: Sequence[str], features: Any) -> tuple[Any, Any, None]:
    """X and y of a dictionary: a table of its vectors, or its one matrix with what lies beside it.

    Raises:
        BadData: nobody said which part is the target, or there are several matrices.
    """
    names = ", ".join(map(str, batch))
    check_names(list(batch), target, features or [])
    chosen = [name for name in (features or batch) if name not in target]
    wide = [name for name in chosen if getattr(batch[name], "ndim", 1) > 1]
    if not target or (wide and len(chosen) > 1):
        raise BadData(
            f"a batch is a {type(batch).__name__} with the keys {names}",
            "a data set that gives its items as dictionaries" if not target else f"{', '.join(map(str, wide))} "
            "are matrices beside others",
            'the target\'s key: y="y"; or ((batch["x"], batch["y"]) for batch in loader), or an object whose __iter__ '
            "does so",
        )  # fmt: skip
    if wide:
        given = [targets_of(in_host(batch[name])) for name in target]
        return batch[wide[0]], np.concatenate(given, axis=1), None
    columns = {str(name): in_host(batch[name]) for name in (*chosen, *target)}
    return need("pyarrow", "a batch of columns").table(columns), None, None


class Beside(Source):
    """The rows of a source with targets or weights that lie beside it, one a row in the order of its rows."""

    def __init__(self, source: Source, y: Any, weight: Any) -> None:
        self.source, self.rows, self.again, self.file = source, source.rows, source.again, source.file
        self.fingerprint, self.named = source.fingerprint, source.named
        self.y, self.weight = targets_of(y), weights_of(weight)
        self.targets = target_names(self.y, y)
        if self.rows is not None:
            check_lengths(self.rows, self.y, self.weight)

    def blocks(self, first: int = 0) -> Iterator[Block]:
        done = first
        for block in self.source.blocks(first):
            done = block.start + len(block.x)
            yield self._joined(block, slice(block.start, done))
        check_lengths(done, self.y, self.weight)

    def _joined(self, block: Block, here: slice) -> Block:
        for what, inside, given in (("y", block.y, self.y), ("sample_weight", block.weight, self.weight)):
            if inside is not None and given is not None:
                raise BadData(
                    f"{what} was given, and these rows bring their own", "batches (X, y), or a file with a target",
                    f"one of them: leave {what} out, or give rows without it",
                )  # fmt: skip
            if given is not None and len(given) < here.stop:
                raise BadData(
                    f"X has {here.stop} rows or more, {what} has {len(given)}", "rows of other data", "one each a row"
                )
        if self.y is not None:
            block = replace(block, y=self.y[here], targets=self.targets)
        return block if self.weight is None else replace(block, weight=self.weight[here])


def beside(source: Source, y: Any, weight: Any) -> Source:
    """The source itself where nothing lies beside it.

    Raises:
        BadData: other lengths; or rows that come in another order each time, as those of a loader that shuffles.
    """
    if y is None and weight is None:
        return source
    check_order(source)
    return Beside(source, y, weight)


def check_order(source: Source) -> None:
    """Raises: BadData: rows come in an order of their own, as those of a loader that shuffles: nothing lies beside."""
    loader = getattr(source, "batches", None)
    batches = getattr(loader, "batch_sampler", None)
    for sampler, known in (
        (getattr(loader, "sampler", None), "SequentialSampler"),
        (batches, "BatchSampler"),
        (getattr(batches, "sampler", None), "SequentialSampler"),
    ):
        if sampler is None or type(sampler).__name__ == known:
            continue
        raise BadData(
            f"a loader with a {type(sampler).__name__} gives its rows in an order of its own",
            "shuffle=True, where y, sample_weight or labels lie beside the loader",
            "shuffle=False, or batches (X, y, weight)",
        )

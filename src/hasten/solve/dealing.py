"""How rows are dealt to folds and groups, and how missing values are replaced after the pass."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from hasten.solve.kernel import Array, Floats, Stats
from hasten.solve.problems import BadData
from hasten.solve.source import Block


def fold_numbers(rows: int, folds: int) -> Array:
    """(rows,) the fold of each row when rows are dealt in contiguous parts (``KFold`` without shuffling)."""
    if folds < 2 or rows < folds:
        raise BadData(
            f"n_samples = {rows} rows cannot be dealt to {folds} folds", "too few rows", "folds between 2 and the rows"
        )
    sizes = np.full(folds, rows // folds)
    sizes[: rows % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def imputed_fills(stats: Stats, pairs: Iterable[tuple[int, int]], dense: int, fill: Floats) -> Floats:
    """(numeric features,) means of the values that are not missing."""
    out = fill.copy()
    total = stats.pooled()
    for j, i in pairs:
        missing = total.mean[0, dense + i]
        if missing < 1:
            out[j] = (total.mean[0, j] - missing * fill[j]) / (1 - missing)
    return out


def refilled(stats: Stats, pairs: Iterable[tuple[int, int]], dense: int, change: Floats) -> Stats:
    """The same data with missing values replaced by other numbers: column j plus ``change[j]`` times its indicator."""
    pairs = [(j, dense + i) for j, i in pairs if change[j]]
    if not pairs:
        return stats
    mean, scatter = stats.mean.copy(), stats.scatter.copy()
    for j, i in pairs:
        mean[:, j] += change[j] * mean[:, i]
        scatter[:, j, :] += change[j] * scatter[:, i, :]
        scatter[:, :, j] += change[j] * scatter[:, :, i]
    return Stats(stats.rows, stats.weight, mean, scatter)


def parts_of(labels: Array) -> Iterable[tuple[Hashable, Any]]:
    """Labels with the rows that bear them; a slice where these are neighbours, which copies nothing."""
    values, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(counts)
    for value, end, count in zip(values.tolist(), ends, counts, strict=True):
        rows = order[end - count : end]
        neighbours = rows[-1] - rows[0] + 1 == count
        yield value, slice(int(rows[0]), int(rows[-1]) + 1) if neighbours else rows


def means_of(x: Array) -> Floats:
    """(features,) means of what is there; 0 where nothing is."""
    if len(x):
        with np.errstate(over="ignore", invalid="ignore"):
            whole: Floats = x.mean(axis=0, dtype=np.float64)
        if not np.isnan(whole).any():  # as nearly always, in one pass instead of five
            return whole
    there = ~np.isnan(x)
    found: Floats = np.where(there, x, 0).sum(axis=0, dtype=np.float64) / np.maximum(there.sum(axis=0), 1)
    return found


def labels_of(block: Block, fold: Any, groups: Any, rows: int | None, folds: int, seen: int) -> Array | None:
    """(rows,) the fold or group of each row of a block; None where all belong together.

    Args:
        fold, groups: (all rows,) labels, or None. rows: of the block's source; None where unknown.
        folds: how many to deal rows to, 0 for none. seen: rows of earlier blocks.
    """
    given = fold if fold is not None else groups
    if fold is not None and groups is not None:
        raise BadData("folds and groups were both given", "", "keep one Moments of each")
    n = len(block.x)
    if given is not None:
        labels = np.asarray(given)[block.start : block.start + n]
        if len(labels) != n or (rows is not None and len(np.asarray(given)) != rows):
            raise BadData(
                f"{len(np.asarray(given))} labels of folds or groups for {rows or 'more'} rows",
                "labels of another table",
                "one label a row",
            )
        return labels
    if folds:
        if rows is not None:
            return fold_numbers(rows, folds)[block.start : block.start + n]
        return np.arange(seen, seen + n) % folds
    return None

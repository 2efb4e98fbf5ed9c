"""How rows are dealt to folds and groups, and how missing values are replaced after the pass."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from hasten.solve.arrays import absent, in_host, is_masked
from hasten.solve.kernel import Array, Floats, Stats, two_sum
from hasten.solve.problems import BadData
from hasten.solve.source import Block, Source
from hasten.solve.streams import check_order


def fold_numbers(rows: int, folds: int, first: int = 0, last: int | None = None) -> Array:
    """(last - first,) the fold of each row when rows are dealt in contiguous parts (``KFold`` without shuffling)."""
    if rows < folds:
        raise BadData(
            f"n_samples = {rows} rows cannot be dealt to {folds} folds", "too few rows", "no more folds than rows"
        )
    size, longer = divmod(rows, folds)  # folds of size + 1 come first
    number = np.arange(first, rows if last is None else last)
    behind = number - longer * (size + 1)
    return np.where(behind < 0, number // (size + 1), longer + behind // size)


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
    mean, scatter, rest = stats.mean.copy(), stats.scatter.copy(), stats.rest.copy()
    for j, i in pairs:
        mean[:, j], lost = two_sum(mean[:, j], change[j] * mean[:, i])
        rest[:, j] += change[j] * rest[:, i] + lost
        scatter[:, j, :] += change[j] * scatter[:, i, :]
        scatter[:, :, j] += change[j] * scatter[:, :, i]
    return Stats(stats.rows, stats.weight, mean, scatter, rest)


def targets_last(features: int, targets: int, sparse: int) -> Array:
    """(columns,) where [X | Y] has its columns among numbers, targets and sparse columns."""
    dense = np.arange(features - sparse + targets)
    behind = np.arange(len(dense), len(dense) + sparse)
    return np.concatenate([dense[: features - sparse], behind, dense[features - sparse :]])


def parts_of(labels: Sequence[Array]) -> Iterable[tuple[Hashable, Any]]:
    """Labels with the rows that bear them; a slice where these are neighbours, which copies nothing.

    Args:
        labels: (rows,) each; of two, the label is the pair.
    """
    values, inverse = _levels(labels[0])
    for more in labels[1:]:
        inner, codes = _levels(more)
        crossed, inverse = np.unique(inverse * len(inner) + codes, return_inverse=True)
        values = [(values[c // len(inner)], inner[c % len(inner)]) for c in crossed.tolist()]
    counts = np.bincount(inverse, minlength=len(values))
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(counts)
    for value, end, count in zip(values, ends, counts, strict=True):
        rows = order[end - count : end]
        neighbours = rows[-1] - rows[0] + 1 == count
        yield value, slice(int(rows[0]), int(rows[-1]) + 1) if neighbours else rows


def dated(labels: Array) -> Array:
    """Times in one unit: those in nanoseconds become other labels than those in seconds."""
    return labels.astype("datetime64[us]") if labels.dtype.kind == "M" else labels


def as_array(given: Any) -> Array:
    """Labels as an array, times in one unit. Those of a list stay what they are: of several kinds NumPy makes texts, of
    whole numbers below and beyond 2**63 floats."""
    given = in_host(given)
    if is_masked(given):
        given = [
            None if hidden else label
            for label, hidden in zip(given.data.tolist(), np.ma.getmaskarray(given), strict=True)
        ]
    if "dictionary" in str(getattr(given, "type", "")):  # of Arrow, whose NumPy array has other labels for missing ones
        given = given.to_pylist()
    found = np.asarray(given)
    changed = isinstance(given, list | tuple) and found.ndim == 1 and found.dtype.kind in "USf"
    return dated(label_array(given) if changed else found)


def label_array(labels: Sequence[Any]) -> Array:
    """(labels,) the labels as they are: of several kinds NumPy would make texts."""
    found = np.asarray(labels)
    return found if found.ndim == 1 and found.tolist() == list(labels) else np.fromiter(labels, object, len(labels))


def _levels(labels: Array) -> tuple[list[Any], Array]:
    """Different labels, and each row's number among them."""
    try:
        values, inverse = np.unique(labels, return_inverse=True)
    except TypeError:  # of several kinds, which cannot be sorted
        place: dict[Any, int] = {}
        codes = [place.setdefault(label, len(place)) for label in labels.tolist()]
        return list(place), np.array(codes)
    return values.tolist(), inverse


def as_labels(given: Any, what: str, source: Source) -> Array | None:
    """(rows,) labels.

    Args:
        what: folds or groups, for the error. source: of the rows.

    Raises:
        BadData: another shape, one is missing, or the rows come in an order of their own.
    """
    if given is None:
        return None
    check_order(source)
    labels = as_array(given)
    if labels.ndim != 1:
        raise BadData(f"{what} has the shape {labels.shape}", "labels of several columns", "one label a row, as text")
    missing = np.zeros(len(labels), bool)
    if labels.dtype == object:
        missing[:] = [absent(v) for v in labels]
    elif labels.dtype.kind in "fM":
        missing = np.isnan(labels)
    if missing.any():
        raise BadData(
            f"{what} holds no label for row {int(np.argmax(missing))}", "a missing value among the keys",
            'a label of their own for such rows, as by fillna("none"), or drop them',
        )  # fmt: skip
    return labels


def along(stats: Stats, labels: Sequence[Any], which: int) -> tuple[list[Hashable], Stats]:
    """Cells that share their fold (``which`` 0) or their group (1) as one, and what they share.

    Args:
        labels: (fold, group) of each cell.
    """
    cells: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels):
        cells.setdefault(label[which], []).append(i)
    pooled = [stats.some(at).pooled() for at in cells.values()]
    names = ["rows", "weight", "mean", "scatter", "rest"] + ["unsure"] * (stats.unsure is not None)
    return list(cells), Stats(*(np.concatenate([getattr(s, name) for s in pooled]) for name in names))


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


def labels_of(
    block: Block, fold: Array | None, groups: Array | None, rows: int | None, folds: int, seen: int
) -> dict[str, Array]:
    """(rows,) the fold and the group of each row of a block, as far as these are kept apart: "folds", "groups".

    Args:
        fold, groups: (all rows,) labels, or None. rows: of the block's source; None where unknown.
        folds: how many to deal rows to, 0 for none. seen: rows of earlier blocks.
    """
    n = len(block.x)
    found = {}
    if fold is not None:
        found["folds"] = _given(fold, block, rows)
    elif folds and rows is not None:
        found["folds"] = fold_numbers(rows, folds, block.start, block.start + n)
    elif folds:
        found["folds"] = np.arange(seen, seen + n) % folds
    return found if groups is None else found | {"groups": _given(groups, block, rows)}


def checked_folds(folds: Any) -> int:
    """How many folds to deal rows to; 0 for none, and where each row's fold is given.

    Raises:
        BadData: no whole number, or a negative one.
    """
    if folds is None or np.ndim(folds):
        return 0
    if not isinstance(folds, int | np.integer) or folds < 0:
        raise BadData(f"folds={folds!r}", "a typing error", "folds=5, or the fold number of each row")
    return int(folds)


def mixed_labels(here: Sequence[str], before: Sequence[str]) -> BadData:
    """The error where rows are kept apart in another way than earlier ones. Args: what is: "folds", "groups", both."""
    new, old = (" and ".join(kept) or "neither folds nor groups" for kept in (here, before))
    return BadData(
        f"rows with labels of {new} cannot join rows with labels of {old}", "folds= or groups= once only",
        "the same folds= and groups= for all rows",
    )  # fmt: skip


def _given(labels: Array, block: Block, rows: int | None) -> Array:
    end = block.start + len(block.x)
    check_labels(max(end, len(labels)) if rows is None else rows, labels)
    return labels[block.start : end]


def check_labels(rows: int, *labels: Array | None) -> None:
    """Raises: BadData: there are not as many labels as rows."""
    for given in labels:
        if given is not None and len(given) != rows:
            raise BadData(
                f"{len(given)} labels of folds or groups for {rows} rows", "labels of another table", "one label a row"
            )


def check_classes(y: Any) -> None:
    """Raises: BadData: labels of classes are texts and numbers, of which NumPy makes texts, or one is missing."""
    if not (isinstance(y, list | tuple) or str(getattr(y, "dtype", "")) == "object"):
        return
    values = np.asarray(y, dtype=object).ravel().tolist()
    missing = next((i for i, value in enumerate(values) if absent(value)), None)
    if missing is not None:
        raise BadData(f"y holds no label for row {missing}", "a missing value", "drop such rows")
    text = next((value for value in values if isinstance(value, str)), None)
    other = next((value for value in values if not isinstance(value, str)), None)
    if text is not None and other is not None:
        raise BadData(
            f"y holds texts and numbers: {text!r} and {other!r}", "labels of two sources", "[str(label) for label in y]"
        )

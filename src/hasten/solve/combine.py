"""Adding and removing moments: cells and columns that only one of both has are made room for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hasten.solve.dealing import mixed_labels, refilled
from hasten.solve.encode import Encoder
from hasten.solve.kernel import Stats, merge
from hasten.solve.problems import BadData

if TYPE_CHECKING:
    from hasten.solve.moments import Moments


def combined(a: Moments, b: Moments, sign: float) -> Moments:
    """The moments of both together, or (``sign`` -1) of ``a`` without ``b``; shards are left to the caller.

    Raises:
        BadData: their columns differ.
    """
    if a.p == 0 and not a._started:
        a = a._like(b)
    if b.p == 0 and not b._started:
        b = b._like(a)
    ours = (a.encoder.numeric, a.encoder.categorical, a.target_names)
    theirs = (b.encoder.numeric, b.encoder.categorical, b.target_names)
    if ours != theirs:
        check_kinds(theirs, ours)
        raise BadData(
            f"moments of different columns: {shortened(ours[0] + ours[1])} and {shortened(theirs[0] + theirs[1])}",
            "shards of different tables, or columns in another order",
            "select the same columns in the same order from every shard",
        )
    if a.cells and b.cells and a.apart != b.apart:
        raise mixed_labels(b.apart, a.apart)
    out = a._like(a if a.cells else b)
    source = a if a.encoder.pairs() or not b.encoder.pairs() else b  # of no missing value any fill is right
    out.encoder, out.fill = Encoder(*ours[:2], list(a.encoder.columns)), source.fill.copy()
    out.cells = dict(a.cells)
    out.folds, out._rows_seen = a.folds or b.folds, a._rows_seen + int(sign) * b._rows_seen
    out.precision = min(a.precision, b.precision)  # of both: some products may be float32
    for name in b.encoder.columns:
        out.encoder.place(name)
    for label in b.cells:
        out._cell(label)
    columns, cells = out.dense + len(out.encoder.columns), max(len(out.cells), 1)
    left = refilled(a._merged(), a.encoder.pairs(), a.dense, out.fill - a.fill).grown(cells, columns)
    right = refilled(b._merged(), b.encoder.pairs(), b.dense, out.fill - b.fill)
    right = _placed(right, b, out, cells, columns)
    out._base = merge(left, right, sign)
    if sign < 0:
        _check_removed(left, right, out._base)
    return out


def check_part(whole: Moments, part: Moments) -> None:
    """Raises: BadData: ``part`` holds shards that ``whole`` does not, or more rows."""
    if not part.shards <= whole.shards:
        raise BadData(
            f"the shards {shortened(sorted(part.shards - whole.shards, key=str))} were never added",
            "they were removed before, or belong to other moments",
            "remove only what was added",
        )
    if part.n > whole.n:
        raise BadData(
            f"{part.n:.0f} rows cannot be removed from {whole.n:.0f}",
            "they were removed before",
            "remove only what was added",
        )


def _check_removed(whole: Stats, part: Stats, left: Stats) -> None:
    """Raises: BadData: a cell would keep fewer rows than none, or less scatter than none."""
    before, after = (np.diagonal(s.scatter, axis1=1, axis2=2) for s in (whole, left))
    rounding = 1e-9 * before + 1e-13 * whole.weight[:, None] * whole.mean**2
    if (part.rows > whole.rows).any() or (after < -rounding).any():
        raise BadData(
            "what remained would be no moments of any rows",
            "rows that were never added, or were in other folds or groups",
            "remove only what was added, with the labels it had",
        )  # fmt: skip


def _placed(stats: Stats, own: Moments, out: Moments, cells: int, columns: int) -> Stats:
    """``stats`` with the cells and sparse columns of ``own`` where ``out`` has them."""
    to = np.array([*range(own.dense), *(own.dense + out.encoder.columns[name] for name in own.encoder.columns)])
    at = np.array([out.cells[label] for label in own.cells] or [0])
    found = Stats.zeros(cells, columns)
    found.rows[at], found.weight[at] = stats.rows, stats.weight
    found.mean[np.ix_(at, to)], found.rest[np.ix_(at, to)] = stats.mean, stats.rest
    found.scatter[np.ix_(at, to, to)] = stats.scatter
    return found


def check_kinds(here: Sequence[Sequence[str]], before: Sequence[Sequence[str]]) -> None:
    """Raises: BadData: a column is of numbers in one and of texts in the other; ``here``, ``before`` as below."""
    for kind, other, at in (("numbers", "texts", 0), ("texts", "numbers", 1)):
        if changed := [name for name in here[at] if name in before[1 - at]]:
            raise BadData(
                f"column {changed[0]!r} holds {kind} in these rows, and {other} in earlier ones",
                "a column that was read as another kind, or a text among its numbers",
                f"{changed[0]!r} as {other} here, too",
            )


def other_columns(here: Sequence[Sequence[str]], before: Sequence[Sequence[str]]) -> BadData:
    """The error for rows of another table.

    Args:
        here, before: names of numbers, of categories and of targets.
    """
    check_kinds(here, before)
    return BadData(
        f"these rows have the columns {shortened([*here[0], *here[1]])} and the targets {shortened(here[2])}; "
        f"earlier ones had {shortened([*before[0], *before[1]])} and {shortened(before[2])}",
        "a shard of another table, or columns in another order",
        "select the same columns in the same order from every shard",
    )


def duplicate(names: Iterable[str]) -> BadData:
    """The error for shards that are in already."""
    return BadData(
        f"the shards {shortened(sorted(names, key=str))} were added before",
        "a job was retried after its first attempt had been counted",
        "drop the second copy; m.shards says what is in",
    )


def shortened(names: Sequence[str]) -> str:
    """The first few of many names, and how many there are."""
    shown = ", ".join(map(str, names[:6]))
    return f"[{shown}{', …' if len(names) > 6 else ''}] ({len(names)})"

"""Adding and removing moments: cells and columns that only one of both has are made room for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hasten.solve.arrays import nameless
from hasten.solve.dealing import mixed_labels, refilled
from hasten.solve.encode import Encoder
from hasten.solve.kernel import Array, Floats, Stats, merge, settle
from hasten.solve.problems import BadData, FewDigits

if TYPE_CHECKING:
    from hasten.solve.moments import Moments

ROUNDING = {  # by what part of the whole's squares around the mean of what remains that is off, at most
    "float64": 3e-14,  # measured: 2.3e-14 in 1500 cases, of one removal to forty, weighted and far away
    "float32": 3e-6,  # products in float32: 2.6e-6 in 700
}
FEW = 1e-4  # relative error of a remaining scatter from which on it is told


def combined(a: Moments, b: Moments, sign: float) -> Moments:
    """The moments of both together, or (``sign`` -1) of ``a`` without ``b``; shards are left to the caller.

    Raises:
        BadData: their columns differ.
    """
    if a.p == 0 and not a._started:
        a = _like(b)
    if b.p == 0 and not b._started:
        b = _like(a)
    ours = (a.encoder.numeric, a.encoder.categorical, a.target_names)
    theirs = (b.encoder.numeric, b.encoder.categorical, b.target_names)
    named = common_names(b.target_names, a.target_names)
    if ours[:2] != theirs[:2] or named is None:
        check_kinds(theirs, ours)
        raise BadData(
            f"moments of different columns: {_about(ours)}, and {_about(theirs)}",
            "shards of different tables, or columns in another order",
            "select the same columns in the same order from every shard",
        )
    if a.cells and b.cells and a.apart != b.apart:
        raise mixed_labels(b.apart, a.apart)
    out = _like(a if a.cells else b)
    source = a if a.encoder.pairs() or not b.encoder.pairs() else b  # of no missing value any fill is right
    out.encoder, out.fill = Encoder(*ours[:2], list(a.encoder.columns)), source.fill.copy()
    out.cells, out.target_names = dict(a.cells), named
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
    out._base, out._aside = merge(left, right, sign), a.shifted + b.shifted
    if sign < 0 or a._most is not None or b._most is not None:
        now = _around(left, out._base) if sign < 0 else None
        out._most = most = _most(a, now, out, cells, columns) + _most(b, None, out, cells, columns)
        if sign < 0:
            rounding = ROUNDING[out.precision] * most
            _check_removed(left, right, out._base, rounding)
            _tell_lost(out, out._base, rounding)
    return out


def _like(other: Moments) -> Moments:
    """Empty moments of the columns, cells and settings of ``other``."""
    out = type(other)(missing=other.missing, precision=other.precision)
    out.folds, out.apart = other.folds, other.apart
    out.encoder = Encoder(other.encoder.numeric, other.encoder.categorical, list(other.encoder.columns))
    out.target_names, out.fill, out.cells = list(other.target_names), other.fill.copy(), dict(other.cells)
    return out


def of_columns(m: Moments, kept: Array, targets: Sequence[int] | None = None) -> Moments:
    """Moments of some columns of X, all of which hold numbers, and of some targets; all cells as one.

    Args:
        kept: (p,) booleans. targets: their places; None for all.
    """
    chosen = np.arange(m.q) if targets is None else np.asarray(targets)
    at = np.append(np.flatnonzero(kept), m.p + chosen)
    out = type(m)(precision=m.precision)
    out.encoder = Encoder([name for name, k in zip(m.names, kept, strict=True) if k])
    out.target_names, out.fill, out.cells = [m.targets[j] for j in chosen], np.zeros(int(kept.sum())), {0: 0}
    out._base, out._aside = m.total.taken(at), np.broadcast_to(m.shifted, (m.dense,))[at]
    return out


def common_names(here: list[str], before: list[str]) -> list[str] | None:
    """What targets are called, of which several may have no names in one of two places; None where they are others."""
    if here == before or len(here) != len(before):
        return before if here == before else None
    plain = nameless(len(before)) if len(before) > 1 else None
    return before if here == plain else here if before == plain else None


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


def _check_removed(whole: Stats, part: Stats, left: Stats, rounding: Floats) -> None:
    """Raises: BadData: a cell would keep fewer rows than none, or less scatter than none."""
    before, after = (np.diagonal(s.scatter, axis1=1, axis2=2) for s in (whole, left))
    rounding = 1e-9 * before + 10 * rounding + 1e-13 * whole.weight[:, None] * whole.mean**2
    if (part.rows > whole.rows).any() or (after < -rounding).any():
        raise BadData(
            "what remained would be no moments of any rows",
            "rows that were never added, or were in other folds or groups",
            "remove only what was added, with the labels it had",
        )  # fmt: skip


def unsettled(stats: Stats, most: Floats, precision: str) -> Stats:
    """``stats`` with what of them may be rounding since rows were removed.

    Args:
        most: (cells, columns) squares that this is relative to; of cells and columns that there were then.
    """
    unsure, scatter = np.zeros_like(stats.mean), stats.scatter.copy()
    unsure[: most.shape[0], : most.shape[1]] = ROUNDING[precision] * most
    settle(scatter, unsure)
    return replace(stats, scatter=scatter, unsure=unsure)


def _tell_lost(m: Moments, left: Stats, rounding: Floats) -> None:
    """Warn where what remains of a column is known to few digits; what is rounding alone becomes 0, as of a constant.

    Args:
        left: what ``m`` holds. rounding: (cells, columns) of sums of squares.
    """
    after = np.diagonal(left.scatter, axis1=1, axis2=2)
    few = (left.rows > 1)[:, None] & (rounding > FEW * after)
    gone = (rounding > 0) & (left.weight > 0)[:, None] & (after <= rounding)
    names = [*m.encoder.numeric, *m.target_names]
    told = np.flatnonzero(few[:, : m.dense].any(axis=0)).tolist()
    share = float((rounding / np.maximum(after, rounding))[few].max(initial=0.0))
    settle(left.scatter, np.where(gone, rounding, 0.0))
    k, j = np.nonzero(gone[:, m.dense :])  # of zeros and ones alike the mean is one of both
    left.mean[k, m.dense + j], left.rest[k, m.dense + j] = np.round(left.mean[k, m.dense + j]) + 0.0, 0.0
    if len(told):
        known = f"are off by up to {share:.0e} of themselves" if share < 1 else "cannot be told from nought"
        warnings.warn(
            f"nearly everything was removed: squares of what remains of {shortened([names[j] for j in told])} {known}. "
            "Add up anew what is to remain.",
            FewDigits, stacklevel=4,
        )  # fmt: skip


def _around(whole: Stats, part: Stats) -> Floats:
    """(cells, columns) sums of squares of ``whole`` around the means of ``part``."""
    off = np.where((part.weight > 0)[:, None], whole.mean - part.mean, 0.0)
    found: Floats = np.diagonal(whole.scatter, axis1=1, axis2=2) + whole.weight[:, None] * off**2
    return found


def _most(m: Moments, now: Floats | None, out: Moments, cells: int, columns: int) -> Floats:
    """(cells, columns) the sums of squares that rounding in ``m`` is relative to, where ``out`` has its columns.

    Args:
        now: the present ones, placed already; None where nothing is taken away from them.
    """
    found = np.zeros((cells, columns))
    if m._most is not None:
        at, to = _places(m, out)
        k, d = m._most.shape  # columns that were found later lie behind
        found[np.ix_(at[:k], to[:d])] = m._most
    return found if now is None else np.maximum(found, now)


def _placed(stats: Stats, own: Moments, out: Moments, cells: int, columns: int) -> Stats:
    """``stats`` with the cells and sparse columns of ``own`` where ``out`` has them."""
    at, to = _places(own, out)
    found = Stats.zeros(cells, columns)
    found.rows[at], found.weight[at] = stats.rows, stats.weight
    found.mean[np.ix_(at, to)], found.rest[np.ix_(at, to)] = stats.mean, stats.rest
    found.scatter[np.ix_(at, to, to)] = stats.scatter
    return found


def _places(own: Moments, out: Moments) -> tuple[Array, Array]:
    """Where ``out`` has the cells and columns of ``own``."""
    to = np.array([*range(own.dense), *(own.dense + out.encoder.columns[name] for name in own.encoder.columns)])
    return np.array([out.cells[label] for label in own.cells] or [0]), to


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
        f"these rows have the columns {_about(here)}; earlier ones had {_about(before)}",
        "a shard of another table, or columns in another order",
        "select the same columns in the same order from every shard",
    )


def _about(names: Sequence[Sequence[str]]) -> str:
    targets = f" and the targets {shortened(names[2])}" if names[2] else ""
    return f"{shortened([*names[0], *names[1]])}{targets}"


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

"""The inner loop of everything here: one block of rows added to shifted sums of products.

A block is shifted by values near its mean before it is multiplied with itself, so offsets (timestamps, prices) cost no
digits. A compiled kernel shifts and multiplies in one go (``solve.gram``, which says what is summed in which order);
where there is none, BLAS ``syrk`` does (``solve.products``), columns whose means are no larger than their spreads as
they lie, without a copy. A block's sums are added to those before it in float64. Should later blocks lie far from the
shift, the sums so far are set aside as mean and scatter and a new shift is taken: what is lost to offsets stays within
``FAR`` units of rounding whatever the order of the rows.

Shifted sums: Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The American Statistician 37(3),
1983, p. 242-247; merging by the same authors' pairwise formula (p. 243).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve import gram
from hasten.solve.problems import BadData
from hasten.solve.products import Array as Array
from hasten.solve.products import Floats as Floats
from hasten.solve.products import Products, Ready

BLOCK_BYTES = 5 << 18  # a block stays in the second-level cache while it is shifted, added up and multiplied
UNIT_ROWS = 384  # OpenBLAS cuts products into panels of 256 to 384 rows, and those of 512 into two poor ones
MOST_ROWS = 8064  # above, nothing is gained
PIECE_BYTES = 32 << 20  # added at a time: whether they lie far from the shift is looked at once
WHOLE = 4  # times as many where they are read as they lie: to add a product up takes as long as 1000 rows
PIECE_ROWS = (8192, 65536)  # of a piece: at least, so that a few threads share it, and at most
NEAR = 1.0  # squared mean, in variances of the first block, up to which no shift is needed
FAR = 100.0  # squared distance of a block's mean from the shift, in variances, at which a new shift is taken


def block_rows(columns: int, itemsize: int = 8) -> int:
    """Rows of a block so that it stays in cache."""
    units = BLOCK_BYTES // max(columns * itemsize, 1) // UNIT_ROWS
    return min(max(units, 1) * UNIT_ROWS, MOST_ROWS)


def piece_rows(columns: int, copied: bool = True) -> int:
    """Rows that are added at a time; more of them where no copy is made."""
    least, most = PIECE_ROWS
    size = PIECE_BYTES * (1 if copied else WHOLE)
    return min(max(size // max(columns * 8, 1) // least * least, least), most)


@dataclass
class Stats:
    """Finished moments of ``cells`` parts of the data (one, or one a fold or a group).

    Attributes:
        rows: (cells,) rows of positive weight.
        weight: (cells,) sums of weights.
        mean: (cells, columns).
        scatter: (cells, columns, columns) sums of weighted products of deviations from the cell's mean.
        rest: (cells, columns) what rounding took from the means: at an offset of 1e8 that is 1e-8, which would cost
            the scatter of merged cells, a sum over differences of means, half of its digits.
        unsure: (cells, columns) sums of squares that may be nothing but rounding, where rows were removed; None where
            none were.
    """

    rows: Floats
    weight: Floats
    mean: Floats
    scatter: Floats
    rest: Any = None
    unsure: Any = None

    def __post_init__(self) -> None:
        if self.rest is None:
            self.rest = np.zeros_like(self.mean)

    @classmethod
    def zeros(cls, cells: int, columns: int) -> Stats:
        """Moments of no rows."""
        return cls(np.zeros(cells), np.zeros(cells), np.zeros((cells, columns)), np.zeros((cells, columns, columns)))

    def grown(self, cells: int, columns: int) -> Stats:
        """With empty cells, and with columns that were zero in every row so far, added behind."""
        k, d = self.mean.shape
        if (k, d) == (cells, columns):
            return self
        out = Stats.zeros(cells, columns)
        out.rows[:k], out.weight[:k] = self.rows, self.weight
        out.mean[:k, :d], out.scatter[:k, :d, :d], out.rest[:k, :d] = self.mean, self.scatter, self.rest
        return out

    def some(self, cells: Any) -> Stats:
        """Some of the cells."""
        unsure = None if self.unsure is None else self.unsure[cells]
        return Stats(
            self.rows[cells], self.weight[cells], self.mean[cells], self.scatter[cells], self.rest[cells], unsure
        )  # fmt: skip

    def taken(self, order: Array) -> Stats:
        """The same with its columns in another order."""
        if np.array_equal(order, np.arange(self.mean.shape[1])):
            return self
        scatter = self.scatter[:, order][:, :, order]
        unsure = None if self.unsure is None else self.unsure[:, order]
        return Stats(self.rows, self.weight, self.mean[:, order], scatter, self.rest[:, order], unsure)

    def pooled(self) -> Stats:
        """All cells as one.

        One formula for all of them: the cells' scatters plus the scatter of their means.
        """
        if len(self.weight) == 1:
            return self
        weight = self.weight.sum()
        first = self.mean[int(np.argmax(self.weight))]
        off = (self.mean - first) + self.rest
        middle = (self.weight @ off) / weight if weight > 0 else off[0]
        mean, rest = two_sum(first, middle)
        away = (off - middle) * np.sqrt(np.maximum(self.weight, 0.0))[:, None]
        scatter = self.scatter.sum(axis=0) + away.T @ away
        unsure = None if self.unsure is None else self.unsure.sum(axis=0)
        settle(scatter, unsure)
        unsure = None if unsure is None else unsure[None]
        return Stats(self.rows.sum(keepdims=True), np.array([weight]), mean[None], scatter[None], rest[None], unsure)


def settle(scatter: Floats, unsure: Any) -> None:
    """Set to nought, in place, columns whose squares may be rounding: what is left of a constant after a removal would
    pass for a column that varies, and get a coefficient of 1e15.

    Args:
        scatter: (…, columns, columns). unsure: (…, columns) as in ``Stats``.
    """
    if unsure is None:
        return
    squares = np.diagonal(scatter, axis1=-2, axis2=-1)
    for at in np.argwhere((unsure > 0) & (squares <= unsure)).tolist():
        part = scatter[tuple(at[:-1])]
        part[at[-1]], part[:, at[-1]] = 0.0, 0.0


def two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """The rounded sum, and what rounding took from it (Knuth, The Art of Computer Programming 2, 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def merge(a: Stats, b: Stats, sign: float = 1.0) -> Stats:
    """The moments of both together, or (``sign`` -1) of ``a`` without ``b``, cell by cell.

    Args:
        a, b: of the same cells and columns.
    """
    weight = a.weight + sign * b.weight
    if sign < 0:  # what remains after the last row is removed is rounding, not data
        weight = np.where(weight > 1e-12 * np.maximum(a.weight, 1e-300), weight, 0.0)
    safe = np.where(weight > 0, weight, 1.0)
    away = (b.mean - a.mean) + (b.rest - a.rest)
    mean, rest = two_sum(a.mean, a.rest + away * (sign * b.weight / safe)[:, None])
    alone = (a.weight <= 0) & (weight > 0)  # by the formula the rest would be rounded away
    mean[alone], rest[alone] = b.mean[alone], b.rest[alone]
    factor = sign * a.weight * b.weight / safe
    scatter = a.scatter + sign * b.scatter
    for k in np.flatnonzero(factor):
        scatter[k] += (factor[k] * away[k])[:, None] * away[k]
    empty = weight <= 0
    mean[empty], scatter[empty], rest[empty] = 0.0, 0.0, 0.0
    return Stats(a.rows + sign * b.rows, weight, mean, scatter, rest)


class Sums:
    """Sums of products around one shift a cell.

    Columns are dense ones (features, then targets), followed by sparse ones (indicators of missing values and of
    categories), which are 0 or 1 and are not shifted.

    Args:
        features, targets: numbers of dense columns.
        precision: "float64", or "float32" for products in float32 that are added up in float64.
    """

    def __init__(self, features: int, targets: int, precision: str = "float64") -> None:
        self.features, self.targets = features, targets
        self.dtype: np.dtype[Any] = np.dtype(precision)
        self.shift = np.full((1, self.dense), np.nan)
        self._products: Products | None = None
        # first and second powers in the places of mean and scatter; what lies below the diagonal is not kept up
        self.sums = Stats.zeros(1, self.dense)

    @property
    def dense(self) -> int:
        return self.features + self.targets

    def begun(self, cell: int) -> bool:
        """Whether the cell has a shift."""
        return cell < len(self.shift) and not bool(np.isnan(self.shift[cell]).any())

    def grow(self, cells: int, columns: int) -> None:
        """Make room for cells and sparse columns that did not occur so far."""
        k, d = self.sums.mean.shape
        if cells > k:
            self.shift = np.concatenate([self.shift, np.full((cells - k, self.dense), np.nan)])
        self.sums = self.sums.grown(max(cells, k), max(columns, d))

    def stats(self) -> Stats:
        """Mean and scatter of what was added."""
        sums = self.sums
        k, d = sums.mean.shape
        shift = np.zeros((k, d))
        shift[:, : self.dense] = np.where(np.isnan(self.shift), 0.0, self.shift)
        off = sums.mean / np.where(sums.weight > 0, sums.weight, 1.0)[:, None]
        mean, rest = (np.where(sums.weight[:, None] > 0, part, 0.0) for part in two_sum(shift, off))
        scatter = np.triu(sums.scatter)
        scatter += np.swapaxes(np.triu(sums.scatter, 1), 1, 2)
        scatter -= sums.mean[:, :, None] * off[:, None, :]
        diagonal = np.arange(d)
        scatter[:, diagonal, diagonal] = np.maximum(scatter[:, diagonal, diagonal], 0.0)
        return Stats(sums.rows.copy(), sums.weight.copy(), mean, scatter, rest)

    def shifted(self) -> Floats:
        """(dense,) sums of squares that are there because means are not the shifts: they have their own rounding."""
        sums = self.sums
        first = sums.mean[:, : self.dense]
        found: Floats = np.sum(first * (first / np.where(sums.weight > 0, sums.weight, 1.0)[:, None]), axis=0)
        return found

    def add(
        self, x: Array, y: Array | None, weight: Array | None = None, cell: int = 0, sparse: Any = None,
        ready: Ready | None = None,
    ) -> bool:  # fmt: skip
        """Add a block.

        Args:
            x: (rows, features), float32 or float64; finite.
            y: (rows, targets) or None without targets; finite.
            weight: (rows,) or None for ones.
            cell: the part it belongs to.
            sparse: a ``scipy.sparse.csr_array`` (rows, sparse columns) of ones, or None.
            ready: what ``ready`` made of the same rows, or None. It changes no bit.

        Returns:
            False where the block lies too far from the shift: nothing was added; the caller sets these sums aside
            and begins new ones.

        Raises:
            BadData: the block holds NaN, infinity or numbers too large to be squared. Sums find it for free; the
                caller says where.
        """
        self.grow(cell + 1, self.dense)
        if not self.begun(cell) or self.sums.weight[cell] <= 0:  # of rows without weight nothing was added
            self.shift[cell] = self._shift(x, y, weight)
        root = None if weight is None else np.sqrt(weight)
        if gram.suits(self.dense + 1):
            square = gram.square(x, y, root, self.shift[cell], self.dtype == np.float32)
            first, second = square[:-1, -1], square[:-1, :-1]
        else:
            first, second = self._by_blas(x, y, root, cell, ready)
        rows = len(x)
        count = rows if weight is None else int(np.count_nonzero(weight))
        total = float(rows) if weight is None else float(weight.sum())
        if not self.commit(cell, first, second, count, total):
            return False
        if sparse is not None and sparse.nnz:
            products = Products(self.features, self.targets, self.dtype, self.shift[cell], root is not None, x)
            self._sparse(products.shifted(x, y, root)[:, :-1], weight, root, cell, sparse)
        return True

    def _by_blas(
        self, x: Array, y: Array | None, root: Array | None, cell: int, ready: Ready | None
    ) -> tuple[Floats, Floats]:
        """Sums of first and second powers around the cell's shift, block by block."""
        root = None if root is None else root.astype(self.dtype)
        products = self._products_for(self.shift[cell], root is not None, x)
        fits = (
            ready is not None and not products.direct and root is None and np.array_equal(ready.shift, products.shift)
        )
        step = block_rows(self.dense, self.dtype.itemsize)
        with np.errstate(over="ignore", invalid="ignore"):  # commit looks at what came out
            for i in range(0, len(x), step):
                here = slice(i, i + step)
                if ready is not None and fits:
                    products.add_shifted(ready.rows[here])
                else:
                    products.add(x[here], None if y is None else y[here], None if root is None else root[here])
        return products.sums()

    def ready(self, x: Array, y: Array | None, buffer: Array) -> Ready | None:
        """The rows shifted as ``add`` shifts them, ahead of it and by another thread; None where that saves nothing:
        where the compiled kernel shifts in passing, or nothing is shifted.

        Args:
            x, y: as in ``add``; without weights, of cell 0.
            buffer: (at least rows, dense + 1), of this precision; the result lies there.
        """
        shift = self.shift[0].copy()  # begun by another thread, perhaps at this moment
        if np.isnan(shift).any() or buffer.dtype != self.dtype or gram.suits(self.dense + 1):
            return None
        products = Products(self.features, self.targets, self.dtype, shift, False, x)
        if products.direct:
            return None
        step = block_rows(self.dense, self.dtype.itemsize)
        with np.errstate(over="ignore", invalid="ignore"):
            for i in range(0, len(x), step):
                here = slice(i, i + step)
                products.shift_into(buffer[i : i + len(x[here])], x[here], None if y is None else y[here], None)
        return Ready(buffer[: len(x)], shift)

    def _products_for(self, shift: Floats, weighted: bool, x: Array) -> Products:
        """Those of the last call where they fit: memory that is in the cache already."""
        last = self._products
        fresh = Products(self.features, self.targets, self.dtype, shift, weighted, x)
        if last is not None and last.direct == fresh.direct:
            fresh.take_memory(last)
        self._products = fresh
        return fresh

    def release(self) -> None:
        """Give scratch memory back, when no more rows are at hand: there may be thousands of these."""
        self._products = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_products": None}

    def _shift(self, x: Array, y: Array | None, weight: Array | None) -> Floats:
        """(dense,) what is subtracted from the columns; zeros for the features where none of them needs it."""
        first = heaviest(weight, block_rows(self.dense))
        few = x[first]
        if not len(few):
            return np.zeros(self.dense)
        weights = None if weight is None else weight[first]
        shift = shift_of(few, None if y is None else y[first], weights)
        here = shift[: self.features]
        with np.errstate(over="ignore", invalid="ignore"):
            squares = (few - here) ** 2
            variance = squares.mean(axis=0) if weights is None else weights @ squares / weights.sum()  # 0 of one row
            if (np.abs(here) <= np.sqrt(NEAR * variance)).all():
                here[:] = 0.0
        return shift

    def commit(self, cell: int, first: Floats, second: Floats, rows: int, weight: float) -> bool:
        """Add a block's sums of first and second powers around the cell's shift; False as in ``add``."""
        if not (np.isfinite(first).all() and np.isfinite(np.diagonal(second)).all()):
            raise BadData("a block holds NaN, infinity or numbers too large to be squared")
        if self._far(cell, first, second, weight):
            return False
        sums, d = self.sums, self.dense
        sums.rows[cell] += rows
        sums.weight[cell] += weight
        sums.mean[cell, :d] += first
        sums.scatter[cell, :d, :d] += second
        return True

    def _sparse(self, c: Array, weight: Array | None, root: Array | None, cell: int, sparse: Any) -> None:
        """Products with columns of zeros and ones, which are never made dense."""
        d = self.dense
        wide = d + sparse.shape[1]
        self.grow(cell + 1, wide)
        left = sparse if root is None else sparse.multiply(root[:, None]).tocsr()  # the other factor has its root, too
        both = sparse if weight is None else sparse.multiply(weight[:, None]).tocsr()
        first, second = self.sums.mean[cell], self.sums.scatter[cell]
        first[d:wide] += np.asarray(both.sum(axis=0)).ravel()
        second[:d, d:wide] += (left.T @ c).T
        pairs = (sparse.T @ both).tocoo()
        np.add.at(second, (pairs.row + d, pairs.col + d), pairs.data)

    def _far(self, cell: int, first: Floats, second: Floats, total: float) -> bool:
        """Whether the cell's mean would be so far from its shift that squares around the shift lose digits."""
        sums, d = self.sums, self.dense
        if total <= 0 or sums.weight[cell] <= 0:
            return False
        weight = sums.weight[cell] + total
        away = (sums.mean[cell, :d] + first) / weight
        squares = (np.diagonal(sums.scatter[cell])[:d] + np.diagonal(second)) / weight
        rounding = 1e-10 * np.abs(self.shift[cell])
        return bool(np.any((away**2 > FAR * np.maximum(squares - away**2, 0.0)) & (np.abs(away) > rounding)))


def heaviest(weight: Array | None, count: int) -> Any:
    """Numbers of the rows that weigh most, at most ``count``; the first ones without weights.

    Rows of no weight may lie anywhere: they are often what was masked out.
    """
    if weight is None:
        return slice(0, count)
    most = np.argsort(-weight, kind="stable")[:count]
    return np.sort(most[weight[most] > 0])


def shift_of(x: Array, y: Array | None, weight: Array | None = None) -> Floats:
    """The block's mean; a column's only value where it is constant, so that its scatter is 0 and not rounding.

    float32 columns get a float32 number: then shifting them rounds nothing (Sterbenz's lemma).

    Args:
        weight: (rows,) positive, or None for ones.
    """
    shifts = []
    for part in [x] if y is None else [x, y]:
        with np.errstate(over="ignore", invalid="ignore"):
            whole: Any = part.mean(axis=0, dtype=np.float64) if weight is None else weight @ part / weight.sum()
            middle = whole.astype(part.dtype)
        constant = part.min(axis=0) == part.max(axis=0)
        shifts.append(np.where(constant, part[0], middle).astype(np.float64))
    found = np.concatenate(shifts)
    return np.where(np.isfinite(found), found, 0.0)

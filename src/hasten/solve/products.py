"""Products of one block of rows with itself: shifted in a buffer that stays in the cache, or where the rows lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.solve.blas import add_square

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ready:
    """Rows that were shifted ahead of their use.

    Attributes:
        rows: (rows, features + targets + 1) [X | Y] less the shift, and ones.
        shift: (features + targets,).
    """

    rows: Array
    shift: Floats


class Products:
    """Sums of first and second powers of rows less a shift, block by block.

    Where X needs no shift and no weights and lies in memory as BLAS wants it, it is multiplied where it is; otherwise X
    and Y are shifted into a buffer that stays in the cache, beside a column of ones, and multiplied together.

    Args:
        features, targets: columns of X and Y. dtype: of the products.
        shift: (features + targets,). weighted: whether there are weights. x: some rows of X.
    """

    def __init__(
        self, features: int, targets: int, dtype: np.dtype[Any], shift: Floats, weighted: bool, x: Array
    ) -> None:
        self.p, self.q, self.dtype, self.shift = features, targets, dtype, shift
        self.away = bool(shift[:features].any())
        self.direct = not (self.away or weighted) and x.dtype == dtype and x.flags.c_contiguous
        self.rest = np.zeros((features + targets + 1, targets + 1))  # of a direct X with Y and the ones
        self._square: Array | None = None
        self._part: Array | None = None  # a float32 block's product, before it is added up in float64
        self._begun = False
        self.buffer: Array = np.empty((0, 0), dtype)
        self.ones: Array = np.ones(0, dtype)

    def take_memory(self, other: Products) -> None:
        """Work in the memory of ``other``, which is of the same columns and dtype and done."""
        self._square, self._part, self.buffer, self.ones = other._square, other._part, other.buffer, other.ones

    def add(self, x: Array, y: Array | None, root: Array | None) -> None:
        """Add a block: x: (rows, features). y: (rows, targets) or None. root: (rows,) roots of the weights or None."""
        if not self.direct:
            self.add_shifted(self.shifted(x, y, root))
            return
        self._add_square(x)  # before the sums: it fetches rows from memory while it multiplies
        if len(self.ones) != len(x):
            self.ones = np.ones(len(x), self.dtype)
        columns = [self.ones]
        if y is not None:
            t = (y - self.shift[self.p :]).astype(self.dtype, copy=False)
            columns = [*t.T, self.ones]
        for j, column in enumerate(columns):  # faster than one product with few columns
            self.rest[: self.p, j] += column @ x
            for i, other in enumerate(columns[: j + 1]):
                self.rest[self.p + i, j] += other @ column

    def add_shifted(self, rows: Array) -> None:
        """Add a block that is shifted and has its ones: (rows, features + targets + 1)."""
        self._add_square(rows)

    def _add_square(self, rows: Array) -> None:
        wide = rows.shape[1]
        if self._square is None:
            self._square = np.zeros((wide, wide), order="F")  # below the diagonal it stays so
        if self.dtype == np.float64:
            add_square(self._square, rows, 1.0 if self._begun else 0.0)
        else:
            if self._part is None:
                self._part = np.zeros((wide, wide), self.dtype, order="F")
            add_square(self._part, rows, 0.0)
            if not self._begun:
                self._square[:] = 0.0
            self._square += self._part
        self._begun = True

    def shifted(self, x: Array, y: Array | None, root: Array | None) -> Array:
        """(rows, features + targets + 1) X and Y less the shift and ones, times the roots, in the buffer."""
        if len(self.buffer) < len(x):
            self.buffer = np.empty((len(x), self.p + self.q + 1), self.dtype)
        return self.shift_into(self.buffer[: len(x)], x, y, root)

    def shift_into(self, c: Array, x: Array, y: Array | None, root: Array | None) -> Array:
        """As ``shifted``, into ``c``."""
        p = self.p
        c[:, :p] = x  # a copy, then a difference: faster than a difference of two kinds of numbers
        if self.away:
            c[:, :p] -= self.shift[:p].astype(self.dtype)
        if y is not None:
            np.subtract(y, self.shift[p:], out=c[:, p:-1], casting="same_kind")
        c[:, -1] = 1
        if root is not None:
            c *= root[:, None]
        return c

    def sums(self) -> tuple[Floats, Floats]:
        """(features + targets,) first powers; second ones, on and above the diagonal, until these are begun anew."""
        p, wide = self.p, self.p + self.q + 1
        if self._square is None or not self._begun:
            return np.zeros(wide - 1), np.zeros((wide - 1, wide - 1))
        square: Floats = self._square
        if self.direct:
            square = np.zeros((wide, wide))
            square[:p, :p], square[:, p:] = self._square, self.rest
        return square[:-1, -1].copy(), square[:-1, :-1]

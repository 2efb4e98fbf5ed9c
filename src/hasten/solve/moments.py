"""Moments: what one pass over the data leaves behind, and all that linear models ever need of them."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from hasten.solve import dealing, device, storage
from hasten.solve.columns import Kinds
from hasten.solve.combine import check_part, combined, common_names, duplicate, other_columns, unsettled
from hasten.solve.encode import Encoder
from hasten.solve.kernel import Floats, Stats, Sums, merge, piece_rows
from hasten.solve.problems import BadData
from hasten.solve.source import Block, open_source


class Moments:
    """Counts, weights, means and scatter of [X | Y], in one pass, in any order, from any number of shards.

    Rows are added in blocks that are shifted by values near their mean, multiplied with themselves and added up in
    float64 (see ``solve.kernel``). Everything else in ``solve`` is a function of this object.

    Args:
        X: what to begin with; whatever ``update`` takes. None begins empty.
        y, sample_weight, target: as ``update`` takes them.
        folds: keep the moments of so many folds apart. Rows of arrays and tables are dealt in contiguous parts, as by
            scikit-learn's ``KFold``; rows of streams by row number modulo ``folds``. An array (rows,) of fold numbers
            deals them as it says.
        groups: (rows,) labels; the moments of every group are kept apart. With folds, those of every fold of every
            group: ``kfold`` then takes groups together, ``solve_groups`` and ``discriminant`` folds.
        missing: "error", or "mean": NaN in X is replaced by the mean of the column's other values, and a column that
            marks where is added. Texts in tables are turned into one column a category either way.
        precision: "float64", or "float32" for products in float32 (added up in float64).
        shard: a name for these rows. Moments that share a named shard refuse to be added, so that a retried job
            cannot count its rows twice.

    Example:
        >>> m = Moments(X_monday, y_monday) + Moments(X_tuesday, y_tuesday)
        >>> m -= Moments(X_monday, y_monday)
    """

    def __init__(
        self, X: Any = None, y: Any = None, *, sample_weight: Any = None, target: str | Sequence[str] | None = None,
        folds: int | Any = None, groups: Any = None, missing: str = "error", precision: str = "float64",
        shard: str | None = None,
    ) -> None:  # fmt: skip
        if missing not in ("error", "mean") or precision not in ("float64", "float32"):
            raise BadData(
                f"missing={missing!r}, precision={precision!r}",
                "a typing error",
                'missing="error" or "mean"; precision="float64" or "float32"',
            )
        self.missing, self.precision = missing, precision
        self.folds = dealing.checked_folds(folds)
        self.encoder = Encoder([])
        self.target_names: list[str] = []
        self.fill: Floats = np.zeros(0)
        self.cells: dict[Hashable, int] = {}
        self.apart: tuple[str, ...] = ()  # what cells keep apart: "folds", "groups", both, or nothing
        self.shards: frozenset[str] = frozenset()
        self._base: Stats | None = None
        self._sums: Sums | None = None
        self._view: Stats | None = None
        self._most: Floats | None = None  # (cells, columns) squares of what rows were removed from: rounding is of them
        self._aside: Floats | float = 0.0  # as ``shifted``, of sums that were set aside
        self._rows_seen = 0
        if X is not None:
            fold = None if isinstance(folds, int | np.integer) else folds
            self.update(X, y, sample_weight, target=target, fold=fold, groups=groups, shard=shard)

    # -- adding --------------------------------------------------------------------------------------------------------

    def update(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, target: str | Sequence[str] | None = None,
        fold: Any = None, groups: Any = None, shard: str | None = None,
    ) -> Self:  # fmt: skip
        """Add rows, in place.

        Args:
            X: (rows, features) as NumPy array, memory map, torch tensor on any device, SciPy sparse matrix, pandas,
                polars or Arrow table; or an iterable of batches ``(X, y)`` or ``(X, y, weight)``, as a ``DataLoader``
                is; or a path or paths (see ``scan``), or a ``Source``.
            y: (rows,) or (rows, targets), also beside a file or batches without targets; the name of a column of a
                table or file; None for none.
            sample_weight: (rows,) non-negative.
            target: names of the columns to predict, in a table or file.
            fold: (rows,) fold numbers.
            groups: (rows,) labels.
            shard: a name for these rows.

        Raises:
            BadData: shapes or columns do not fit, earlier rows had labels of folds or groups and these have none, a
                value is NaN, infinite or too large to be squared, the shard was added before. The moments are as they
                were, except for batches of a stream that were added before the bad one.
        """
        source = open_source(X, y, sample_weight, target=target, known=self.kinds if self._started else None)
        if shard is not None and shard in self.shards:
            raise duplicate({shard})
        fold, groups = dealing.as_labels(fold, "folds", source), dealing.as_labels(groups, "groups", source)
        before, seen = self._state() if source.rows is not None else None, self._rows_seen
        try:
            for block in source.blocks():
                self._add_block(block, fold, groups, source.rows)
            dealing.check_labels(self._rows_seen - seen, fold, groups)
        except BaseException:
            if before is not None:
                self.__dict__.update(before)
            raise
        finally:
            self._release()
        if shard is not None:
            self.shards |= {shard}
        return self

    def _release(self) -> None:
        if self._sums is not None:
            self._sums.release()

    def _state(self) -> dict[str, Any]:
        """A copy of what ``update`` changes."""
        kept = {name: copy.copy(value) for name, value in self.__dict__.items()}
        kept["encoder"] = Encoder(self.encoder.numeric, self.encoder.categorical, list(self.encoder.columns))
        kept["_sums"] = copy.deepcopy(self._sums)
        return kept

    def _add_block(self, block: Block, fold: Any, groups: Any, rows: int | None) -> None:
        self._check_columns(block)
        labels = dealing.labels_of(block, fold, groups, rows, self.folds, self._rows_seen)
        if self.cells and self.apart != tuple(labels):
            raise dealing.mixed_labels(tuple(labels), self.apart)
        self._view, self.apart = None, tuple(labels)
        self._rows_seen += len(block.x)
        if not labels:
            self._add_rows(block, 0)
            return
        for label, pick in dealing.parts_of([*labels.values()]):
            self._add_rows(block.taken(pick), self._cell(label))

    def _add_rows(self, block: Block, cell: int) -> None:
        if not self.cells:
            self.cells[0] = 0
        block.check_weight()
        if device.on_device(block.x):
            self._commit(lambda s: device.add(s, block.x, block.y, block.weight, cell), block)
            return
        step = piece_rows(block.x.shape[1], copied=self.missing != "error" or bool(block.categories))
        for i in range(0, len(block.x), step):
            self._add_piece(block.taken(slice(i, i + step)), cell)

    def _add_piece(self, piece: Block, cell: int) -> None:
        def as_it_is(sums: Sums) -> bool:
            return sums.add(piece.x, piece.y, piece.weight, cell, ready=piece.ready)

        if self.missing == "error" and not self.encoder.categorical:
            self._commit(as_it_is, piece)
            return
        if self._sums is not None and self._sums.begun(cell) and not self.encoder.sparse:
            try:  # most pieces have no holes, and the sums find one for nothing
                self._commit(as_it_is, piece, explain=False)
                return
            except BadData:
                pass
        if self.missing == "mean" and not self._started:
            self.fill = dealing.means_of(piece.x)
        elif self.missing == "error" and np.isnan(piece.x).any():
            piece.raise_where(self.encoder.numeric, self.target_names)
        x, sparse = self.encoder.encode(piece.x, piece.categories, self.fill)
        self._commit(lambda s: s.add(x, piece.y, piece.weight, cell, sparse), replace(piece, x=x))

    def _commit(self, add: Any, block: Block, explain: bool = True) -> None:
        if self._sums is None:
            self._sums = Sums(len(self.encoder.numeric), len(self.target_names), self.precision)
        try:
            if add(self._sums):
                return
        except BadData:
            if explain:
                block.raise_where(self.encoder.numeric, self.target_names)
                block.raise_largest(self.encoder.numeric, self.target_names, self.precision)
            raise
        self._aside, self._base = self.shifted, self._merged()  # it lies far away: begin again around its own mean
        self._sums = Sums(len(self.encoder.numeric), len(self.target_names), self.precision)
        add(self._sums)

    @property
    def _started(self) -> bool:
        return self._sums is not None or self._base is not None

    def _check_columns(self, block: Block) -> None:
        if not self._started and not self.encoder.numeric and not self.encoder.categorical:
            self.encoder = Encoder(block.names, block.category_names)
            self.target_names = list(block.targets)
            self.fill = np.zeros(len(block.names))
            return
        here = (block.names, block.category_names, block.targets)
        before = (self.encoder.numeric, self.encoder.categorical, self.target_names)
        named = common_names(block.targets, self.target_names)
        if here[:2] != before[:2] or named is None:
            raise other_columns(here, before)
        self.target_names = named

    def _cell(self, label: Hashable) -> int:
        return self.cells.setdefault(label, len(self.cells))

    @classmethod
    def scan(cls, path: str | os.PathLike[str], target: str | Sequence[str] | None = None, **options: Any) -> Self:
        """One pass over a file larger than memory; see ``hasten.solve.scan.scan`` for the options."""
        from hasten.solve.scan import scan

        return scan(cls, path, target, **options)

    # -- algebra -------------------------------------------------------------------------------------------------------

    def __add__(self, other: Moments) -> Moments:
        """The moments of both. Shards named in both are refused."""
        if not isinstance(other, Moments):
            return NotImplemented
        if self.shards & other.shards:
            raise duplicate(self.shards & other.shards)
        out = combined(self, other, 1.0)
        out.shards = self.shards | other.shards
        return out

    def __radd__(self, other: object) -> Moments:
        """For ``sum``, which begins with 0."""
        return self + Moments() if other == 0 and isinstance(other, int) else NotImplemented

    def __sub__(self, other: Moments) -> Moments:
        """The moments without rows that were added before: a customer, a shard, what has left a window.

        Removing loses digits when nearly everything is removed: about log10 of the ratio of the scatters. A
        ``FewDigits`` warning names the columns of which less than four are left, and bounds their error; one of which
        none is left counts as constant.
        """
        if not isinstance(other, Moments):
            return NotImplemented
        check_part(self, other)
        out = combined(self, other, -1.0)
        out.shards = self.shards - other.shards
        return out

    def decay(self, factor: float) -> Self:
        """Multiply all weights so far by ``factor`` (0 to 1), in place: exponential forgetting."""
        if not 0 <= factor <= 1:
            raise BadData(f"decay({factor})", "forgetting needs a factor between 0 and 1", "decay(0.99)")
        if not self._started:  # nothing to forget, no columns to be those of later rows
            return self
        base = self._merged()
        if factor == 0:
            base = Stats.zeros(*base.mean.shape)
        base = replace(base, weight=base.weight * factor, scatter=base.scatter * factor)
        self._aside, self._base, self._sums, self._view = self.shifted * factor, base, None, None
        self._most = None if self._most is None else self._most * factor
        return self

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of X's columns: numbers first, then indicators and categories."""
        return self.encoder.names

    @property
    def kinds(self) -> Kinds:
        """Which columns of a table held numbers so far, and which held texts."""
        return Kinds(self.encoder.numeric, self.encoder.categorical)

    @property
    def targets(self) -> list[str]:
        """Names of Y's columns."""
        return list(self.target_names)

    @property
    def p(self) -> int:
        """Columns of X."""
        return len(self.encoder.numeric) + len(self.encoder.columns)

    @property
    def q(self) -> int:
        """Columns of Y."""
        return len(self.target_names)

    @property
    def n(self) -> float:
        """Rows of positive weight."""
        return float(self.total.rows[0])

    @property
    def weight(self) -> float:
        """Sum of weights; as many as rows unless weights were given."""
        return float(self.total.weight[0])

    @property
    def mean(self) -> Floats:
        """(p + q,) means of [X | Y]."""
        return np.asarray(self.total.mean[0])

    @property
    def scatter(self) -> Floats:
        """(p + q, p + q) sums of weighted products of deviations from the mean."""
        found: Floats = self.total.scatter[0]
        return found

    @property
    def covariance(self) -> Floats:
        """(p + q, p + q) scatter divided by ``freedom``."""
        return self.scatter / max(self.freedom, np.finfo(float).tiny)

    @property
    def freedom(self) -> float:
        """The sum of weights less one. Weights below 1 on average count no rows: then it is their sum times
        ``(n - 1) / n``, so that a factor common to all of them changes no covariance."""
        return max(self.weight - 1.0, self.weight * (1.0 - 1.0 / max(self.n, 1.0)))

    @property
    def shifted(self) -> Floats | float:
        """(dense,) sums of squares whose rounding the scatter has on top of its own; see ``kernel.Sums.shifted``."""
        return self._aside if self._sums is None else self._aside + self._sums.shifted()

    @property
    def total(self) -> Stats:
        """All cells as one, columns as [X | Y]."""
        return self.parts.pooled()

    @property
    def labels(self) -> list[Hashable]:
        """What the cells of ``parts`` stand for: fold numbers, labels of groups, (fold, group), or 0."""
        return list(self.cells)

    @property
    def crossed(self) -> bool:
        """Whether cells are (fold, group)."""
        return len(self.apart) > 1

    @property
    def by_fold(self) -> tuple[list[Hashable], Stats]:
        """Labels and moments of the folds, groups taken together."""
        return dealing.along(self.parts, self.labels, 0) if self.crossed else (self.labels, self.parts)

    @property
    def by_group(self) -> tuple[list[Hashable], Stats]:
        """Labels and moments of the groups, folds taken together."""
        return dealing.along(self.parts, self.labels, 1) if self.crossed else (self.labels, self.parts)

    @property
    def parts(self) -> Stats:
        """Moments a cell (fold or group), columns as [X | Y], missing values imputed by the mean of all cells."""
        if self._view is None:
            stats, pairs = self._merged(), self.encoder.pairs()
            stats = dealing.refilled(stats, pairs, self.dense, self.imputed - self.fill)
            if self._most is not None:
                stats = unsettled(stats, self._most, self.precision)
            self._view = stats.taken(dealing.targets_last(self.p, self.q, len(self.encoder.columns)))
        return self._view

    @property
    def imputed(self) -> Floats:
        """(numeric features,) what stands in for a missing value."""
        return dealing.imputed_fills(self._merged(), self.encoder.pairs(), self.dense, self.fill)

    @property
    def dense(self) -> int:
        """Columns that are not indicators."""
        return len(self.encoder.numeric) + self.q

    def _merged(self) -> Stats:
        """Moments a cell in the order in which columns are kept: numbers, targets, sparse columns."""
        columns = self.dense + len(self.encoder.columns)
        cells = max(len(self.cells), 1)
        parts = [self._base, None if self._sums is None else self._sums.stats()]
        found = [part.grown(cells, columns) for part in parts if part is not None]
        return functools.reduce(merge, found) if found else Stats.zeros(cells, columns)

    # -- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], **notes: str) -> None:
        """Write to a safetensors file, whole or not at all. Going on from it gives the same bits as going on from here.

        Args:
            notes: texts kept beside the moments.
        """
        storage.save(self, path, notes)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what ``save`` wrote.

        Raises:
            BadData: the file is missing, torn, or something else.
        """
        return storage.load(cls, path)[0]

    def __repr__(self) -> str:
        cells = f", {len(self.cells)} cells" if len(self.cells) > 1 else ""
        return f"Moments({self.n:.0f} rows, {self.p} features, {self.q} targets{cells})"

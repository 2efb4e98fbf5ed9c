"""What the estimators share: input that may be a tensor or a stream, and scikit-learn loaded only with them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from hasten.solve.arrays import filled, given_names, in_host, is_frame, is_table, seconds_of
from hasten.solve.arrow import whole_table
from hasten.solve.columns import check_names, dense, split_columns, texts_of, with_texts_as_names
from hasten.solve.combine import other_columns
from hasten.solve.kernel import Floats
from hasten.solve.problems import BadData, need
from hasten.solve.source import ArraySource, Source, holds_rows, is_path, no_names, open_source
from hasten.solve.streams import is_batches

need("sklearn", "an estimator")

from sklearn.base import BaseEstimator  # noqa: E402
from sklearn.model_selection import check_cv  # noqa: E402
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data  # noqa: E402

T = TypeVar("T")


def is_stream(X: Any) -> bool:
    """Whether X is read in blocks: a path, a ``Source``, a loader, an iterator, a list of batches."""
    if isinstance(X, Source) or is_path(X):
        return True
    if hasattr(X, "__array__"):
        return False
    if isinstance(X, list | tuple):
        return is_batches(X)
    return (not hasattr(X, "shape") and not hasattr(X, "__len__")) or hasattr(X, "batch_size")


def as_numpy(X: T) -> T | Any:
    """A tensor as an array; a masked array with NaN where it is masked; anything else as it is."""
    return filled(in_host(X))


def in_seconds(X: Any) -> Any:
    """Times as seconds (of a day, a span, or since 1970), in an array or in the columns of a table; else X as it is."""
    if isinstance(X, np.ndarray) and X.dtype.kind in "mM":
        return seconds_of(X)
    if is_table(X):
        X = whole_table(X)
    if not is_frame(X):
        return X
    nw = need("narwhals", "reading a table")
    X = whole_table(nw.to_native(X, pass_through=True))
    frame = nw.from_native(with_texts_as_names(X), eager_only=True)
    times = [name for name, kind in frame.schema.items() if kind.is_temporal()]
    if not times:
        return X
    if frame.implementation.is_pandas_like():  # whose columns may be called by numbers, and rows by anything
        X = X.copy(deep=False)
        for name in times:
            X.isetitem(frame.columns.index(name), dense(frame, [name])[:, 0])
        return X
    table = frame.to_arrow()
    for name in times:
        table = table.set_column(frame.columns.index(name), name, [dense(frame, [name])[:, 0]])
    return table


def refuse_texts(X: Any) -> None:
    """Raises: BadData: naming the first column of a table that holds no numbers, if there is one."""
    if not is_frame(X):
        return
    frame = need("narwhals", "reading a table").from_native(with_texts_as_names(whole_table(X)), eager_only=True)
    for name in frame.columns:
        try:
            dense(frame, [name])
        except (TypeError, ValueError) as error:
            raise BadData(
                f"column {name!r} holds no numbers: {error}",
                "categories, which the estimators do not encode, or dates kept as objects",
                "sklearn.preprocessing.OneHotEncoder, or pandas.to_datetime; or solve.ridge(solve.Moments(table, y), "
                "alpha), which encodes categories",
            ) from None  # fmt: skip


def labels_apart(X: Any, y: Any) -> tuple[Any, Any]:
    """X without the column that y names, and that column: numbers, or texts; both as they are where y is no name.

    Raises:
        BadData: there is no such column, or X has no names.
    """
    if not isinstance(y, str):
        return X, y
    if not is_frame(X):
        raise no_names(X, [y])
    nw = need("narwhals", "reading a table")
    frame = nw.from_native(with_texts_as_names(whole_table(X)), eager_only=True)
    check_names(frame.columns, [y], [])
    texts = split_columns(nw, frame, [y])[1]
    return frame.drop(y).to_native(), texts_of(frame[y]) if texts else dense(frame, [y])[:, 0]


class Streaming(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators."""

    def _rows(self, X: Any, y: Any, sample_weight: Any = None, *, reset: bool = True, **checks: Any) -> Source:
        """Checked rows as a source; streams, and tables of which y names a column, are checked block by block as they
        are read.

        Args:
            checks: for scikit-learn's ``validate_data``. ``ensure_all_finite=False`` leaves NaN in X to ``Moments``,
                which finds it for nothing and names its row and column.
        """
        if is_stream(X) or isinstance(y, str):
            source = open_source(X, y, sample_weight)
            self._seen(source, reset)
            return source
        holds_rows(X)
        names = given_names(y)
        options = {"accept_sparse": False} | checks
        if y is None and not options.pop("needs_y", False):
            X = self._checked(X, reset=reset, **options)
        else:
            options.pop("needs_y", None)
            X, y = self._checked(X, y, reset=reset, multi_output=True, y_numeric=True, **options)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(as_numpy(sample_weight), X, dtype=np.float64)
        self._flat = y is None or y.ndim == 1
        return ArraySource(X, y, sample_weight, getattr(self, "feature_names_in_", None), names)

    def _checked(self, X: Any, *y: Any, **options: Any) -> Any:
        """scikit-learn's ``validate_data`` with numbers wanted; times are seconds, as everywhere here.

        Raises:
            BadData: naming a table's column that holds no numbers.
        """
        try:
            given = [as_numpy(part) for part in y]
            return validate_data(self, in_seconds(as_numpy(X)), *given, dtype=[np.float64, np.float32], **options)
        except (TypeError, ValueError):
            refuse_texts(X)
            raise

    def _seen(self, source: Source, reset: bool) -> None:
        """Raises: BadData: later rows have other columns, or these in another order."""
        self._flat = True
        if reset:
            self.__dict__.pop("feature_names_in_", None)
            if len(source.named):
                self.feature_names_in_ = np.array(source.named, dtype=object)
            return
        before = list(getattr(self, "feature_names_in_", []))
        if before and len(source.named) and list(source.named) != before:
            raise other_columns((source.named, [], []), (before, [], []))

    def _input(self, X: Any) -> Floats:
        check_is_fitted(self)
        found: Floats = self._checked(X, reset=False)
        return found

    def _fold_numbers(self, cv: Any, source: Source) -> Any:
        """A number of folds as it is; for a splitter or a list of splits, (rows,) fold numbers.

        Raises:
            BadData: its test parts do not cover every row once, or the others are not all trained on.
        """
        if isinstance(cv, int | np.integer):
            return int(cv)
        if source.rows is None:
            raise BadData("a splitter needs rows that can be counted", "a stream was given", "cv=5")
        numbers = np.full(source.rows, -1)
        y = in_host(getattr(source, "y", None))  # None where it is a column of the rows
        y = y[:, 0] if y is not None and y.shape[1] == 1 else y
        for k, (train, test) in enumerate(check_cv(cv).split(np.zeros((source.rows, 1)), y)):
            seen = np.zeros(source.rows, np.int64)
            seen[train] += 1
            seen[test] += 1
            if (seen != 1).any():
                raise BadData(
                    "the splitter leaves rows out of both parts, or has them in both", "TimeSeriesSplit, or a gap",
                    "cv=KFold(5)",
                )  # fmt: skip
            if (numbers[test] >= 0).any():
                raise BadData("the splitter tests rows more than once", "ShuffleSplit or repeats", "cv=KFold(5)")
            numbers[test] = k
        if (numbers < 0).any():
            raise BadData("the splitter never tests some rows", "TimeSeriesSplit or ShuffleSplit", "cv=KFold(5)")
        return numbers

    def _linear(self, coef: Floats, intercept: Floats) -> None:
        """Set ``coef_`` and ``intercept_`` from (p, q) and (q,), in scikit-learn's shapes."""
        flat = coef.shape[1] == 1 and self._flat
        self.n_features_in_ = coef.shape[0]
        self.coef_ = coef[:, 0] if flat else coef.T
        self.intercept_ = float(intercept[0]) if flat else intercept

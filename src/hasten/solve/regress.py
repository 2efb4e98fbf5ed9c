"""Linear regressors that need one pass: ``StreamingRidge``, ``SlidingRidge``, ``GroupRidge``."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin

from hasten.solve import path
from hasten.solve.accuracy import Answer, climb_each, from_moments, host, refuse_categories
from hasten.solve.dealing import as_array, label_array, parts_of
from hasten.solve.estimator import Streaming, is_stream
from hasten.solve.grouped import solve_groups
from hasten.solve.kernel import FAR, Array, Floats
from hasten.solve.linear import alphas_of
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, no_rows, no_target
from hasten.solve.sliding import Window
from hasten.solve.source import Source

INTERCEPT = 1e-3  # penalty of a window's column of ones, at most: it keeps the inverse finite, and is taken out again
STREAM_FOLDS = 5  # of a stream that can be read once, where leave-one-out has no second pass


class Linear(RegressorMixin, Streaming):  # type: ignore[misc]
    """Predicts ``X @ coef_.T + intercept_``."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any) -> Floats:
        """(rows,) or (rows, targets)."""
        found: Floats = self._input(X) @ self.coef_.T + self.intercept_
        return found


class StreamingRidge(Linear):
    """Ridge regression, its alpha chosen exactly, from one or two passes over data of any size.

    Args:
        alphas: number or numbers, as scikit-learn's ``Ridge``; 0 is least squares. Of several, the one with the least
            error on rows left out is taken.
        alpha_per_target: take the best one for every target, as scikit-learn's ``RidgeCV``.
        cv: None for exact leave-one-out (a second pass), a number of folds (no further pass), or a splitter of
            scikit-learn whose test parts cover every row once.
        fit_intercept: not penalised.
        scale: penalise coefficients of columns scaled to unit variance.

    Attributes:
        coef_, intercept_: as scikit-learn's. alpha_: the chosen one, or (targets,). path_: errors along the
            alphas, or None. moments_: of the data. method_, condition_, rank_, error_bound_: see
            ``hasten.solve.accuracy.Answer``.

    ``fit`` takes arrays, tensors, tables of numbers, paths, loaders and iterators of ``(X, y)``; y may be the name of a
    column of a table or file.
    """

    def __init__(
        self, alphas: Any = (0.1, 1.0, 10.0), *, cv: Any = None, fit_intercept: bool = True, scale: bool = False,
        alpha_per_target: bool = False,
    ) -> None:  # fmt: skip
        self.alphas = alphas
        self.cv = cv
        self.fit_intercept = fit_intercept
        self.scale = scale
        self.alpha_per_target = alpha_per_target

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit; see the class."""
        alphas = path.as_alphas(self.alphas)
        source = self._rows(X, y, sample_weight, needs_y=not is_stream(X), ensure_all_finite=False)
        folds = self._folds(source) if len(alphas) > 1 else None
        given = folds if isinstance(folds, np.ndarray) else None
        self.moments_ = Moments(folds=folds if given is None else None).update(source, fold=given)
        refuse_categories(self.moments_.encoder.categorical)
        if given is not None:
            self.moments_.folds = int(given.max()) + 1  # to which later rows are dealt
        return self._choose(source, alphas, folds is not None)

    def _folds(self, source: Source) -> Any:
        """None for leave-one-out, a number of folds, or (rows,) fold numbers."""
        if self.cv is None:
            return None if source.again else STREAM_FOLDS
        return self._fold_numbers(self.cv, source)

    def _choose(self, source: Source, alphas: Floats, folded: bool) -> Self:
        m = self.moments_
        self.path_: path.Path | None = None
        self.alpha_: Any = float(alphas[0])
        if len(alphas) > 1:
            if folded:
                self.path_ = path.kfold(m, alphas, fit_intercept=self.fit_intercept, scale=self.scale)
            else:
                self.path_, _ = path.leave_one_out(
                    source, m, alphas, fit_intercept=self.fit_intercept, scale=self.scale
                )  # fmt: skip
            self.alpha_ = self._best(self.path_)
        answer = climb_each(source, m, alphas_of(self.alpha_, m.q), self.fit_intercept, scale=self._spread())
        return self._took(answer, self.path_ is not None and not folded)

    def _best(self, found: path.Path) -> Any:
        """A number, or (targets,) one each."""
        return found.each if self.alpha_per_target and len(found.each) > 1 else found.alpha

    def _spread(self) -> Any:
        """By what alpha is multiplied: a number, or (p,) one a column."""
        m = self.moments_
        return np.diagonal(m.covariance)[: m.p] if self.scale else 1.0

    def _took(self, answer: Answer, passes: int = 0) -> Self:
        self.method_, self.condition_, self.rank_ = answer.method_, answer.condition_, answer.rank_
        self.error_bound_, self.passes_ = answer.error_bound_, answer.passes_ + passes
        self._linear(answer.coef_, answer.intercept_)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows: the model is that of all rows so far.

        Several alphas are compared by folds; after a ``fit`` by leave-one-out, which dealt none, its alpha stays.
        """
        alphas = path.as_alphas(self.alphas)
        first = not hasattr(self, "moments_")
        source = self._rows(X, y, sample_weight, reset=first, needs_y=True)
        if first:
            folds = self.cv if isinstance(self.cv, int | np.integer) else STREAM_FOLDS
            self.moments_ = Moments(folds=folds if len(alphas) > 1 else None)
        m, fold = self.moments_, None
        if m.folds and source.rows is not None:  # rows of streams are dealt like this as they come
            fold = (int(m._rows_seen) + np.arange(source.rows)) % m.folds
        m.update(source, fold=fold)
        refuse_categories(m.encoder.categorical)
        return self._from_moments(alphas)

    def forget(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Remove rows that were fitted before: the model is as if it had never seen them. With one alpha only."""
        alphas = path.as_alphas(self.alphas)
        if len(alphas) > 1:
            raise BadData("which fold the rows were in is not known", "several alphas", "alphas=1.0")
        source = self._rows(X, y, sample_weight, reset=False, needs_y=True)
        self.moments_ = self.moments_ - Moments().update(source)
        return self._from_moments(alphas)

    def _from_moments(self, alphas: Floats) -> Self:
        m = self.moments_
        self.path_, before = None, getattr(self, "alpha_", None)
        self.alpha_ = float(alphas[0]) if before is None or not np.isin(before, alphas).all() else before
        if len(alphas) > 1 and (m.parts.weight > 0).sum() > 1:
            self.path_ = path.kfold(m, alphas, fit_intercept=self.fit_intercept, scale=self.scale)
            self.alpha_ = self._best(self.path_)
        return self._took(from_moments(m, alphas_of(self.alpha_, m.q), self.fit_intercept, self._spread()))


class SlidingRidge(Linear):
    """Ridge over the last ``window`` rows, exact after every row; see ``hasten.solve.sliding.Window``.

    Args:
        window: rows.
        alpha: penalty, positive.
        fit_intercept: not penalised.
        drift_bound: relative drift past which the model is solved anew.

    Attributes:
        coef_, intercept_: of the rows in the window. window_: the ``Window``, with ``drift`` and ``healed``.
    """

    def __init__(
        self, window: int = 1000, *, alpha: float = 1.0, fit_intercept: bool = True, drift_bound: float = 1e-10
    ) -> None:
        self.window = window
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.drift_bound = drift_bound

    def fit(self, X: Any, y: Any = None) -> Self:
        """Begin anew with these rows; of more than ``window``, the last ones. X as ``StreamingRidge.fit``."""
        self.window_: Window | None = None
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add rows; the oldest ones leave."""
        first = getattr(self, "window_", None) is None
        source = self._rows(X, y, reset=first, needs_y=not is_stream(X))
        for block in source.blocks():
            if block.y is None:
                raise no_target()
            block = host(block)
            if getattr(self, "window_", None) is None:
                self._begin(block.x, block.y)
            assert self.window_ is not None
            x, y = self._shifted(block.x), block.y - self.y_shift_
            if len(x) == 1:
                self.window_.slide(x[0], y[0])
            else:
                self.window_.extend(x, y)
            self._centre(len(x))
        self._publish()
        return self

    def _begin(self, x: Array, y: Array) -> None:
        p, q = x.shape[1], y.shape[1]
        on = self.fit_intercept
        penalty = np.append(np.full(p, self.alpha), [min(INTERCEPT, self.alpha)] * on)
        self.window_ = Window(p + on, q, self.window, penalty, bound=self.drift_bound)
        last = slice(-min(self.window, 1024), None)
        self.x_shift_ = x[last].mean(axis=0, dtype=np.float64) if on else np.zeros(p)
        self.y_shift_ = y[last].mean(axis=0, dtype=np.float64) if on else np.zeros(q)
        self.uncentred_ = 0

    def _centre(self, rows: int) -> None:
        """Once a window: where the level has wandered far from the shift, which costs digits, shift anew."""
        window = self.window_
        assert window is not None
        self.uncentred_ += rows
        if not self.fit_intercept or self.uncentred_ < self.window:
            return
        self.uncentred_ = 0
        mean, spread = window.held.mean(axis=0), window.held.std(axis=0)
        p = len(self.x_shift_)
        mean[p] = 0.0  # the column of ones
        if (np.abs(mean) > np.sqrt(FAR) * spread).any():
            window.move(mean)
            self.x_shift_, self.y_shift_ = self.x_shift_ + mean[:p], self.y_shift_ + mean[p + 1 :]

    def _shifted(self, x: Array) -> Floats:
        x = x - self.x_shift_
        return np.column_stack([x, np.ones(len(x))]) if self.fit_intercept else x

    def _publish(self) -> None:
        if self.window_ is None:
            raise no_rows()
        p = len(self.x_shift_)
        coef = self.window_.coef_without(p) if self.fit_intercept else self.window_.coef
        constant = coef[p] if self.fit_intercept else np.zeros(coef.shape[1])
        self._linear(coef[:p].copy(), self.y_shift_ + constant - self.x_shift_ @ coef[:p])


class GroupRidge(Linear):
    """One ridge model a group, all solved at once, drawn toward the common model; see ``solve_groups``.

    Args:
        alpha: as scikit-learn's ``Ridge``.
        toward: how many rows' worth the common model counts in every group.
        fit_intercept: one a group.

    Attributes:
        groups_: labels. group_coef_: (groups, targets, features); group_intercept_: (groups, targets).
        coef_, intercept_: the common model, used for groups that were not seen and where none are given, as by
            ``score``.
    """

    def __init__(self, alpha: float = 1.0, *, toward: float = 0.0, fit_intercept: bool = True) -> None:
        self.alpha = alpha
        self.toward = toward
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any = None, *, groups: Any = None, sample_weight: Any = None) -> Self:
        """Args: groups: (rows,) labels; None for one group. X as ``StreamingRidge.fit``.

        Groups and weights have no place of their own: as a third argument other estimators take weights.
        """
        source = self._rows(X, y, sample_weight, needs_y=not is_stream(X), ensure_all_finite=False)
        self.moments_ = Moments().update(source, groups=groups)
        refuse_categories(self.moments_.encoder.categorical)
        found = solve_groups(self.moments_, self.alpha, self.toward, self.fit_intercept)
        self.groups_ = label_array(found.labels)
        self.group_coef_ = np.swapaxes(found.coef, 1, 2)
        self.group_intercept_ = found.intercept
        self._linear(*found.common)
        return self

    def predict(self, X: Any, groups: Any = None) -> Floats:
        """(rows,) or (rows, targets); with ``groups`` (rows,) by each row's own model."""
        common: Floats = super().predict(X)
        if groups is None:
            return common
        x, labels = self._input(X), as_array(groups)
        if len(labels) != len(x):
            raise BadData(f"{len(labels)} groups for {len(x)} rows", "labels of other rows", "one label a row")
        place = {label: i for i, label in enumerate(self.groups_.tolist())}
        at = np.array([place.get(label, -1) for label in labels.tolist()])
        found, parts = common.reshape(len(x), -1), parts_of([at])
        i: Any
        for i, rows in parts:
            if i != -1:
                found[rows] = x[rows] @ self.group_coef_[i].T + self.group_intercept_[i]
        return found.reshape(common.shape)

"""``ExactRFECV`` and ``StreamingPCA``."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted

from hasten.solve import triangles
from hasten.solve.accuracy import refuse_categories
from hasten.solve.combine import of_columns
from hasten.solve.elimination import Elimination, counts_of, kept_scores, too_steep
from hasten.solve.estimator import Streaming, as_numpy, is_stream
from hasten.solve.kernel import Array, Floats
from hasten.solve.moments import Moments
from hasten.solve.regress import Linear
from hasten.solve.spread import check_count, components
from hasten.solve.tikhonov import fitted
from hasten.solve.triangles import fold_triangles

ALIKE = 1e-9  # of a score: closer ones differ by rounding (of perfect fits, say), and fewer columns are kept


class ExactRFECV(SelectorMixin, Linear):  # type: ignore[misc]
    """Recursive feature elimination of a linear model with cross-validation, from one pass.

    The ranking and scores are those of scikit-learn's ``RFECV`` with ``Ridge(alpha)``, contiguous folds and R², without
    fitting a model a step; for 0 with ``LinearRegression(tol=0)``, whose default drops what is below 1e-6
    since 1.9. From X's condition of about 2000 on, whose square costs digits, rows that can be read again are, and each
    fold's QR decomposition takes the place of moments.

    Args:
        alpha: of the ridge model.
        cv: number of folds, of two rows at least, or a splitter of scikit-learn whose test parts cover every row once.
        min_features_to_select: least number of columns.
        step: columns to drop at a time; below 1 the share of all of them.
        fit_intercept: of the model.

    Attributes:
        support_: (p,) kept columns. ranking_: (p,) 1 for those, then in the order of being dropped last.
        n_features_: how many are kept. cv_results_: scores of each split, mean and deviation, for
            ``min_features_to_select`` … p columns (``n_features``), as scikit-learn's. Copies of a column may change
            places.
        method_: which of the two it was.
        coef_, intercept_: of the model on the kept columns, 0 for others; ``predict`` uses them.
    """

    def __init__(
        self, alpha: float = 0.0, *, cv: Any = 5, min_features_to_select: int = 1, step: float = 1,
        fit_intercept: bool = True,
    ) -> None:  # fmt: skip
        self.alpha = alpha
        self.cv = cv
        self.min_features_to_select = min_features_to_select
        self.step = step
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit; X as ``StreamingRidge.fit``."""
        counts_of(0, self.step)  # a wrong one is told before anything is read
        source = self._rows(
            X, y, sample_weight, needs_y=not is_stream(X), ensure_min_samples=2, ensure_all_finite=False
        )
        folds = self._fold_numbers(self.cv, source)
        given = isinstance(folds, np.ndarray)
        if not given and source.rows is not None:
            folds = min(folds, max(source.rows // 2, 1))
        self.moments_ = m = Moments(folds=None if given else folds).update(source, fold=folds if given else None)
        refuse_categories(m.encoder.categorical)
        p, models = m.p, None
        least = min(max(self.min_features_to_select, 1), p)
        if source.again and too_steep(m, self.alpha, self.fit_intercept):
            held, shift = fold_triangles(source, m, folds if given else None)
            counts = counts_of(p, self.step, least)
            scores, models = triangles.kept_scores(held, shift, counts, self.alpha, self.fit_intercept)
            found, self.method_ = models.elimination, "two passes: moments, QR of each fold"
        else:
            scores, found = kept_scores(m, self.alpha, self.fit_intercept, self.step, least)
            self.method_ = "one pass: moments"
        best = self._chosen(scores, found)
        coef = np.zeros((p, m.q))
        if models is None:
            fit = fitted(of_columns(m, self.support_), self.alpha, fit_intercept=self.fit_intercept)
            coef[self.support_], intercept = fit.coef, fit.intercept
        else:
            kept, coef[self.support_] = found.coefs[best]
            intercept = models.intercepts[best]
            if self.fit_intercept:
                intercept = intercept + shift[p:] - shift[:p][kept] @ coef[kept]
        self._linear(coef, intercept)
        return self

    def _chosen(self, scores: Floats, found: Elimination) -> int:
        """The place of the best number of columns among all, the least first; told by the attributes."""
        counts = np.array(found.counts[::-1])
        mean = np.nan_to_num(scores.mean(axis=0), nan=-np.inf)
        best = int(np.argmax(mean >= mean.max() - ALIKE))
        self.n_features_ = int(counts[best])
        self.ranking_ = np.maximum(found.ranking - best, 1).astype(int)
        self.support_ = self.ranking_ == 1
        self.cv_results_ = {
            "mean_test_score": scores.mean(axis=0),
            "std_test_score": scores.std(axis=0),
            "n_features": counts,
        } | {f"split{k}_test_score": row for k, row in enumerate(scores)}
        return best

    def transform(self, X: Any) -> Any:
        """(rows, n_features_) the columns that are kept."""
        return super().transform(as_numpy(X))

    def _get_support_mask(self) -> Array:
        check_is_fitted(self)
        found: Array = self.support_
        return found


class StreamingPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Streaming):  # type: ignore[misc]
    """The exact principal components of data of any size, in one pass and ``8 p²`` bytes.

    In memory, call scikit-learn's ``PCA``: it is as fast, and its SVD resolves variances below 1e-16 of the largest.

    Args:
        n_components: how many; None for all that carry variance; below 1 the share of it to explain.
        whiten: scale the scores to unit variance.
        precision: "float64", or "float32" for products in float32: almost twice as fast, with variances off by about
            1e-8, without a bound that would be of use.

    Attributes:
        components_, explained_variance_, explained_variance_ratio_, singular_values_, mean_, noise_variance_,
        n_samples_seen_: as scikit-learn's ``IncrementalPCA``. moments_: of the data.
    """

    def __init__(self, n_components: float | None = None, *, whiten: bool = False, precision: str = "float64") -> None:
        self.n_components = n_components
        self.whiten = whiten
        self.precision = precision

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit; X as ``StreamingRidge.fit``; y is ignored."""
        return self._add(X, sample_weight, None, 2)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Add rows. After the first one alone, all variances are nought."""
        return self._add(X, sample_weight, getattr(self, "moments_", None), 1)

    def _add(self, X: Any, sample_weight: Any, before: Moments | None, least: int) -> Self:
        rows = self._rows(X, None, sample_weight, reset=before is None, ensure_all_finite=False)
        rows = rows.whole()  # of a .npy the last column is no target here
        m = Moments(precision=self.precision) if before is None else before
        if before is not None:  # while the rows are not in yet
            check_count(self.n_components, m.p, m.n, 0)
        m.update(rows)
        refuse_categories(m.encoder.categorical)
        found = components(m, self.n_components, least=least)
        self.moments_ = m
        self.mean_, self.components_ = found.mean, found.components
        self.explained_variance_, self.explained_variance_ratio_ = found.variance, found.ratio
        self.singular_values_ = np.sqrt(found.variance * m.freedom)
        self.noise_variance_, self.n_samples_seen_ = found.left, int(m.n)
        self.n_components_, self.n_features_in_ = len(found.components), m.p
        return self

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def transform(self, X: Any) -> Floats:
        """(rows, components) scores."""
        scores: Floats = (self._input(X) - self.mean_) @ self.components_.T
        return scores / self._spread() if self.whiten else scores

    def inverse_transform(self, X: Any) -> Floats:
        """(rows, features) from scores."""
        check_is_fitted(self)
        scores = np.asarray(X) * self._spread() if self.whiten else np.asarray(X)
        found: Floats = scores @ self.components_ + self.mean_
        return found

    def _spread(self) -> Floats:
        found: Floats = np.sqrt(np.maximum(self.explained_variance_, np.finfo(float).tiny))
        return np.where(found > 1e-150, found, 1.0)

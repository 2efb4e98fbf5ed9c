"""Features that make curved problems linear: hinges and random features. RBF and Nyström: call scikit-learn's
``RBFSampler`` and ``Nystroem`` in a pipeline before ``StreamingRidge``."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state

from hasten.solve.estimator import Streaming, as_numpy
from hasten.solve.kernel import Floats


class Hinges(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Streaming):  # type: ignore[misc]
    """Every column, and ``max(0, column - knot)`` at quantiles: with ridge an additive model of broken lines.

    (Friedman, "Multivariate Adaptive Regression Splines", The Annals of Statistics 19(1), 1991, p. 1-67: its basis,
    without the search.)

    Args:
        knots: a column.

    Attributes:
        knots_: (knots, p).
    """

    def __init__(self, knots: int = 8) -> None:
        self.knots = knots

    def fit(self, X: Any, y: Any = None) -> Self:
        """Quantiles of at most 100,000 rows."""
        source = self._rows(X, None)
        rows = next(iter(source.blocks())).x[:100_000]
        self.mean_ = rows.mean(axis=0, dtype=np.float64)
        spread = rows.std(axis=0, dtype=np.float64)
        self.scale_ = np.where(spread > 0, spread, 1.0)
        self.knots_ = np.quantile(rows, np.linspace(0, 1, self.knots + 2)[1:-1], axis=0)
        self._n_features_out = rows.shape[1] * (1 + self.knots)
        return self

    def transform(self, X: Any) -> Floats:
        """(rows, p * (1 + knots)), in standard deviations."""
        x = self._input(X)
        bent = np.maximum(x[:, None, :] - self.knots_, 0).reshape(len(x), -1) / np.tile(self.scale_, self.knots)
        return np.hstack([(x - self.mean_) / self.scale_, bent])


class RandomFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Streaming):  # type: ignore[misc]
    """``max(0, z @ W + b)`` of standardised columns with random W: a hidden layer that is not trained.

    With ridge on top this is a random-feature model (Rahimi & Recht, "Weighted Sums of Random Kitchen Sinks", NeurIPS
    2008). On tables gradient boosting is usually better: see ``solve.ladder``.

    Args:
        n_components: how many.
        random_state: as scikit-learn's.
    """

    def __init__(self, n_components: int = 512, *, random_state: Any = None) -> None:
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw W for X's columns."""
        rows = next(iter(self._rows(as_numpy(X), None).blocks())).x
        self.mean_ = rows.mean(axis=0, dtype=np.float64)
        spread = rows.std(axis=0, dtype=np.float64)
        self.scale_ = np.where(spread > 0, spread, 1.0)
        random = check_random_state(self.random_state)
        self.weights_ = random.standard_normal((rows.shape[1], self.n_components)) / np.sqrt(rows.shape[1])
        self.offset_ = random.uniform(-1, 1, self.n_components)
        self._n_features_out = self.n_components
        return self

    def transform(self, X: Any) -> Floats:
        """(rows, n_components)."""
        found: Floats = np.maximum((self._input(X) - self.mean_) / self.scale_ @ self.weights_ + self.offset_, 0)
        return found

"""Features that make curved problems linear: hinges and random features. Polynomials and kernels are scikit-learn's
(``PolynomialFeatures``, ``Nystroem``); ``expanded`` applies any of them to rows that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state

from hasten.solve.accuracy import host
from hasten.solve.estimator import Streaming, as_numpy
from hasten.solve.kernel import Floats
from hasten.solve.problems import BadData
from hasten.solve.source import Block, Source, first_block, open_source

QUANTILE_ROWS = 100_000


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
        """Quantiles of at most 100,000 rows that lie evenly in X; of a stream, in its first block."""
        rows = first_block(self._rows(X, None)).x
        rows = rows[:: -(-len(rows) // QUANTILE_ROWS)]
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
        rows = first_block(self._rows(as_numpy(X), None)).x
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


class Expanded(Source):
    """The rows of a source after a transformer, block by block."""

    def __init__(self, source: Source, transformer: Any) -> None:
        self.source, self.transformer, self.rows, self.again = source, transformer, source.rows, source.again

    def blocks(self, first: int = 0) -> Iterator[Block]:
        names: list[str] = []
        for block in self.source.blocks(first):
            block = host(block)
            x = np.ascontiguousarray(self.transformer.transform(block.x))
            names = names or [str(name) for name in self.transformer.get_feature_names_out(block.names)]
            yield replace(block, x=x, names=names)


def expanded(X: Any, transformer: Any, y: Any = None, sample_weight: Any = None, *, target: Any = None) -> Source:
    """Rows of any size with more columns: what a transformer makes of each block.

    Args:
        X, y, sample_weight, target: as ``Moments.update`` and ``open_source`` take them; without missing values.
        transformer: of scikit-learn's kind, one row at a time (polynomials, hinges, random features, ``Nystroem``). It
            is fitted here, on the first block.

    Returns:
        What ``Moments.update`` and the estimators' ``fit`` take instead of X and y.

    Raises:
        BadData: no rows, or texts among the columns.
    """
    source = open_source(X, y, sample_weight, target=target)
    if not source.again:
        raise BadData("these rows can be read once", "a generator was given", "a path, a loader, or a list of batches")
    transformer.fit(host(first_block(source)).x)
    return Expanded(source, transformer)

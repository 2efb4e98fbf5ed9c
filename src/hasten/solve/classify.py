"""Classifiers: ``StreamingLogistic``, ``Prototypes``."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight

from hasten.solve.dealing import check_classes
from hasten.solve.estimator import Streaming, as_numpy, is_stream, labels_apart
from hasten.solve.glm import newton
from hasten.solve.kernel import Array, Floats
from hasten.solve.linear import one_alpha
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData
from hasten.solve.source import open_source
from hasten.solve.spread import discriminant


class Scored(ClassifierMixin, Streaming):  # type: ignore[misc]
    """Classifies by ``decision_function``."""

    def decision_function(self, X: Any) -> Floats:
        """(rows,) for two classes, else (rows, classes)."""
        scores: Floats = self._input(X) @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> Array:
        """(rows,) labels."""
        scores = self.decision_function(X)
        at = (scores > 0).astype(int) if scores.ndim == 1 else np.argmax(scores, axis=1)
        found: Array = self.classes_[at]
        return found

    def predict_proba(self, X: Any) -> Floats:
        """(rows, classes)."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            positive = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
            return np.column_stack([1 - positive, positive])
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: Floats = raised / raised.sum(axis=1, keepdims=True)
        return found


class StreamingLogistic(Scored):
    """Logistic regression: in memory by scikit-learn's solver, over streams by Newton's method.

    Args:
        alpha: penalty ``alpha / 2 * |coef|²``; scikit-learn's ``1 / C``.
        solver: "auto" (a stream for paths, loaders and sources, scikit-learn in memory), "sklearn" or "stream" (two
            classes only).
        fit_intercept: not penalised.
        tol: of the relative loss still to gain, for the stream.

    Attributes:
        coef_: (1 or classes, p). intercept_: (1 or classes,). classes_: labels. method_: who solved it.
        n_iter_: passes over the data, or scikit-learn's iterations.
    """

    def __init__(
        self, alpha: float = 1.0, *, solver: str = "auto", fit_intercept: bool = True, tol: float = 1e-8
    ) -> None:
        self.alpha = alpha
        self.solver = solver
        self.fit_intercept = fit_intercept
        self.tol = tol

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = self.solver != "stream"
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit; y may be the name of a table's column. The targets of a stream are 0 and 1."""
        if self.solver not in ("auto", "sklearn", "stream"):
            raise BadData(f"solver={self.solver!r}", "a typing error", "auto, sklearn or stream")
        one_alpha(self.alpha)
        if is_stream(X):
            self.classes_ = np.array([0, 1])
            source = open_source(X, y, sample_weight)
            self._seen(source, True)
            return self._newton(source, None, None)
        X, y = labels_apart(X, y)
        check_classes(y)
        X, y = self._checked(X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_.tolist()[0]!r}); 1 class leaves nothing to learn")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(as_numpy(sample_weight), X, dtype=np.float64, ensure_non_negative=True)
        if self.solver == "stream":
            if len(self.classes_) > 2:
                raise BadData(
                    "Only binary classification is supported. The type of the target is multiclass",
                    "the stream's solver is binary", 'solver="sklearn"',
                )  # fmt: skip
            return self._newton(X, codes.astype(float), sample_weight)
        return self._sklearn(X, codes, sample_weight)

    def _newton(self, X: Any, y: Any, sample_weight: Any) -> Self:
        found = newton(
            X, y, alpha=self.alpha, sample_weight=sample_weight, fit_intercept=self.fit_intercept, tol=self.tol
        )  # fmt: skip
        if not found.converged:
            warnings.warn(
                f"{found.passes} passes did not reach the optimum: are the classes separable? A larger alpha has one.",
                ConvergenceWarning, stacklevel=3,
            )  # fmt: skip
        self.coef_, self.intercept_ = found.coef[None], np.array([found.intercept])
        self.n_features_in_ = len(found.coef)
        self.method_, self.n_iter_ = found.method, found.passes
        return self

    def _sklearn(self, X: Array, codes: Array, sample_weight: Any) -> Self:
        solver = "newton-cholesky" if len(X) > 10 * X.shape[1] and X.shape[1] * len(self.classes_) < 3000 else "lbfgs"
        weighed = sample_weight is not None and sample_weight.any()
        mean = np.average(X, axis=0, weights=sample_weight if weighed else None).astype(X.dtype)
        mean *= self.fit_intercept
        found = LogisticRegression(  # of centred columns: an offset is a condition, and the intercept is not penalised
            C=1 / max(self.alpha, 1e-300), solver=solver, fit_intercept=self.fit_intercept, max_iter=1000
        ).fit(X - mean, codes, sample_weight)  # fmt: skip
        self.coef_ = found.coef_.astype(np.float64)  # of float32 an offset would cost the scores their digits
        self.intercept_ = np.broadcast_to(found.intercept_, (len(found.coef_),)) - self.coef_ @ mean
        self.method_, self.n_iter_ = f"scikit-learn, {solver}", int(np.max(found.n_iter_))
        return self


class Prototypes(Scored):
    """Few-shot classification of embeddings: class means under one shared, shrunk covariance.

    A handful of examples a class is enough; ``partial_fit`` adds examples and new classes at once.

    Args:
        shrinkage: of the covariance toward its mean variance, 0 to 1; "auto" is ``p / (p + rows - classes)``, which
            trusts the covariance as rows outnumber columns; 1 is nearest prototype.
        normalise: scale every embedding to length 1 first, as Siamese and contrastive networks compare them.

    Attributes:
        classes_, coef_, intercept_: linear scores. prototypes_: (classes, p) means. shrinkage_: used.
    """

    def __init__(self, shrinkage: float | str = "auto", *, normalise: bool = False) -> None:
        self.shrinkage = shrinkage
        self.normalise = normalise

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Args: X: (rows, p) embeddings; y: (rows,) labels, or the name of their column."""
        self.__dict__.pop("moments_", None)
        return self._add(X, y, sample_weight, True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Add examples; labels that were not seen so far become new classes. ``classes`` is not needed."""
        return self._add(X, y, sample_weight, not hasattr(self, "moments_"))

    def _add(self, X: Any, y: Any, sample_weight: Any, first: bool) -> Self:
        X, y = labels_apart(X, y)
        check_classes(y)
        X, y = self._checked(X, y, reset=first)
        check_classification_targets(y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(as_numpy(sample_weight), X, dtype=np.float64, ensure_non_negative=True)
        if first and len(np.unique(y)) < 2:
            raise ValueError("y holds one class only; 1 class leaves nothing to learn")
        if first:
            self.moments_ = Moments()
        self.moments_.update(self._scaled(X), None, sample_weight, groups=y)
        return self._solve()

    def _solve(self) -> Self:
        m = self.moments_
        k = int((m.parts.weight > 0).sum())
        auto = m.p / (m.p + max(m.weight - k, m.n - k, 1e-9))  # weights below 1 are no counts of rows
        self.shrinkage_ = float(auto if self.shrinkage == "auto" else self.shrinkage)
        found = discriminant(m, self.shrinkage_, np.full(len(m.labels), 1 / max(k, 1)))
        order = np.argsort(np.asarray(found.classes), kind="stable")
        self.classes_ = np.asarray(found.classes)[order]
        self.prototypes_ = found.means[order]
        coef, intercept = found.coef.T[order], found.intercept[order]
        two = k == 2
        self.coef_ = coef[1:] - coef[:1] if two else coef
        self.intercept_ = intercept[1:] - intercept[:1] if two else intercept
        return self

    def decision_function(self, X: Any) -> Floats:
        """As ``Scored``."""
        scores: Floats = self._scaled(self._input(X)) @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def _scaled(self, X: Array) -> Array:
        if not self.normalise:
            return X
        found: Array = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-30)
        return found

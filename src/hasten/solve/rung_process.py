"""Where the rungs of the ladder run: a process that is ended when the time is over.

``python -m hasten.solve.rung_process FOLDER DESCRIPTOR``
"""

from __future__ import annotations

import importlib
import pickle
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from hasten.solve.kernel import Array, Floats

PILOT = 0.1  # of the rows, for predicting a rung's seconds
ROUNDED = 1e-14  # of a target, by which a model of targets that are all alike may miss them
FEW = 3  # rows of every class that any part of them has


def main(folder: str, descriptor: str) -> None:
    """Say that it has started, then do what comes down the line: (estimator, "score" or "fit", seconds left) to an
    outcome, or a text of an error."""
    data, line = Path(folder), Connection(int(descriptor))
    x, y = np.load(data / "x.npy", mmap_mode="r"), np.load(data / "y.npy")
    folds = pickle.loads((data / "folds.pickle").read_bytes())
    importlib.import_module("sklearn.base")  # which every rung takes
    line.send({"ready": True})
    while True:
        try:
            estimator, what, left = line.recv()
        except EOFError:
            return
        try:
            if what == "fit":
                line.send({"model": estimator.fit(x, y)})
            else:
                line.send(score_folds(estimator, x, y, folds, time.monotonic() + left))
        except Exception as error:
            line.send({"error": f"{type(error).__name__}: {error}"})


def score_folds(estimator: Any, X: Array, y: Array, folds: Any, deadline: float) -> dict[str, Any]:
    """Scores of an estimator on every fold; nothing but a prediction of its seconds where they would be too many, with
    a last fit on all rows behind them.

    Args:
        y: (rows,) float64 for regression, scored by R²; whole numbers of classes, scored by accuracy.
    """
    from sklearn.base import clone

    rows = folds[0][0]
    predicted = len(folds) * _fit_seconds(estimator, X, y, rows, clone)
    if time.monotonic() + predicted * (1 + len(X) / len(rows) / len(folds)) > deadline:
        return {"skipped": True, "predicted": predicted}
    start = time.monotonic()
    scores = []
    for train, test in folds:
        model = _fresh(estimator, clone).fit(X[train], y[train])
        predictions = np.asarray(model.predict(X[test])).reshape(y[test].shape)
        if y.dtype.kind != "f":
            scores.append(float((predictions == y[test]).mean()))
        else:
            if not np.isfinite(predictions).all():
                raise ValueError("it predicts NaN or infinity")
            scores.append(r2(y[test], predictions))
    return {"scores": scores, "predicted": predicted, "seconds": time.monotonic() - start}


def r2(y: Floats, predictions: Floats) -> float:
    """As scikit-learn's ``r2_score``: of targets that do not vary 1 where they are predicted, else 0, bar rounding."""
    rest, total = (float(np.sum((y - others) ** 2)) for others in (predictions, y.mean()))
    rounding = len(y) * (ROUNDED * float(np.abs(y).max())) ** 2
    return 1 - rest / total if total > rounding else float(rest <= rounding)


def _fit_seconds(estimator: Any, X: Array, y: Array, rows: Array, clone: Any) -> float:
    """Predicted seconds of one fit: a fixed part and a part a row, from fits on a part of the rows and half of it."""
    most, rows = min(max(int(PILOT * len(rows)), 50), len(rows)), shuffled(rows, y)
    seconds = []
    for size in (most // 2, most // 2, most):  # the first one warms up libraries and is not counted
        start = time.monotonic()
        _fresh(estimator, clone).fit(X[rows[:size]], y[rows[:size]])
        seconds.append(time.monotonic() - start)
    slope = max(seconds[2] - seconds[1], 0.0) / max(most - most // 2, 1)
    return seconds[2] + slope * (len(rows) - most)


def shuffled(rows: Array, y: Array) -> Array:
    """Rows in an order whose beginning stands for all of them: shuffled, a few of every class first."""
    order = np.random.default_rng(0).permutation(rows)
    if y.dtype.kind == "f":
        return order
    by = np.argsort(y[order], kind="stable")
    _, first, which = np.unique(y[order][by], return_index=True, return_inverse=True)
    rank = np.empty(len(order), np.int64)
    rank[by] = np.arange(len(order)) - first[which]
    found: Array = order[np.argsort(np.minimum(rank, FEW), kind="stable")]
    return found


def _fresh(estimator: Any, clone: Any) -> Any:
    try:
        return clone(estimator)
    except TypeError:  # not one of scikit-learn's kind
        import copy

        return copy.deepcopy(estimator)


if __name__ == "__main__":
    main(*sys.argv[1:])

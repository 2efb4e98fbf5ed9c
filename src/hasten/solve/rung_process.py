"""Where the rungs of the ladder run: a process that is ended when the time is over.

``python -m hasten.solve.rung_process FOLDER DESCRIPTOR``
"""

from __future__ import annotations

import pickle
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from hasten.solve.kernel import Array

PILOT = 0.1  # of the rows, for predicting a rung's seconds


def main(folder: str, descriptor: str) -> None:
    """Do what comes down the line: (estimator, "score" or "fit", seconds left) to an outcome, or a text of an error."""
    data, line = Path(folder), Connection(int(descriptor))
    x, y = np.load(data / "x.npy", mmap_mode="r"), np.load(data / "y.npy")
    folds = pickle.loads((data / "folds.pickle").read_bytes())
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
    """Scores of an estimator on every fold; nothing but a prediction of its seconds where they would be too many."""
    from sklearn.base import clone

    rows = folds[0][0]
    predicted = len(folds) * _fit_seconds(estimator, X, y, rows, clone)
    if time.monotonic() + predicted > deadline:
        return {"skipped": True, "predicted": predicted}
    start = time.monotonic()
    scores = []
    for train, test in folds:
        model = _fresh(estimator, clone).fit(X[train], y[train])
        predictions = np.asarray(model.predict(X[test]))
        if (y.dtype.kind in "iu" and not hasattr(model, "score")) or _classifies(model):
            scores.append(float((predictions == y[test]).mean()))
        else:
            rest = float(np.sum((y[test] - predictions.reshape(y[test].shape)) ** 2))
            scores.append(1 - rest / max(float(np.sum((y[test] - y[test].mean()) ** 2)), 1e-300))
    return {"scores": scores, "predicted": predicted, "seconds": time.monotonic() - start}


def _fit_seconds(estimator: Any, X: Array, y: Array, rows: Array, clone: Any) -> float:
    """Predicted seconds of one fit: a fixed part and a part a row, from fits on a part of the rows and half of it."""
    most = min(max(int(PILOT * len(rows)), 50), len(rows))
    seconds = []
    for size in (most // 2, most // 2, most):  # the first one warms up libraries and is not counted
        start = time.monotonic()
        _fresh(estimator, clone).fit(X[rows[:size]], y[rows[:size]])
        seconds.append(time.monotonic() - start)
    slope = max(seconds[2] - seconds[1], 0.0) / max(most - most // 2, 1)
    return seconds[2] + slope * (len(rows) - most)


def _classifies(model: Any) -> bool:
    from sklearn.base import is_classifier

    try:
        return bool(is_classifier(model))
    except (AttributeError, TypeError):
        return False


def _fresh(estimator: Any, clone: Any) -> Any:
    try:
        return clone(estimator)
    except TypeError:  # not one of scikit-learn's kind
        import copy

        return copy.deepcopy(estimator)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""``ladder``: simple first. Each rung is tried on the same folds, and climbing stops when it no longer pays.

Constant, linear, additive, gradient boosting, the user's network. Every rung's cost is predicted before it starts, from
a fit on a part of the rows; the budget is hard: boosting and networks run in a process of their own that is ended when
the time is over, the short rungs below under an alarm. Climbing by one standard error: Breiman, Friedman, Olshen &
Stone, Classification and Regression Trees, 1984, p. 78-80.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hasten.solve.kernel import Array, Floats
from hasten.solve.problems import BadData, need

PILOT = 0.1  # of the rows, for predicting a rung's seconds


class OutOfTime(Exception):
    """The budget is spent."""


@dataclass(frozen=True)
class Rung:
    """One kind of model.

    Attributes:
        name: of it. predicted, seconds: of all folds together; NaN where it did not run.
        score: mean over folds (R², or accuracy), NaN where it did not run. error: standard error of the mean.
        gain: mean gain over the best rung below; gain_error: its standard error, from differences fold by fold.
        status: "kept", "no gain", "too long", "out of time", "failed: …" or "not reached".
    """

    name: str
    predicted: float = float("nan")
    seconds: float = float("nan")
    score: float = float("nan")
    error: float = float("nan")
    gain: float = float("nan")
    gain_error: float = float("nan")
    status: str = "not reached"


@dataclass(frozen=True)
class Ladder:
    """The rungs; ``str()`` of it is a table with a plot.

    Attributes:
        rungs: in order. best: name of the highest rung that paid. model: it, fitted on all rows; None where the budget
            did not allow that. metric: "R²" or "accuracy". budget, seconds: allowed, and taken in all.
    """

    rungs: tuple[Rung, ...]
    best: str
    model: Any
    metric: str
    budget: float
    seconds: float

    def __str__(self) -> str:
        lines = [f"{'rung':<18}{'predicted s':>12}{'seconds':>10}{self.metric:>10}{'±':>9}  status"]
        scores = [r.score for r in self.rungs if np.isfinite(r.score)]
        low, high = min(scores, default=0.0), max(scores, default=1.0)
        for r in self.rungs:
            cells = ((r.predicted, 2, 12), (r.seconds, 2, 10), (r.score, 4, 10), (r.error, 4, 9))
            figures = "".join(f"{_text(v, d):>{w}}" for v, d, w in cells)
            share = (r.score - low) / (high - low) if np.isfinite(r.score) and high > low else 0.0
            lines.append(f"{r.name:<18}{figures}  {r.status:<12} {'█' * round(20 * share)}")
        lines.append(f"\n{self.best} is the highest rung that pays; {self.seconds:.1f} of {self.budget:.1f} s used")
        return "\n".join(lines)


def ladder(
    X: Any, y: Any, budget: float = 60.0, *, task: str = "auto", network: Any = None, cv: int = 5,
    random_state: int = 0, climb_all: bool = False,
) -> Ladder:  # fmt: skip
    """Find the simplest kind of model that is as good as the more complex ones, within a time that really holds.

    Args:
        X: (rows, features) numbers. y: (rows,).
        budget: seconds for everything, the fit of the best rung on all rows included.
        task: "regression", "classification", or "auto": classification where y holds texts or few whole numbers.
        network: an estimator of yours with ``fit`` and ``predict`` as the last rung. If it can be pickled it runs in a
            process of its own; if not, in this one, and is interrupted by an alarm at the budget's end (only in the
            main thread, and not inside one long call of compiled code).
        cv: folds; shuffled, and stratified for classes, the same for all rungs.
        climb_all: try every rung that fits the budget, whether or not the last one paid.

    Raises:
        BadData: NaN, too few rows, or an unknown task.
    """
    start = time.monotonic()
    X, y, task, metric, folds = _prepared(X, y, task, cv, random_state)
    deadline = start + budget
    found: list[Rung] = []
    scores: dict[str, Floats] = {}
    best = ""
    rungs = _rungs(task, network, random_state)
    with tempfile.TemporaryDirectory(prefix="hasten-ladder-") as folder:
        data = Path(folder)
        np.save(data / "x.npy", X)
        np.save(data / "y.npy", y)
        (data / "folds.pickle").write_bytes(pickle.dumps(folds))
        for name, estimator, own_process in rungs:
            if best and not climb_all and found and found[-1].status == "no gain" and len(found) > 2:
                found.append(Rung(name))
                continue
            rung, values = _climb(name, estimator, own_process, data, X, y, folds, deadline)
            if values is not None:
                scores[name] = values
                rung = _judged(rung, values, scores.get(best))
                best = name if rung.status == "kept" else best
            found.append(rung)
        model = _refit(best, rungs, data, X, y, deadline)
    return Ladder(tuple(found), best, model, metric, budget, time.monotonic() - start)


def _prepared(X: Any, y: Any, task: str, cv: int, seed: int) -> tuple[Array, Array, str, str, Any]:
    selection = need("sklearn.model_selection", "the ladder")
    X = np.ascontiguousarray(np.asarray(X.detach().cpu() if hasattr(X, "detach") else X))
    y = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    if X.ndim != 2 or X.dtype.kind not in "fiub" or y.ndim != 1 or len(y) != len(X) or len(y) < 2 * cv:
        raise BadData(
            f"X {X.shape} {X.dtype}, y {y.shape}", "texts, another shape, or too few rows for the folds",
            "X: (rows, features) of numbers, y: (rows,)",
        )  # fmt: skip
    if not np.isfinite(X).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise BadData("Input contains NaN or infinity", "missing values", "sklearn.impute.SimpleImputer, or drop rows")
    if task == "auto":
        whole = y.dtype.kind in "iub" and len(np.unique(y)) <= max(20, len(y) // 1000)
        task = "classification" if y.dtype.kind in "OUSb" or whole else "regression"
    if task not in ("regression", "classification"):
        raise BadData(f"task={task!r}", "a typing error", "regression, classification or auto")
    if task == "classification":
        y = np.unique(y, return_inverse=True)[1]
        folds = selection.StratifiedKFold(cv, shuffle=True, random_state=seed).split(X, y)
        return X, y, task, "accuracy", list(folds)
    return X, y, task, "R²", list(selection.KFold(cv, shuffle=True, random_state=seed).split(X))


def _rungs(task: str, network: Any, seed: int) -> list[tuple[str, Any, bool]]:
    """(name, estimator, whether it may need to be ended and so runs in its own process)."""
    dummy, pipe = need("sklearn.dummy", "the ladder"), need("sklearn.pipeline", "the ladder")
    scaling = need("sklearn.preprocessing", "the ladder")
    from hasten.solve.classify import StreamingLogistic
    from hasten.solve.features import Hinges
    from hasten.solve.regress import StreamingRidge

    alphas = tuple(np.logspace(-3, 4, 15))
    if task == "regression":
        constant, linear = dummy.DummyRegressor(), StreamingRidge(alphas, cv=5, scale=True)
        additive = pipe.make_pipeline(Hinges(), StreamingRidge(alphas, cv=5, scale=True))
    else:
        constant = dummy.DummyClassifier()
        linear = pipe.make_pipeline(scaling.StandardScaler(), StreamingLogistic(1.0))
        additive = pipe.make_pipeline(Hinges(), StreamingLogistic(1.0))
    boosted, title = _boosting(task, seed)
    rungs = [
        ("constant", constant, False), ("linear", linear, False), ("additive", additive, False), (title, boosted, True),
    ]  # fmt: skip
    if network is not None:
        rungs.append(("your network", network, _picklable(network)))
    return rungs


def _boosting(task: str, seed: int) -> tuple[Any, str]:
    try:
        import lightgbm

        kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
        return kind(n_estimators=300, learning_rate=0.05, random_state=seed, verbose=-1), "LightGBM"
    except (ImportError, OSError):
        ensemble = need("sklearn.ensemble", "the ladder")
        regression = task == "regression"
        kind = ensemble.HistGradientBoostingRegressor if regression else ensemble.HistGradientBoostingClassifier
        return kind(random_state=seed), "HistGradientBoosting"


def _picklable(estimator: Any) -> bool:
    if type(estimator).__module__ == "__main__":
        return False
    try:
        pickle.dumps(estimator)
    except Exception:
        return False
    return True


def _climb(
    name: str, estimator: Any, own: bool, data: Path, X: Array, y: Array, folds: Any, deadline: float
) -> tuple[Rung, Floats | None]:
    """Predict the rung's cost, and run it if it fits."""
    before = time.monotonic()
    rung = Rung(name)
    if before >= deadline:
        return replace(rung, status="out of time"), None
    try:
        if own:
            outcome = _in_process(estimator, data, "score", deadline)
        else:
            with _alarm(deadline):
                outcome = score_folds(estimator, X, y, folds, deadline)
    except OutOfTime:
        return replace(rung, seconds=time.monotonic() - before, status="out of time"), None
    except Exception as error:
        return replace(rung, seconds=time.monotonic() - before, status=f"failed: {error!s:.60}"), None
    if outcome.get("skipped"):
        return replace(rung, predicted=outcome["predicted"], status="too long"), None
    values = np.asarray(outcome["scores"])
    return replace(rung, predicted=outcome["predicted"], seconds=outcome["seconds"]), values


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


def _judged(rung: Rung, values: Floats, below: Floats | None) -> Rung:
    """Whether the gain over the best rung below exceeds one standard error."""
    n = len(values)
    error = float(values.std(ddof=1) / np.sqrt(n))
    rung = replace(rung, score=float(values.mean()), error=error)
    if below is None:
        return replace(rung, status="kept")
    gains = values - below
    gain, gain_error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(n))
    kept = gain > gain_error and gain > 0
    return replace(rung, gain=gain, gain_error=gain_error, status="kept" if kept else "no gain")


def _refit(best: str, rungs: Any, data: Path, X: Array, y: Array, deadline: float) -> Any:
    """The best rung on all rows, if time is left."""
    for name, estimator, own in rungs:
        if name != best:
            continue
        try:
            if own:
                return _in_process(estimator, data, "fit", deadline)["model"]
            with _alarm(deadline):
                return estimator.fit(X, y)
        except (OutOfTime, BadData):
            return None
    return None


def _in_process(estimator: Any, data: Path, what: str, deadline: float) -> dict[str, Any]:
    """Run in a new process that ends with the budget.

    Raises:
        OutOfTime: it did not end before. BadData: it failed.
    """
    (data / "estimator.pickle").write_bytes(pickle.dumps(estimator))
    left = deadline - time.monotonic()
    words = [sys.executable, "-m", "hasten.solve.rung_process", str(data), what, repr(left)]
    path = os.pathsep.join(p for p in sys.path if p)
    child = subprocess.Popen(
        words, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = child.communicate(timeout=max(left, 0))
    except subprocess.TimeoutExpired:
        raise OutOfTime from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode:
        raise BadData(errors.decode(errors="replace").strip().splitlines()[-1] if errors else "it ended", "", "")
    found: dict[str, Any] = pickle.loads((data / "outcome.pickle").read_bytes())
    return found


@contextmanager
def _alarm(deadline: float) -> Iterator[None]:
    """Raise ``OutOfTime`` at the deadline, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise OutOfTime

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"

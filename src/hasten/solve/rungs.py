"""``ladder``: simple first. Each rung is tried on the same folds, and climbing stops when it no longer pays.

Constant, linear, additive, gradient boosting, the user's network. Every rung's cost is predicted before it starts, from
a fit on a part of the rows; the budget is hard: the rungs run in a process of their own that is ended when the time is
over. A rung that pays is fitted on all rows before the next one is tried, so whatever that one takes there is a model.
Climbing by one standard error: Breiman, Friedman, Olshen & Stone, Classification and Regression Trees, 1984, p. 78-80.
"""

from __future__ import annotations

import math
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
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import numpy as np

from hasten.solve.arrays import in_host
from hasten.solve.dealing import check_classes
from hasten.solve.kernel import Array, Floats
from hasten.solve.problems import BadData, need
from hasten.solve.rung_process import score_folds

QUIET = {"OMP_WAIT_POLICY": "PASSIVE"}  # while others had the cores, boosting's threads spun for 10 to 40 times as long


class OutOfTime(BaseException):
    """The budget is spent. No ``Exception``: what is interrupted may catch those and go on."""


@dataclass(frozen=True)
class Rung:
    """One kind of model.

    Attributes:
        name: of it. predicted, seconds: of all folds together; NaN where it did not run.
        score: mean over folds (R², or accuracy), NaN where it did not run. error: standard error of the mean.
        gain: mean gain over the best rung below; gain_error: its standard error, from differences fold by fold.
        status: "kept", "no gain", "too long" (its folds and a last fit would not end in time), "out of time",
            "failed: …" or "not reached".
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
class Labelled:
    """A classifier that was fitted on numbers of classes, predicting the labels these stand for.

    Attributes:
        model: the classifier. classes_: (classes,) labels.
    """

    model: Any
    classes_: Array

    def predict(self, X: Any) -> Array:
        """(rows,) labels."""
        found: Array = self.classes_[np.asarray(self.model.predict(X)).astype(np.int64)]
        return found

    def predict_proba(self, X: Any) -> Floats:
        """(rows, classes), as the model has them."""
        found: Floats = self.model.predict_proba(X)
        return found

    def score(self, X: Any, y: Any) -> float:
        """Share of rows whose label is predicted."""
        return float(np.mean(self.predict(X) == np.asarray(y)))


@dataclass(frozen=True)
class Ladder:
    """The rungs; ``str()`` of it is a table with a plot.

    Attributes:
        rungs: in order. best: name of the highest rung that paid and could be fitted on all rows in time, or "".
        model: it, fitted on all rows, predicting y's own labels; None without one. metric: "R²" or "accuracy".
        budget, seconds: allowed, and taken in all.
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
        found = f"{self.best} is the highest rung that pays" if self.best else "no rung could be fitted in this time"
        lines.append(f"\n{found}; {self.seconds:.1f} of {self.budget:.1f} s used")
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
        network: an estimator of yours with ``fit`` and ``predict`` as the last rung. If it cannot be pickled it runs in
            this process and is interrupted by an alarm at the budget's end (only in the main thread, and not inside one
            long call of compiled code).
        cv: folds; shuffled, and stratified for classes, the same for all rungs.
        climb_all: try every rung that fits the budget, whether or not the last one paid.

    Raises:
        BadData: NaN, too few rows, or an unknown task.
    """
    start = time.monotonic()
    if not budget >= 0 or cv < 2:
        raise BadData(f"budget={budget}, cv={cv}", "a typing error", "budget=60, in seconds; cv=5")
    X, y, task, classes, folds = _prepared(X, y, task, cv, random_state)
    deadline = start + budget
    found: list[Rung] = []
    scores: dict[str, Floats] = {}
    best, model = "", None
    rungs = _rungs(task, network, random_state)
    with Worker(X, y, folds, deadline) as worker:
        for name, estimator in rungs:
            if best and not climb_all and len(found) > 2 and found[-1].status in ("no gain", "not reached"):
                found.append(Rung(name))
                continue
            rung, values = _climb(name, estimator, worker)
            if values is not None:
                scores[name] = values
                rung = _judged(rung, values, scores.get(best))
            if rung.status == "kept":
                rung, fitted = _fitted(rung, estimator, worker)
                best, model = (name, fitted) if rung.status == "kept" else (best, model)
            found.append(rung)
    if model is not None and classes is not None:
        model = model if _are_numbers(classes) else Labelled(model, classes)
    metric = "R²" if classes is None else "accuracy"
    return Ladder(tuple(found), best, model, metric, budget, time.monotonic() - start)


def _are_numbers(classes: Array) -> bool:
    """Whether labels are the numbers 0, 1, … of their classes."""
    return classes.dtype.kind != "b" and np.array_equal(classes, np.arange(len(classes)))


def _prepared(X: Any, y: Any, task: str, cv: int, seed: int) -> tuple[Array, Array, str, Array | None, Any]:
    """X, y (numbers of classes for texts), the task, the classes' labels, the folds."""
    selection = need("sklearn.model_selection", "the ladder")
    check_classes(y)
    X, y = np.ascontiguousarray(np.asarray(in_host(X))), np.asarray(in_host(y))
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
        classes, y = np.unique(y, return_inverse=True)
        folds = selection.StratifiedKFold(cv, shuffle=True, random_state=seed).split(X, y)
        return X, y, task, classes, list(folds)
    if y.dtype.kind not in "fiub":
        raise BadData(f"y holds {y.dtype}", "texts, which have no distance", 'task="classification"')
    folds = selection.KFold(cv, shuffle=True, random_state=seed).split(X)
    return X, y.astype(np.float64), task, None, list(folds)


def _rungs(task: str, network: Any, seed: int) -> list[tuple[str, Any]]:
    """(name, estimator), simplest first."""
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
    rungs = [("constant", constant), ("linear", linear), ("additive", additive), (title, boosted)]
    return rungs if network is None else [*rungs, ("your network", network)]


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


def _climb(name: str, estimator: Any, worker: Worker) -> tuple[Rung, Floats | None]:
    """Predict the rung's cost, and run it if it fits."""
    rung = Rung(name)
    try:
        outcome = worker.run(estimator, "score")
    except OutOfTime:
        return replace(rung, seconds=time.monotonic() - worker.asked, status="out of time"), None
    except Exception as error:
        return replace(rung, seconds=time.monotonic() - worker.asked, status=f"failed: {error!s:.60}"), None
    if outcome.get("skipped"):
        return replace(rung, predicted=outcome["predicted"], status="too long"), None
    values = np.asarray(outcome["scores"])
    return replace(rung, predicted=outcome["predicted"], seconds=outcome["seconds"]), values


def _fitted(rung: Rung, estimator: Any, worker: Worker) -> tuple[Rung, Any]:
    """The rung's model of all rows; another status where there is none."""
    try:
        return rung, worker.run(estimator, "fit")["model"]
    except OutOfTime:
        return replace(rung, status="out of time"), None
    except Exception as error:
        return replace(rung, status=f"failed: {error!s:.60}"), None


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


class Worker:
    """The process in which rungs run, gone at the deadline; what cannot be pickled runs here, under an alarm.

    Attributes:
        asked: when the last rung was begun (``time.monotonic``), after the process had started; NaN where it was not.
    """

    def __init__(self, X: Array, y: Array, folds: Any, deadline: float) -> None:
        self.data, self.deadline, self.asked = (X, y, folds), deadline, math.nan
        self.folder = tempfile.TemporaryDirectory(prefix="hasten-ladder-")
        data = Path(self.folder.name)
        np.save(data / "x.npy", X)
        np.save(data / "y.npy", y)
        (data / "folds.pickle").write_bytes(pickle.dumps(folds))
        self._begin()

    def _begin(self) -> None:
        self.ready = False
        self.line, theirs = Pipe()
        words = [sys.executable, "-m", "hasten.solve.rung_process", self.folder.name, str(theirs.fileno())]
        env = QUIET | os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.child = subprocess.Popen(
            words, env=env, start_new_session=True, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self.folder.cleanup()

    def _end(self) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self.line.close()

    def run(self, estimator: Any, what: str) -> dict[str, Any]:
        """The outcome of :mod:`hasten.solve.rung_process`.

        Args:
            what: "score" on the folds, or "fit" on all rows.

        Raises:
            OutOfTime: it did not end before the deadline. BadData: it failed.
        """
        self.asked = math.nan
        found = self._there(estimator, what) if _picklable(estimator) else self._here(estimator, what)
        if "error" in found:
            raise BadData(found["error"], "", "")
        return found

    def _there(self, estimator: Any, what: str) -> dict[str, Any]:
        try:
            if not self.ready:  # its start is no rung's time
                self.ready = bool(self._answer())
            self._ask()
            self.line.send((estimator, what, self.left))
            return self._answer()
        except (EOFError, OSError):
            self._end()
            self._begin()  # for the rungs to come, and the last fit
            raise BadData("its process has ended", "too little memory, or a crash in compiled code", "") from None

    def _ask(self) -> None:
        if self.left <= 0:
            raise OutOfTime
        self.asked = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def _answer(self) -> dict[str, Any]:
        if not self.line.poll(max(self.left, 0)):
            raise OutOfTime
        found: dict[str, Any] = self.line.recv()
        return found

    def _here(self, estimator: Any, what: str) -> dict[str, Any]:
        self._ask()
        X, y, folds = self.data
        with _alarm(self.deadline):
            if what == "fit":
                return {"model": estimator.fit(X, y)}
            return score_folds(estimator, X, y, folds, self.deadline)


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

"""Counts fits of scikit-learn's multi-layer perceptrons, which do not use torch: by the line that asks for them.

Two clock reads and a few list operations a fit. Whatever fails here is not told: the fit is the script's.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from hasten.core.codec import encode
from hasten.core.facts import FitFacts, Place
from hasten.core.plan import write_atomically
from hasten.seams import tracebacks
from hasten.seams.locate import is_users, shown
from hasten.seams.patch import Patches

MODULE = "sklearn.neural_network._multilayer_perceptron"
WRITE_SECONDS = 1.0  # a worker process that is ended has told all but its last second
# A search over settings or folds fits one model many times, not many models.
_SEARCHES = tuple(f"sklearn.{name}" for name in ("model_selection", "ensemble", "multi", "feature_selection", "calib"))

MOST_LINES = 4  # from the fit outwards

Key = tuple[tuple[Place, ...], str, tuple[int, ...], str]


class Fits:
    """All fits of this process so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[Key, FitFacts] = {}
        self.written = 0.0

    def add(self, estimator: Any, rows: int, seconds: float, frame: FrameType | None) -> None:
        """A fit has ended.

        Args:
            frame: the one that called it.
        """
        lines = _asked_by(frame)
        if lines is None or estimator.warm_start:
            return
        layers = (estimator.coefs_[0].shape[0], *(c.shape[1] for c in estimator.coefs_))
        key = (lines, type(estimator).__name__, layers, estimator.solver)
        facts = self.found.setdefault(key, FitFacts(key[1], layers, estimator.solver, lines))
        facts.models += 1
        facts.epochs += estimator.n_iter_
        facts.rows += rows
        facts.seconds += seconds
        if time.monotonic() - self.written > WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """What was found, into the session's folder."""
        if self.found and self.folder.is_dir():
            values = [encode(facts) for facts in self.found.values()]
            write_atomically(self.folder / f"fits-{os.getpid()}.json", json.dumps(values))
        self.written = time.monotonic()

    def forget(self) -> None:
        """In a forked process: what came before is its parent's to tell."""
        self.found.clear()


def _asked_by(frame: FrameType | None) -> tuple[Place, ...] | None:
    """The user's lines that asked for a fit, innermost first; None where a search stands between."""
    lines: list[Place] = []
    while frame is not None and len(lines) < MOST_LINES:
        if frame.f_globals.get("__name__", "").startswith(_SEARCHES):
            return None
        code = frame.f_code
        if is_users(code.co_filename):
            lines.append(Place(shown(code.co_filename), frame.f_lineno, code.co_name))
        frame = frame.f_back
    return tuple(lines)


def start() -> None:
    """Called right after scikit-learn's module was imported in a process under hasten."""
    fits = Fits(Path(os.environ["HASTEN_SESSION"]))
    owner = sys.modules[MODULE].BaseMultilayerPerceptron
    original = owner.fit

    @functools.wraps(original)
    def fit(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = original(self, X, *args, **kwargs)
        try:
            rows = X.shape[0] if hasattr(X, "shape") else len(X)
            fits.add(self, rows, time.perf_counter() - started, sys._getframe(1))
        except Exception:
            pass
        return result

    owner.fit = fit
    if "hasten.boot.agent" not in sys.modules:  # it does the same
        tracebacks.install(Patches())
    atexit.register(_quietly, fits.write)
    os.register_at_fork(after_in_child=fits.forget)


def _quietly(call: Any) -> None:
    try:
        call()
    except Exception:
        pass

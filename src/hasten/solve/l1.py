"""Sparse linear models: hasten has no solver of its own for L1, it calls the fastest one that is installed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.kernel import Floats
from hasten.solve.problems import BadData, need

SOLVERS = ("celer", "skglm", "sklearn.linear_model")


@dataclass(frozen=True)
class Sparse:
    """A lasso model. coef: (p,). intercept: a number. method: who solved it. model: theirs, fitted."""

    coef: Floats
    intercept: float
    method: str
    model: Any


def lasso(X: Any, y: Any, alpha: float = 1.0, *, fit_intercept: bool = True, solver: str = "auto") -> Sparse:
    """Minimise ``|y - X coef|² / (2 rows) + alpha * |coef|_1`` by celer, skglm or scikit-learn, in that order.

    Args:
        X: (rows, features) in memory. y: (rows,).
        solver: "auto", or one of ``SOLVERS``.

    Raises:
        BadData: another solver, or several targets. MissingExtra: the solver asked for is not installed.
    """
    if solver not in ("auto", *SOLVERS):
        raise BadData(f"solver={solver!r}", "a typing error", f"auto, {', '.join(SOLVERS)}")
    if np.ndim(y) != 1:
        raise BadData(f"y has the shape {np.shape(y)}", "several targets", "(rows,), or a call a target")
    name, module = _first() if solver == "auto" else (solver, need(solver, "the lasso"))
    model = module.Lasso(alpha=alpha, fit_intercept=fit_intercept).fit(X, y)
    method = f"{'scikit-learn' if name.startswith('sklearn') else name}, Lasso"
    return Sparse(np.ravel(model.coef_), float(np.ravel(model.intercept_)[0]), method, model)


def _first() -> tuple[str, Any]:
    for name in SOLVERS[:-1]:
        try:
            return name, importlib.import_module(name)
        except ImportError:
            continue
    return SOLVERS[-1], need(SOLVERS[-1], "the lasso")

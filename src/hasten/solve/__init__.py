"""Training without a loop: models whose best parameters come from one pass over the data.

The public names are loaded on first use; importing this package imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "BadData": "hasten.solve.problems",
    "MissingExtra": "hasten.solve.problems",
    "Moments": "hasten.solve.moments",
    "open_source": "hasten.solve.source",
    "lstsq": "hasten.solve.accuracy",
    "ridge": "hasten.solve.tikhonov",
    "summary": "hasten.solve.linear",
    "whitening": "hasten.solve.linear",
    "kfold": "hasten.solve.path",
    "leave_one_out": "hasten.solve.path",
    "components": "hasten.solve.spread",
    "discriminant": "hasten.solve.spread",
    "eliminate": "hasten.solve.elimination",
    "solve_groups": "hasten.solve.grouped",
    "Window": "hasten.solve.sliding",
    "Recursive": "hasten.solve.recursive",
    "newton": "hasten.solve.glm",
    "StreamingRidge": "hasten.solve.regress",
    "SlidingRidge": "hasten.solve.regress",
    "GroupRidge": "hasten.solve.regress",
    "ExactRFECV": "hasten.solve.selectors",
    "StreamingPCA": "hasten.solve.selectors",
    "StreamingLogistic": "hasten.solve.classify",
    "Prototypes": "hasten.solve.classify",
    "Hinges": "hasten.solve.features",
    "RandomFeatures": "hasten.solve.features",
    "expanded": "hasten.solve.features",
    "forecaster": "hasten.solve.forecast",
    "lagged": "hasten.solve.forecast",
    "seasons": "hasten.solve.forecast",
    "lasso": "hasten.solve.l1",
    "head": "hasten.solve.heads",
    "choose": "hasten.solve.choice",
    "ladder": "hasten.solve.rungs",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hasten.solve' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

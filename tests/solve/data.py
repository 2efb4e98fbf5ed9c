"""Data and slow, plain references that several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
from bench.solve_reference import conditioned, exact

__all__ = ["apart", "conditioned", "exact", "moments_of", "table"]


def table(rows: int = 400, features: int = 6, seed: int = 0, offset: float = 0.0) -> tuple[Any, Any]:
    """X (rows, features) and y (rows,), linear with noise."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((rows, features)) * np.linspace(1, 3, features) + offset
    y = (X - offset) @ random.standard_normal(features) + random.standard_normal(rows) + 3
    return X, y


def moments_of(Z: Any, weight: Any = None) -> tuple[Any, Any]:
    """Mean and scatter in extended precision."""
    Z = np.asarray(Z, dtype=np.longdouble)
    w = np.ones(len(Z), np.longdouble) if weight is None else np.asarray(weight, np.longdouble)
    mean = (w[:, None] * Z).sum(axis=0) / w.sum()
    C = Z - mean
    return mean, (C * w[:, None]).T @ C


def apart(found: Any, wanted: Any) -> float:
    """Largest difference over the largest number."""
    found, wanted = np.asarray(found, np.longdouble), np.asarray(wanted, np.longdouble)
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-300))

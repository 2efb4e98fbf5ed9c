"""Data and slow, plain references that several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np


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


def conditioned(rows: int, features: int, condition: float, seed: int = 0) -> Any:
    """(rows, features) with that condition."""
    random = np.random.default_rng(seed)
    u, _ = np.linalg.qr(random.standard_normal((rows, features)))
    v, _ = np.linalg.qr(random.standard_normal((features, features)))
    return (u * np.geomspace(1, 1 / condition, features) * np.sqrt(rows)) @ v.T


def exact(X: Any, y: Any) -> Any:
    """Least squares with intercept by Householder QR in extended precision."""
    R = np.asarray(X, np.longdouble)
    R = R - R.mean(axis=0)
    b = np.asarray(y, np.longdouble) - np.asarray(y, np.longdouble).mean()
    p = R.shape[1]
    for j in range(p):
        v = R[j:, j].copy()
        length = np.sqrt((v * v).sum())
        v[0] += length if v[0] >= 0 else -length
        v /= np.sqrt((v * v).sum())
        R[j:, j:] -= 2 * v[:, None] * (v @ R[j:, j:])
        b[j:] -= 2 * v * (v @ b[j:])
    w = np.zeros(p, np.longdouble)
    for j in reversed(range(p)):
        w[j] = (b[j] - R[j, j + 1 : p] @ w[j + 1 :]) / R[j, j]
    return w.astype(float)

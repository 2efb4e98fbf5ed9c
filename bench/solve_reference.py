"""Ill conditioned data, and least squares in extended precision: what benches and tests compare with."""

from __future__ import annotations

from typing import Any

import numpy as np


def conditioned(rows: int, features: int, condition: float, seed: Any = 0) -> Any:
    """(rows, features) with that condition; ``seed``: a number or a generator."""
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
    return w

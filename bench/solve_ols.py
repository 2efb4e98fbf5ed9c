"""Ordinary least squares: seconds against scikit-learn and sklearnex, and the error of all of them.

    python bench/solve_ols.py [--rows 1000000] [--skip-slow]

One thread. Seconds: every arm on the same arrays in memory, in turns. Errors: of the coefficients, relative, against
Householder QR in extended precision (numpy longdouble), median of draws, by condition, offset and dtype. "A QR"
is numpy's, in float64, on columns less their first row, beside a column of ones. sklearnex is measured where it can be
imported; otherwise its columns are dashes.
"""

from __future__ import annotations

from solve_common import fix_threads, in_turns, limits, median, ratio_line

fix_threads()

import argparse  # noqa: E402
import math  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from common import RESULTS, head, save, say  # noqa: E402
from sklearn.linear_model import LinearRegression, Ridge  # noqa: E402
from solve_reference import conditioned, exact  # noqa: E402

from hasten.solve import lstsq  # noqa: E402

CLAIM = (
    "Least squares, 1e6×100 float64, one thread (goal: 25× scikit-learn, 0.9× sklearnex's speed; error ≤ 10× a QR's)"
)
NAME = "solve-ols"
CONDITIONS = (1.0, 1e3, 1e6, 1e8, 1e10, 1e12)
OFFSETS = (0.0, 1e2, 1e4, 1e6)


def peer() -> Any:
    """sklearnex's LinearRegression, or None."""
    try:
        from sklearnex.linear_model import LinearRegression as Fast
    except ImportError:
        return None
    return Fast


def speeds(rows: int, slow: bool) -> dict[str, list[float]]:
    random = np.random.default_rng(0)
    X = random.standard_normal((rows, 100))
    y = X @ random.standard_normal(100) + random.standard_normal(rows)
    arms: dict[str, Callable[[], Any]] = {"hasten": lambda: lstsq(X, y)}
    rounds = {"hasten": 7}
    fast = peer()
    if fast is not None:
        arms["sklearnex LinearRegression"] = lambda: fast().fit(X, y)
        rounds["sklearnex LinearRegression"] = 7
    arms["scikit-learn Ridge"] = lambda: Ridge(0.0, solver="cholesky").fit(X, y)
    rounds["scikit-learn Ridge"] = 3
    if slow:
        arms["scikit-learn LinearRegression"] = lambda: LinearRegression().fit(X, y)
        rounds["scikit-learn LinearRegression"] = 2
    for name in ("hasten", "sklearnex LinearRegression"):
        if name in arms:
            arms[name]()
    return in_turns(arms, rounds)


def qr(X: Any, y: Any) -> Any:
    X, y = X.astype(float), y.astype(float)
    Q, R = np.linalg.qr(np.column_stack([np.ones(len(X)), X - X[0]]))
    return np.linalg.solve(R, Q.T @ (y - y[0]))[1:]


def errors(condition: float, offset: float, dtype: Any, draws: int = 3) -> dict[str, float]:
    """Median relative error by method; the condition is that of X before it is rounded to ``dtype``."""
    found: dict[str, list[float]] = {}
    fast = peer()
    for seed in range(draws):
        random = np.random.default_rng(seed)
        n, p = 3000, 15
        X = (conditioned(n, p, condition, random) + offset).astype(dtype)
        y = (X.astype(float) - offset) @ random.standard_normal(p) + 1e-3 * random.standard_normal(n)
        wanted = exact(X, y)
        answer = lstsq(X, y)
        methods = {"hasten": answer.coef_[:, 0], "QR": qr(X, y), "scikit-learn": LinearRegression().fit(X, y).coef_}
        if fast is not None:
            methods["sklearnex"] = np.asarray(fast().fit(X, y.astype(dtype)).coef_).ravel()
        size = float(np.linalg.norm(wanted))
        for name, coef in methods.items():
            found.setdefault(name, []).append(float(np.linalg.norm(coef - wanted)) / size)
        found.setdefault("bound", []).append(answer.error_bound_)
    return {name: float(np.median(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--skip-slow", action="store_true", help="leave out scikit-learn's LinearRegression")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    head(f"least squares, {args.rows} x 100, float64, one thread")
    seconds = speeds(args.rows, not args.skip_slow)
    for name, times in seconds.items():
        say(ratio_line(name, seconds["hasten"], times))
    table = {}
    say(f"\n{'dtype':8} {'offset':>7} {'condition':>9}   hasten       QR   bound  sklearn  sklearnex  within 10x of QR")
    for dtype in ("float32", "float64"):
        for offset in OFFSETS:
            for condition in CONDITIONS:
                row = errors(condition, offset, dtype)
                table[f"{dtype} {offset:g} {condition:g}"] = row
                fine = row["hasten"] <= max(10 * row["QR"], 1e-14)
                cells = "  ".join(f"{row.get(k, math.nan):7.0e}" for k in ("hasten", "QR", "bound", "scikit-learn"))
                other = f"{row['sklearnex']:.0e}" if "sklearnex" in row else "–"
                say(f"{dtype:8} {offset:>7g} {condition:>9g}  {cells}  {other:>9}  {'yes' if fine else 'NO'}")
    good = sum(r["hasten"] <= max(10 * r["QR"], 1e-14) for r in table.values())
    ours = seconds["hasten"]
    parts = [f"{median(ours):.2f} s ({limits(ours)[0]:.2f}–{limits(ours)[1]:.2f})"]
    for name, times in seconds.items():
        if name != "hasten":
            parts.append(f"{name} {median(times) / median(ours):.2f}×")
    wrong = sum(r.get("sklearnex", 0.0) > 1e3 * max(r["QR"], 1e-14) for r in table.values())
    summary = "; ".join(parts) + f"; error within 10× of a QR's in {good} of {len(table)} cases"
    if peer() is not None:
        summary += f" (sklearnex: off by more than 1000× in {wrong})"
    save(NAME, summary, {"seconds": {k: median(v) for k, v in seconds.items()}, "errors": table}, seconds, args.results)


if __name__ == "__main__":
    main()

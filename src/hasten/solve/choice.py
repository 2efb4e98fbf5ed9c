"""``choose``: what would be done, what it would cost, and why not the others; nothing is fitted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from hasten.solve import gram
from hasten.solve.accuracy import HOPELESS, SINGLE_COLUMNS, SINGLE_CONDITION, WELL, host
from hasten.solve.kernel import Array
from hasten.solve.linear import EPS, Factor
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, no_target
from hasten.solve.source import first_block, open_source

PILOT_ROWS = 8192


@dataclass(frozen=True)
class Candidate:
    """One way to solve the problem.

    Attributes:
        name: of the method. passes: over the data. flops: in all. seconds: predicted on this machine.
        error: first-order bound of the coefficients' relative error by rounding, for the condition seen in the first
            rows. chosen: whether it would be done. reason: why, or why not.
    """

    name: str
    passes: int
    flops: float
    seconds: float
    error: float
    chosen: bool
    reason: str


@dataclass(frozen=True)
class Choice:
    """All candidates; ``str()`` of it is a table.

    Attributes:
        rows: of the data, None where unknown. features, targets: columns.
        condition: of the first rows, columns centred and scaled; infinite where they depend on each other.
        candidates: the chosen one first.
    """

    rows: int | None
    features: int
    targets: int
    condition: float
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate:
        """What would be done."""
        return self.candidates[0]

    def __str__(self) -> str:
        head = f"{self.rows or 'unknown'} rows, {self.features} features, {self.targets} targets"
        lines = [f"{head}; condition of the first rows {self.condition:.1e}"]
        for c in self.candidates:
            mark = "→" if c.chosen else " "
            cost = f"{c.passes} pass{'es' if c.passes > 1 else ''}, {c.flops:.1e} flops, about {c.seconds:.2g} s"
            lines.append(f"{mark} {c.name:<26} {cost}, error ≤ {c.error:.0e}: {c.reason}")
        return "\n".join(lines)


def choose(X: Any, y: Any = None, *, alpha: float = 0.0, target: str | None = None, accuracy: str = "qr") -> Choice:
    """Which method ``lstsq`` and ``StreamingRidge`` would take for these data, and why not the others.

    Looks at the first rows only.

    Args:
        X, y, target: as ``Moments.update``; of a stream that can be read once, the first batch is used up.
        alpha: as scikit-learn's ``Ridge``.
        accuracy: "qr", the error of a QR decomposition; nothing else so far.

    Raises:
        BadData: no rows, or no target.
    """
    if accuracy != "qr":
        raise BadData(f"accuracy={accuracy!r}", "a typing error", 'accuracy="qr"')
    source = open_source(X, y, target=target)
    block = host(first_block(source))
    if block.y is None:
        raise no_target()
    p, q = block.x.shape[1], block.y.shape[1]
    pilot = Moments(block.x[: max(PILOT_ROWS, 4 * p)], missing="mean")
    share = pilot.n / max(source.rows or pilot.n, 1)
    scatter = pilot.scatter[:p, :p] / max(share, 1e-300) + alpha * np.eye(p)
    factor = Factor(scatter) if pilot.n > p or pilot.n == source.rows else None  # of fewer nothing is known
    condition = factor.condition if factor is not None else float("nan")
    n = float(source.rows or pilot.n)
    return Choice(source.rows, p, q, condition, ranked(n, p, q, condition, source.again))


def ranked(n: float, p: int, q: int, condition: float, again: bool) -> tuple[Candidate, ...]:
    """All candidates for a condition that is known, the chosen one first."""
    known = np.isfinite(condition)
    squared = EPS * condition**2 if known else np.inf
    if np.isnan(condition):
        squared, condition = EPS, 1.0
    best = EPS * max(p, 10) * condition * 2
    refine = known and condition > WELL and squared <= HOPELESS
    passes = 1 if condition <= WELL else 3
    single_fits = condition < SINGLE_CONDITION and p >= SINGLE_COLUMNS and again and n >= 20 * p
    name = (
        "tsqr" if squared > HOPELESS else "gram32" if single_fits else "refined" if refine and again else "gram64"
    )  # fmt: skip
    if not again and name in ("refined", "tsqr"):
        name = "gram64"
    rates = speeds()
    product, vector = n * p * (p + 2 * q), 4 * n * p * q
    corrections = 2 * vector / rates["vector"]
    rows = [
        ("gram32", "Gram in float32, refined", 3, product + 2 * vector, product / rates["single"] + corrections, best,
         _why_single(p, condition, again)),
        ("gram64", "Gram in float64", 1, product, product / rates["double"], best + EPS * max(p, 10) * condition**2,
         "one pass; the condition is small enough" if name == "gram64" and condition <= WELL else
         "one pass: these rows are read once" if name == "gram64" else
         f"would lose the square of the condition {condition:.0e}" if condition > WELL else
         "the float32 product is faster"),
        ("refined", "Gram in float64, refined", max(passes, 2), product + (passes - 1) * vector,
         product / rates["double"] + corrections, best,
         "the condition needs corrections from the true residual" if name == "refined" else
         "corrections would not converge: condition² is beyond float64" if squared > HOPELESS else
         "reads the data again, which is not possible" if not again else "no corrections are needed"),
        ("tsqr", "TSQR stream", 2, 2 * n * (p + q) ** 2 + vector, 2 * n * (p + q) ** 2 / rates["qr"], best,
         "the only one that does not square the condition" if name == "tsqr" else "as exact and slower"),
    ]  # fmt: skip
    found = [Candidate(title, k, flops, s, err, key == name, why) for key, title, k, flops, s, err, why in rows]
    found.append(_gradient(n, p, q, condition, rates))
    return tuple(sorted(found, key=lambda c: (not c.chosen, c.seconds)))


def _why_single(p: int, condition: float, again: bool) -> str:
    if p < SINGLE_COLUMNS:
        return f"below {SINGLE_COLUMNS} columns its corrections cost what it saves"
    if condition >= SINGLE_CONDITION:
        return f"float32 products need a condition below {SINGLE_CONDITION:.0f}"
    return "half the time of float64 products" if again else "its corrections read the data again"


def _gradient(n: float, p: int, q: int, condition: float, rates: dict[str, float]) -> Candidate:
    """A training loop of full gradient steps, by theory: passes grow with condition²."""
    if not np.isfinite(condition):
        condition = 1 / EPS
    passes = int(min(np.ceil(condition**2 / 2 * np.log(1e8)), 1e9))
    flops = 4.0 * n * p * q * passes
    return Candidate(
        "gradient descent loop", passes, flops, flops / rates["vector"], 1e-8, False,
        f"about condition² / 2 · ln(1e8) = {passes:.1e} passes for eight digits",
    )  # fmt: skip


@cache
def speeds() -> dict[str, float]:
    """Floating point operations a second on this machine now: products of blocks, with a vector, QR. About 50 ms."""
    x = np.random.default_rng(0).standard_normal((2048, 128))
    s, v = x.astype(np.float32), np.ones(128)
    count = 2048.0 * 128 * 128
    return {
        "double": count / _seconds(lambda: _product(x)),
        "single": count / _seconds(lambda: _product(s)),
        "vector": 4 * 2048.0 * 128 / _seconds(lambda: (x @ v) @ x),
        "qr": 2 * count / _seconds(lambda: np.linalg.qr(x, mode="r")),
    }


def _product(x: Array) -> Any:
    zeros = np.zeros(x.shape[1])
    return gram.square(x, None, None, zeros, x.itemsize == 4) if gram.suits(x.shape[1] + 1) else x.T @ x


def _seconds(action: Callable[[], Any]) -> float:
    best = np.inf
    for _ in range(4):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best

"""``choose``: what would be done, what it would cost, and why not the others; nothing is fitted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from hasten.solve import gram
from hasten.solve.accuracy import (
    FEW_TARGETS,
    HOPELESS,
    SINGLE_COLUMNS,
    SINGLE_CONDITION,
    WELL,
    host,
)
from hasten.solve.bounds import bound_of, tangent_of
from hasten.solve.kernel import Array
from hasten.solve.linear import EPS, Factor, Normal, one_alpha
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, no_target
from hasten.solve.source import Block, first_block, open_source

PILOT_ROWS = 8192
UNKNOWN_ROWS = 1_000_000  # for which cost is told where the rows cannot be counted before they are read
EACH_ERROR = 20.0  # flops in whose time four passes of NumPy over an error are made, besides its product


@dataclass(frozen=True)
class Candidate:
    """One way to solve the problem.

    Attributes:
        name: of the method. passes: over the data. flops: in all. seconds: predicted on this machine, of arithmetic on
            rows in memory.
        error: first-order bound of the coefficients' relative error by rounding, for the condition and the residuals
            seen in the first rows. chosen: whether it would be done. reason: why, or why not.
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
        rows: of the data, None where unknown: then cost is told for a million. features, targets: columns.
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
        rows = (
            f"an unknown number of rows (figures are for {UNKNOWN_ROWS:.0e})"
            if self.rows is None
            else f"{self.rows} rows"
        )
        head = f"{rows}, {self.features} features, {self.targets} targets"
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
        BadData: no rows, no target, or a negative alpha.
    """
    alpha = one_alpha(alpha)
    if accuracy != "qr":
        raise BadData(f"accuracy={accuracy!r}", "a typing error", 'accuracy="qr"')
    source = open_source(X, y, target=target)
    block = host(first_block(source))
    if block.y is None:
        raise no_target()
    p, q = block.x.shape[1], block.y.shape[1]
    condition, tangent = _piloted(block, alpha, source.rows)
    n, counted = float(UNKNOWN_ROWS if source.rows is None else source.rows), source.rows is not None
    return Choice(source.rows, p, q, condition, ranked(n, p, q, condition, source.again, counted, tangent))


def _piloted(block: Block, alpha: float, rows: int | None) -> tuple[float, float]:
    """The condition, NaN where the first rows are too few to tell, and the size of errors relative to fitted values."""
    p = block.x.shape[1]
    few = slice(0, max(PILOT_ROWS, 4 * p))
    pilot = Moments(block.x[few], block.y[few], missing="mean")
    if pilot.n <= p and pilot.n != rows:
        return float("nan"), 0.0
    normal, inner = Normal.from_moments(pilot), np.s_[:p]  # without what marks missing values
    normal = replace(normal, xx=normal.xx[inner, inner], xy=normal.xy[inner])
    factor = Factor(normal.xx + alpha * pilot.n / max(rows or pilot.n, 1) * np.eye(p))
    if not factor.rank or factor.deficient:
        return factor.condition, 0.0
    return factor.condition, tangent_of(normal, factor, factor.solve(normal.xy))


def ranked(
    n: float, p: int, q: int, condition: float, again: bool, counted: bool = True, tangent: float = 0.0
) -> tuple[Candidate, ...]:
    """All candidates for a condition that is known, the chosen one first; ``counted`` is whether the rows are."""
    known = np.isfinite(condition)
    squared = EPS * condition**2 if known else np.inf
    if np.isnan(condition):
        squared, condition = EPS, 1.0
    best = bound_of(p, condition, tangent)
    refine = known and condition > WELL and squared <= HOPELESS
    passes = 1 if condition <= WELL else 3
    single_fits = condition < SINGLE_CONDITION and p >= SINGLE_COLUMNS and again and counted and n >= 20 * p
    name = (
        "tsqr" if squared > HOPELESS else "gram32" if single_fits else "refined" if refine and again else "gram64"
    )  # fmt: skip
    if not again and name in ("refined", "tsqr"):
        name = "gram64"
    refined, tsqr_passes = max(passes, 2), 2 + (name == "tsqr" and known)  # a Gram matrix has told that it is needed
    rates, wide = speeds(), p + q + 1
    product, vector, triangle = n * wide**2, 4 * n * p * q, 2 * n * wide**2
    double, eigen = product / rates["double"], eigen_seconds(p)
    correction = (
        vector / rates["vector"] if q <= FEW_TARGETS else vector / rates["many"] + EACH_ERROR * n * q / rates["vector"]
    )
    by_qr = triangle / rates["qr"] + correction + (double if name == "tsqr" else 0.0)
    rows = [
        ("gram32", "Gram in float32, refined", 3, product + 2 * vector,
         product / rates["single"] + 2 * correction + eigen, best, _why_single(p, condition, again, counted)),
        ("gram64", "Gram in float64", 1, product, double + eigen, best + EPS * max(p, 10) * condition**2,
         "the condition is small enough" if name == "gram64" and condition <= WELL else
         "one pass: these rows are read once" if name == "gram64" else
         f"would lose the square of the condition {condition:.0e}" if condition > WELL else
         "the float32 product is faster"),
        ("refined", "Gram in float64, refined", refined, product + (refined - 1) * vector,
         double + (refined - 1) * correction + eigen, best,
         "the condition needs corrections from the true residual" if name == "refined" else
         "corrections would not converge: condition² is beyond float64" if squared > HOPELESS else
         "reads the data again, which is not possible" if not again else "no corrections are needed"),
        ("tsqr", "TSQR stream", tsqr_passes, triangle + vector + product * (name == "tsqr"), by_qr + eigen, best,
         "the only one that does not square the condition" if name == "tsqr" else "as exact and slower"),
    ]  # fmt: skip
    found = [Candidate(title, k, flops, s, err, key == name, why) for key, title, k, flops, s, err, why in rows]
    found.append(_gradient(n, p, q, condition, rates))
    return tuple(sorted(found, key=lambda c: (not c.chosen, c.seconds)))


def _why_single(p: int, condition: float, again: bool, counted: bool) -> str:
    if p < SINGLE_COLUMNS:
        return f"below {SINGLE_COLUMNS} columns its corrections cost what it saves"
    if condition >= SINGLE_CONDITION:
        return f"float32 products need a condition below {SINGLE_CONDITION:.0f}"
    if not again:
        return "its corrections read the data again"
    return (
        "half the time of float64 products" if counted else "whether it pays is not known before the rows are counted"
    )


def _gradient(n: float, p: int, q: int, condition: float, rates: dict[str, float]) -> Candidate:
    """A training loop of full gradient steps, by theory: passes grow with condition²."""
    if not np.isfinite(condition):
        condition = 1 / EPS
    passes = int(np.ceil(condition**2 / 2 * np.log(1e8)))
    flops = 4.0 * n * p * q * passes
    return Candidate(
        "gradient descent loop", passes, flops, flops / rates["vector" if q <= FEW_TARGETS else "many"], 1e-8, False,
        f"about condition² / 2 · ln(1e8) = {passes:.1e} passes for eight digits",
    )  # fmt: skip


def eigen_seconds(p: int) -> float:
    """Predicted seconds of the eigenvectors of p columns (about 9 p³ operations: Golub & Van Loan, 4th ed., 8.3)."""
    return 9.0 * p**3 / speeds()["qr"]


@dataclass(frozen=True)
class Validation:
    """What choosing alpha costs, whichever method solves. passes: over the data; flops; seconds: predicted."""

    passes: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    @classmethod
    def of(cls, n: float, p: int, q: int, alphas: int, folds: int, classes: bool) -> Validation:
        """Leave-one-out where there are no ``folds``, with one pass more for the accuracy of classes; else by them."""
        rates = speeds()
        if folds:
            flops = 2.0 * folds * (p**3 + p * p * (q + alphas * q))
            return cls(0, flops, flops / rates["many"] + folds * eigen_seconds(p))
        flops = 2.0 * n * p * (p + alphas * (1 + q)) + classes * 2.0 * n * p * (p + q)
        errors = n * q * (alphas + classes)
        return cls(
            1 + classes,
            flops + 4 * errors,
            flops / rates["many"] + EACH_ERROR * errors / rates["vector"] + eigen_seconds(p),
        )


@cache
def speeds() -> dict[str, float]:
    """Floating point operations a second on this machine now: products of rows with themselves, with a vector, with
    a matrix ("many"), QR. The rows of the first two are too many for the near caches. About 0.1 s."""
    x = np.random.default_rng(0).standard_normal((PILOT_ROWS * 2, 128))
    few, many, single = np.ones((128, 1)), np.ones((128, 32)), x.astype(np.float32)
    count, short = x.size * 128.0, x[:2048]
    return {
        "double": count / _seconds(lambda: _product(x)),
        "single": count / _seconds(lambda: _product(single)),
        "vector": 4.0 * x.size / _seconds(lambda: _left(x, few)),
        "many": 4.0 * short.size * 32 / _seconds(lambda: short.T @ (short @ many)),
        "qr": 2 * short.size * 128.0 / _seconds(lambda: np.linalg.qr(short, mode="r")),
    }


def _left(x: Array, coef: Array) -> Any:
    if gram.kernel() is None:
        return (x @ coef[:, 0]) @ x
    return gram.residual(x, x[:, :1], None, np.zeros(x.shape[1] + 1), coef)


def _product(x: Array) -> Any:
    zeros = np.zeros(x.shape[1])
    return gram.square(x, None, None, zeros, x.itemsize == 4) if gram.suits(x.shape[1] + 1) else x.T @ x


def _seconds(action: Callable[[], Any]) -> float:
    """The median of a few: others may keep the machine busy, and will go on doing so."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[2]

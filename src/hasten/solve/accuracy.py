"""The accuracy ladder: the cheapest method whose error is that of a QR decomposition, chosen from the condition.

1. *Gram in float32*, refined: products in single precision, twice as fast; only for well conditioned, wide data.
2. *Gram in float64*: enough where the condition is below about 3.
3. *Gram in float64, refined*: corrected semi-normal equations, each pass from the true residual ``y - X coef``. One
   pass costs two products with a vector. (Björck, "Stability analysis of the method of seminormal equations", Linear
   Algebra and its Applications 88/89, 1987, p. 31-48.)
4. *TSQR*: a QR decomposition of the stream, block by block, which never squares the condition. (Demmel, Grigori,
   Hoemmen & Langou, SIAM J. Sci. Comput. 34(1), 2012, A206-A239.)

Nothing is truncated silently: ``rank_`` and ``condition_`` are told, and dependent columns raise a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hasten.solve import gram, tsqr
from hasten.solve.arrays import in_host
from hasten.solve.bounds import bound_of, fit_bound, gram_bound, shift_growth
from hasten.solve.combine import of_columns
from hasten.solve.kernel import Array, Floats, block_rows, piece_rows
from hasten.solve.linear import EPS, Factor, Normal, alphas_of, faint, one_alpha
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, no_target
from hasten.solve.problems import DependentColumns as DependentColumns
from hasten.solve.source import Block, Source, first_block, open_source
from hasten.solve.targets import SomeTargets, by_alpha

METHODS = ("gram32", "gram64", "refined", "tsqr")
NAMES = {
    "gram32": "Gram in float32, refined",
    "gram64": "Gram in float64",
    "refined": "Gram in float64, refined",
    "tsqr": "TSQR stream",
}
WELL = 3.0  # condition up to which the Gram matrix in float64 loses no more than ten times what a QR loses
SINGLE_COLUMNS = 256  # from here on the float32 product saves more than its refinement costs
SINGLE_CONDITION = 30.0
SINGLE_RANGE = 1e15  # of standard deviations, whose squares float32 has to hold
HOPELESS = 0.05  # EPS * condition² beyond which refinement from a Gram matrix hardly converges
MOST_PASSES = 6
FEW_TARGETS = 8  # of more, BLAS makes the residuals together
SAME = 1e-4  # of a column's spread, by which means of the same rows differ at most, also of products in float32
ROUNDED = 1e-9  # of a mean, by which rounding may move it
SLOW = 0.3  # a correction more than this of the last one: refinement does not converge


@dataclass(frozen=True)
class Answer:
    """A least-squares or ridge solution, and how well it is known.

    Attributes:
        coef_: (p, q); intercept_: (q,).
        method_: one of ``NAMES``' values.
        condition_: of X, centred, columns scaled to one length, with the penalty's rows below; infinite where columns
            depend on each other.
        rank_: of the same.
        error_bound_: first-order bound of the relative error of the scaled coefficients, rounding only (Higham 2002,
            theorem 20.1, with the constant p; the last correction's contraction added, and where there was none, what
            columns weigh around the shift instead of their mean, Chan, Golub & LeVeque 1983): not of what X's own
            uncertainty does.
        passes_: how often the data were read.
        corrections_: relative sizes of the refinement's corrections.
        names: of X's columns.
    """

    coef_: Floats
    intercept_: Floats
    method_: str
    condition_: float
    rank_: int
    error_bound_: float
    passes_: int
    corrections_: tuple[float, ...]
    names: list[str]


def lstsq(
    X: Any,
    y: Any = None,
    *,
    alpha: Any = 0.0,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    method: str = "auto",
    target: str | None = None,
) -> Answer:
    """Least squares (or ridge) with a QR's accuracy at a Gram matrix's price wherever that is possible.

    Args:
        X, y, sample_weight: as ``Moments.update`` takes them; with numbers and no missing values.
        alpha: a number, or (targets,) one each, as scikit-learn's ``Ridge``; the passes after the first one are then
            made for every different alpha, and condition, rank and bound are the worst ones.
        fit_intercept: not penalised.
        method: "auto", or one of ``METHODS``.
        target: column to predict, for tables and files.

    Raises:
        BadData: bad values; or the method needs several passes over a stream that can be read once.
    """
    if method not in ("auto", *METHODS):
        raise BadData(f"method={method!r}", "a typing error", f"auto, {', '.join(METHODS)}")
    single = np.size(alpha) < 2
    alpha = one_alpha(alpha) if single else alpha  # a wrong one is told before anything is read
    source = open_source(X, y, sample_weight, target=target)
    if method == "tsqr":
        return _by_tsqr(source, alpha, fit_intercept, 1) if single else _each_by_tsqr(source, alpha, fit_intercept)
    precision = "float32" if method == "gram32" or (method == "auto" and _single_suits(source)) else "float64"
    if not source.again:
        precision = "float64"
    m = Moments(precision=precision).update(source)
    refuse_categories(m.encoder.categorical)
    if single:
        return climb(source, m, alpha, fit_intercept, method)
    return climb_each(source, m, alphas_of(alpha, m.q), fit_intercept, method)


def climb_each(
    source: Source, m: Moments, alphas: Sequence[float], intercept: bool, method: str = "auto",
    scale: Floats | float = 1.0,
) -> Answer:  # fmt: skip
    """As ``climb``, for one alpha, or for one a target; ``scale`` times alpha is the penalty."""
    if len(alphas) == 1:
        return climb(source, m, alphas[0] * scale, intercept, method)

    def solve(alpha: float, own: list[int]) -> Answer:
        some = of_columns(m, np.ones(m.p, dtype=bool), own)
        return climb(SomeTargets(source, own), some, alpha * scale, intercept, method)

    return by_alpha(alphas, solve, passes=1)


def climb(source: Source, m: Moments, alpha: Any, intercept: bool, method: str = "auto") -> Answer:
    """As ``lstsq``, from moments that were already made of ``source``; ``alpha`` may be (p,), one a column."""
    if method == "auto" and source.again and faint(m):
        return _by_tsqr(source, alpha, intercept, 2)
    normal = Normal.from_moments(m, intercept)
    unit = EPS if m.precision == "float64" else float(np.finfo(np.float32).eps)
    factor = Factor(normal.xx + np.diag(penalties(m.p, alpha)), unit)
    risky = unit * factor.condition**2 > HOPELESS
    if m.precision == "float32" and method == "auto" and (risky or factor.deficient):
        return climb(source, Moments().update(source), alpha, intercept, method)
    if method == "auto" and source.again and (risky or factor.deficient):
        return _by_tsqr(source, alpha, intercept, 2)
    coef = factor.solve(normal.xy)
    refine = method in ("gram32", "refined") or (
        method == "auto" and source.again and (factor.condition > WELL or m.precision == "float32")
    )
    if not refine:
        _warn(factor.deficient, factor.rank, m.p)
        return _by_gram(m, normal, factor, coef, unit)
    if not source.again:
        raise BadData(
            f"{method!r} reads the data more than once; these can be read once",
            "a generator was given",
            'method="gram64" or "tsqr", or an object whose __iter__ starts anew',
        )
    coef, corrections, converged, normal = _refined(source, normal, factor, coef, alpha)
    passes = 1 + len(corrections)
    if method == "auto" and not converged:
        return _by_tsqr(source, alpha, intercept, passes + 1)
    _warn(factor.deficient, factor.rank, m.p)
    last = corrections[-1]
    shrink = min(last / corrections[-2] if len(corrections) > 1 and corrections[-2] > 0 else last, 0.99)
    bound = fit_bound(normal, factor, coef) + last * shrink / (1 - shrink)
    return _answer(m, normal, factor, coef, "gram32" if unit > EPS else "refined", bound, passes, corrections)


def from_moments(m: Moments, alphas: Sequence[float], intercept: bool, scale: Floats | float = 1.0) -> Answer:
    """As ``climb_each``, where only moments are at hand."""
    normal = Normal.from_moments(m, intercept)

    def solve(alpha: float, own: list[int]) -> Answer:
        factor = Factor(normal.xx + np.diag(penalties(m.p, alpha * scale)))
        found = _by_gram(m, normal, factor, factor.solve(normal.xy), EPS)
        return replace(found, coef_=found.coef_[:, own], intercept_=found.intercept_[own])

    return by_alpha(alphas if len(alphas) == m.q else [*alphas] * m.q, solve, passes=1)


def _by_gram(m: Moments, normal: Normal, factor: Factor, coef: Floats, unit: float) -> Answer:
    """What is not refined; its sums of squares are rounded by their size around the shift, not around the mean."""
    bound = gram_bound(normal, factor, coef, unit) * shift_growth(m, normal, factor)
    return _answer(m, normal, factor, coef, "gram64", bound, 1, ())


def _answer(
    m: Moments, normal: Normal, factor: Factor, coef: Floats, method: str, bound: float, passes: int,
    corrections: tuple[float, ...],
) -> Answer:  # fmt: skip
    return Answer(
        coef, normal.intercept_of(coef), NAMES[method], factor.condition, factor.rank, min(bound, np.inf), passes,
        corrections, m.names,
    )  # fmt: skip


def _refined(
    source: Source, normal: Normal, factor: Factor, coef: Floats, alpha: Any
) -> tuple[Floats, tuple[float, ...], bool, Normal]:
    """Corrections from the true residual until they are as small as a QR's error, or do not shrink; of the means, too,
    which products in float32 have to nine digits."""
    goal = max(EPS * factor.condition / 20, 4 * EPS)
    sizes: list[float] = []
    exact = normal
    while len(sizes) < MOST_PASSES:
        gradient, x_off, rest = residual_gradient(source, normal, coef)
        exact = replace(normal, x_mean=normal.x_mean + x_off, y_mean=normal.y_mean + (rest + x_off @ coef))
        step = factor.solve(gradient - penalties(len(coef), alpha)[:, None] * coef)
        length = float(np.linalg.norm(coef * factor.scale[:, None]))
        size = float(np.linalg.norm(step * factor.scale[:, None])) / max(length, 1e-300)
        if not np.isfinite(size) or (sizes and size > SLOW * sizes[-1]):  # only rounding is left, or it diverges
            floor = fit_bound(normal, factor, coef)
            return coef, tuple(sizes), bool(sizes) and size <= floor, exact
        coef = coef + step
        sizes.append(size)
        if size <= goal or (len(sizes) > 1 and size**2 / sizes[-2] <= goal):  # what a further step would change
            break
    return coef, tuple(sizes), sizes[-1] < 0.1, exact


def residual_gradient(
    source: Source, normal: Normal | tsqr.Triangle, coef: Floats
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """(p, q) ``(X - mean).T @ W @ (Y - mean - (X - mean) @ coef)`` in one pass, float64; and what the means of both
    factors are, (p,) and (q,): 0 but for rounding with an intercept, and told as 0 without one.

    With an intercept both factors are centred once more by their own sums, since the means are rounded: at an offset of
    1e6 by as much as the smallest direction of an ill conditioned X is long.
    """
    total = np.zeros_like(coef)
    ones, errors, weights = np.zeros(len(coef)), np.zeros(coef.shape[1]), 0.0
    if coef.shape[1] <= FEW_TARGETS and gram.kernel() is not None:
        mean = np.append(normal.x_mean, normal.y_mean)
        for x, y, weight in _pieces(source):
            found = gram.residual(x, y, weight, mean, coef)
            total, ones, errors = total + found[0], ones + found[1], errors + found[2]
            weights += len(x) if weight is None else float(weight.sum())
        return _centred_gradient(total, ones, errors, weights, normal)
    for c, t, weight in centred(source, normal.x_mean, normal.y_mean):
        rest = t - (c @ coef[:, 0])[:, None] if coef.shape[1] == 1 else t - c @ coef
        if weight is not None:
            rest *= weight[:, None]
        total += (rest[:, 0] @ c)[:, None] if coef.shape[1] == 1 else c.T @ rest
        ones += c.sum(axis=0) if weight is None else weight @ c
        errors += rest.sum(axis=0)
        weights += len(c) if weight is None else float(weight.sum())
    return _centred_gradient(total, ones, errors, weights, normal)


def _centred_gradient(
    total: Floats, ones: Floats, errors: Floats, weights: float, normal: Normal | tsqr.Triangle
) -> tuple[Floats, Floats, Floats]:
    """As ``residual_gradient``, from the sums of a pass: of products, of X, of errors and of weights."""
    check_again(weights, normal.weight)
    check_means(ones, normal)
    if not normal.intercept:
        return total, np.zeros_like(ones), np.zeros_like(errors)
    return total - np.outer(ones, errors) / weights, ones / weights, errors / weights


def check_again(weights: float, before: float) -> None:
    """Raises: BadData: a later pass gave other rows than the first one; sums of weights tell them apart."""
    if abs(weights - before) > 1e-9 * before:
        raise _other_rows(f"the first pass read rows of weight {before:g}, a later one of {weights:g}")


def check_means(ones: Floats, normal: Normal | tsqr.Triangle) -> None:
    """Raises: BadData: a later pass gave other rows than the first one; with an intercept their means tell them apart.

    Args:
        ones: (p,) weighted sums of the columns less the means of the first pass.
    """
    away = np.abs(ones / normal.weight) - ROUNDED * np.abs(normal.x_mean)
    if normal.intercept and (away > SAME * normal.spread).any():
        raise _other_rows("a later pass read rows with other means than the first one")


def _other_rows(what: str) -> BadData:
    return BadData(
        what, "an iterable that its first pass uses up, or one that draws, augments or drops rows anew",
        "a list of batches, a DataLoader with drop_last=False and without random changes, or a path",
    )  # fmt: skip


def _pieces(source: Source) -> Iterator[tuple[Array, Array, Array | None]]:
    """X, Y and weights of blocks that are short enough for an interrupt to come through."""
    for block in source.blocks():
        block = host(block)
        step = piece_rows(block.x.shape[1])
        for i in range(0, len(block.x), step):
            here = slice(i, i + step)
            yield block.x[here], block.y[here], None if block.weight is None else block.weight[here]


def centred(source: Source, x_mean: Floats, y_mean: Floats) -> Iterator[tuple[Floats, Floats, Array | None]]:
    """Blocks that fit the cache: float64 X and Y without their means, and the weights."""
    buffer = np.empty((0, len(x_mean)))
    for block in source.blocks():
        block = host(block)
        block.check_weight()
        step = block_rows(len(x_mean))
        for i in range(0, len(block.x), step):
            x = block.x[i : i + step]
            if len(buffer) < len(x):
                buffer = np.empty((len(x), len(x_mean)))
            c = np.subtract(x, x_mean, out=buffer[: len(x)])
            yield c, block.y[i : i + step] - y_mean, None if block.weight is None else block.weight[i : i + step]


def host(block: Block) -> Block:
    """The block in the host's memory, as numbers only."""
    refuse_categories(block.category_names)
    return replace(block, x=in_host(block.x), y=in_host(block.y), weight=in_host(block.weight))


def refuse_categories(names: Sequence[str]) -> None:
    """Raises: BadData: there are columns of texts where numbers only are of use. Args: names: of these columns."""
    if names:
        raise BadData(
            f"the column {names[0]!r} holds texts", "a table with categories; models that predict need numbers",
            "solve.ridge(solve.Moments(table, y), alpha), which encodes them, or pandas.get_dummies(table) before",
        )  # fmt: skip


def penalties(p: int, alpha: Any) -> Floats:
    """(p,) penalty of every column's coefficient."""
    found: Floats = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (p,))
    return found


def _single_suits(source: Source) -> bool:
    """Whether the first rows look well conditioned enough for float32 products, and wide enough to gain by them."""
    if not source.again or source.rows is None:
        return False
    block = host(first_block(source))
    p = block.x.shape[1]
    rows = block.x[: max(4 * p, 2048)]
    if p < SINGLE_COLUMNS or len(rows) < 4 * p or source.rows < 20 * p:
        return False
    pilot = Moments(rows)
    spread = np.sqrt(np.diagonal(pilot.covariance))
    fits = ((spread == 0) | ((spread > 1 / SINGLE_RANGE) & (spread < SINGLE_RANGE))).all()
    return bool(fits and Factor(pilot.scatter).condition < SINGLE_CONDITION)


def _by_tsqr(source: Source, alpha: Any, intercept: bool, passes: int) -> Answer:
    """QR of the stream, then one correction from the true residual: the triangle's error contracts by EPS * cond.

    A correction that is larger than the triangle's error can be is rounding itself, and is not taken, but told.
    """
    r = tsqr.decompose(source, intercept)
    fit = r.solve(alpha)
    coef = fit.coef
    corrections: tuple[float, ...] = ()
    bound = bound_of(r.p, fit.condition, fit.residual / max(fit.size, 1e-300))
    known = bound * fit.growth
    if source.again and np.isfinite(fit.condition):
        gradient = residual_gradient(source, r, coef)[0] - penalties(len(coef), alpha)[:, None] * coef
        step, passes = fit.correction(gradient), passes + 1
        size = float(np.linalg.norm(step * fit.scale)) / max(float(np.linalg.norm(coef * fit.scale)), 1e-300)
        if size <= known:
            coef, corrections = coef + step, (size,)
            known = min(known, bound + size * min(EPS * max(r.p, 10) * fit.condition * fit.growth, 1.0))
        else:
            known = max(known, size + bound)
    _warn(not np.isfinite(fit.condition), fit.rank, r.p)
    return Answer(
        coef, r.intercept_of(coef), NAMES["tsqr"], fit.condition, fit.rank, float(known), passes, corrections, r.names
    )  # fmt: skip


def _each_by_tsqr(source: Source, alpha: Any, intercept: bool) -> Answer:
    """Every target with its own alpha."""
    y = host(first_block(source)).y
    if y is None:
        raise no_target()
    return by_alpha(
        alphas_of(alpha, y.shape[1]), lambda a, own: _by_tsqr(SomeTargets(source, own), a, intercept, 1), passes=0
    )


def _warn(deficient: bool, rank: int, p: int) -> None:
    if deficient:
        warnings.warn(
            f"X has {p} columns but rank {rank}: the coefficients are the smallest of many solutions, in columns "
            "scaled to one length; predictions are unique. Drop columns, or use alpha > 0.",
            DependentColumns,
            stacklevel=4,
        )

"""Binary logistic and Poisson regression by Newton's method over a stream: a few passes, any size.

Every pass adds up loss, gradient and Hessian at the current coefficients; memory is that of the Hessian. (Iteratively
reweighted least squares: McCullagh & Nelder, Generalized Linear Models, 2nd ed. 1989, p. 40-43.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hasten.solve.accuracy import centred, check_again, host
from hasten.solve.arrays import in_host, targets_of
from hasten.solve.kernel import Array, Floats
from hasten.solve.linear import EPS, Factor, one_alpha
from hasten.solve.problems import BadData, no_rows, no_target
from hasten.solve.source import Block, Source, first_block, open_source
from hasten.solve.streams import check_order

HALVINGS = 30
NEAR = (
    0.25  # by which the last step moves a linear predictor at most; where classes are separable it is always 1 or more
)
TINY = 1e-300


@dataclass(frozen=True)
class Glm:
    """A generalised linear model.

    Attributes:
        coef: (p,). intercept: a number. loss: penalised negative log-likelihood (Poisson: without its constant) in the
            last pass. passes: over the data. decrement: half the squared Newton decrement in the last pass, about the
            loss that its step gained.
        converged: whether that is below the tolerance, and the coefficients no longer move: where some rows are
            separable by a plane, or a group has no counts, the loss has no minimum, and they grow for ever.
        method: who solved it.
    """

    coef: Floats
    intercept: float
    loss: float
    passes: int
    decrement: float
    converged: bool
    method: str


def _logistic(eta: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Loss, mean and variance a row."""
    mean = np.where(eta >= 0, 1 / (1 + np.exp(-np.abs(eta))), np.exp(-np.abs(eta)) / (1 + np.exp(-np.abs(eta))))
    loss = np.maximum(eta, 0) - y * eta + np.log1p(np.exp(-np.abs(eta)))
    return loss, mean, mean * (1 - mean)


def _poisson(eta: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    mean = np.exp(np.minimum(eta, 700.0))
    return mean - y * eta, mean, mean


FAMILIES = {"logistic": _logistic, "poisson": _poisson}


def newton(
    X: Any,
    y: Any = None,
    *,
    family: str = "logistic",
    alpha: float = 1.0,
    sample_weight: Any = None,
    offset: Any = None,
    fit_intercept: bool = True,
    target: str | None = None,
    tol: float = 1e-8,
    max_passes: int = 100,
) -> Glm:
    """Minimise ``sum of weighted negative log-likelihoods + alpha / 2 * |coef|²``.

    Args:
        X, y, sample_weight, target: as ``Moments.update``; must be readable more than once. y is 0 or 1, or counts.
        family: "logistic" or "poisson".
        alpha: scikit-learn's ``1 / C``.
        offset: (rows,) what is known of every row's linear predictor, added to it with the coefficient 1; for counts
            over times or areas of different size their log, so that rates are modelled (``offset=log(exposure)``; as
            scikit-learn's ``PoissonRegressor`` with ``y / exposure`` and ``sample_weight=exposure``). In the order of
            the rows, or for a table or file the name of a column, which is no feature then. A prediction adds that of
            its own rows: ``exp(X @ coef + intercept + offset)``.
        tol: end after the step whose gain, relative to the loss, is below.

    Raises:
        BadData: another family, targets out of range or all alike, rows that can be read only once, or an offset that
            holds no number for a row.
    """
    alpha = one_alpha(alpha)
    if family not in FAMILIES:
        raise BadData(f"family={family!r}", "a typing error", "logistic or poisson")
    source = _with_offset(X, y, sample_weight, target, offset)
    if not source.again:
        raise BadData("several passes are needed", "a generator can be read once", "a path, a loader, or a list")
    shift, point = _start(source, family, offset is not None, fit_intercept)
    return _descend(_Problem(source, family, alpha, shift, fit_intercept), point, tol, max_passes)


def _start(source: Source, family: str, offset: bool, intercept: bool) -> tuple[Floats, Floats]:
    """(p,) what is subtracted from the columns, and the coefficients to begin with, from the first rows."""
    first = host(first_block(source))
    if first.y is None:
        raise no_target()
    if (given := first.y.shape[1] - offset) != 1:
        raise BadData("one target is needed", f"{given} were given", "y: (rows,)")
    p = first.x.shape[1]
    held = slice(None) if first.weight is None or not (first.weight > 0).any() else first.weight > 0
    shift = first.x[held].mean(axis=0, dtype=np.float64) if intercept else np.zeros(p)
    point, level = np.zeros(p + intercept), 0.0
    if family == "poisson" and intercept:
        level = float(first.y[held, 0].mean() / (np.exp(first.y[held, 1]).mean() if offset else 1.0))
    if 0 < level < np.inf:
        point[p] = np.log(level)  # a step from 0 is as long as the counts are large, and is halved and halved
    return shift, point


def _descend(problem: _Problem, point: Floats, tol: float, max_passes: int) -> Glm:
    """Newton's steps from ``point``, halved where they are too long."""
    best, step = np.inf, np.zeros_like(point)
    halved = passes = rank = 0
    decrement, done = np.inf, False
    while passes < max_passes and not done:
        here = problem.at(point)
        passes += 1
        if not here.loss <= best + 1e-12 * abs(best) and halved < HALVINGS:  # too far: half the way back
            step, halved = step / 2, halved + 1
            point = point - step
            continue
        best, halved = here.loss, 0
        factor = Factor(here.hessian)
        step = -factor.solve(here.gradient[:, None])[:, 0]
        decrement = float(-here.gradient @ step) / 2
        point, rank = point + step, max(rank, factor.rank)
        if factor.rank < rank or here.loss <= problem.least:  # only rows that were long decided are left
            break
        small, near = tol * max(abs(best), TINY), problem.reach(step) <= NEAR
        done = decrement <= small and near  # the last step squares the error that is left
        if decrement <= EPS * abs(best) and not near:
            break
    coef, shift = point[: problem.p], problem.shift
    intercept = float(point[problem.p] - shift @ coef) if problem.intercept else 0.0
    return Glm(coef, intercept, float(best), passes, decrement, done, "hasten, Newton over the stream")


def _with_offset(X: Any, y: Any, sample_weight: Any, target: str | None, offset: Any) -> Source:
    """The rows, with an offset as their second target where one is given."""
    if offset is None:
        return open_source(X, y, sample_weight, target=target)
    if not isinstance(offset, str):
        return Offset(open_source(X, y, sample_weight, target=target), offset)
    name = y if isinstance(y, str) and target is None else target
    if name is None or (y is not None and name is not y):
        raise BadData(
            f"offset={offset!r} names a column, and the target is none", "y as an array",
            'target="column", or the offset as an array, too',
        )  # fmt: skip
    return open_source(X, None, sample_weight, target=[name, offset])


class Offset(Source):
    """The rows of a source with what is known of their linear predictor as one more target.

    Args:
        offset: (rows,) in the order of the rows.
    """

    def __init__(self, source: Source, offset: Any) -> None:
        check_order(source)
        self.source, self.rows, self.again = source, source.rows, source.again
        self.offset = targets_of(in_host(offset))
        if self.offset.shape[1] != 1:
            raise BadData(f"the offset has the shape {self.offset.shape}", "one of several targets", "(rows,)")
        if not np.isfinite(self.offset).all():
            row = int(np.argmin(np.isfinite(self.offset[:, 0])))
            raise BadData(
                f"the offset of row {row} is {self.offset[row, 0]}", "the log of an exposure of 0, or a missing one",
                "leave such rows out, or weights of 0 and an offset of 0 for them",
            )  # fmt: skip

    def blocks(self, first: int = 0) -> Iterator[Block]:
        done = first
        for block in self.source.blocks(first):
            done = block.start + len(block.x)
            if block.y is None:
                raise no_target()
            if done <= len(self.offset):
                y = np.hstack([in_host(block.y), self.offset[block.start : done]])
                yield replace(block, y=y, targets=[*block.targets, "offset"])
        if done != len(self.offset):
            raise BadData(
                f"X has {done} rows, the offset has {len(self.offset)}", "rows of other data", "one each a row"
            )


def _refuse(source: Source) -> None:
    """Raises: BadData: naming what is no number in X."""
    for block in source.blocks():
        host(block).raise_where(block.names, block.targets)
    raise BadData("the loss is infinite", "numbers too large to be added up", "other units for these columns")


class _Pass(NamedTuple):
    """Loss, gradient and Hessian of all rows."""

    loss: float
    gradient: Floats
    hessian: Floats


class _Problem:
    """What is minimised.

    Attributes:
        shift: (p,) what is subtracted from the columns. widest: (p,) their largest sizes then.
        least: loss that is rounding alone. weight: of all rows, 0 before the first pass.
    """

    def __init__(self, source: Source, family: str, alpha: float, shift: Floats, intercept: bool) -> None:
        self.source, self.family, self.alpha, self.shift, self.intercept = source, family, alpha, shift, intercept
        self.p, self.weight, self.least = len(shift), 0.0, -np.inf
        self.widest = np.zeros(self.p)

    def reach(self, step: Floats) -> float:
        """By how much ``step`` moves a row's linear predictor, at most."""
        return float(self.widest @ np.abs(step[: self.p]) + np.abs(step[self.p :]).sum())

    def at(self, point: Floats) -> _Pass:
        """One pass.

        Raises:
            BadData: a value is no number, a target out of range or all are alike, or these are other rows than before.
        """
        loss, gradient, hessian = 0.0, np.zeros(len(point)), np.zeros((len(point), len(point)))
        weights = ones = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is no number is looked at below
            for c, t, weight in centred(self.source, self.shift, np.zeros(1)):
                self._check(c, t, weight)
                loss += self._add(gradient, hessian, point, c, t, weight)
                weights += len(c) if weight is None else float(weight.sum())
                ones += float(t[:, 0].sum() if weight is None else weight @ t[:, 0])
        if not np.isfinite(loss) and not self.weight:  # at the start: not for too long a step
            _refuse(self.source)
        self._check_rows(weights, ones)
        inner = np.arange(self.p)
        loss += self.alpha / 2 * float(point[: self.p] @ point[: self.p])
        gradient[: self.p] += self.alpha * point[: self.p]
        hessian[inner, inner] += self.alpha
        return _Pass(loss, gradient, hessian)

    def _check(self, c: Floats, t: Floats, weight: Array | None) -> None:
        if not np.isfinite(t).all():
            _refuse(self.source)
        _check_targets(t[:, 0], self.family)
        if not self.weight:
            c = c if weight is None else c[weight > 0]
            np.maximum(self.widest, np.abs(c).max(axis=0, initial=0.0), out=self.widest)

    def _check_rows(self, weights: float, ones: float) -> None:
        if self.weight:
            check_again(weights, self.weight)
            return
        if not weights:
            raise no_rows()
        if self.intercept:
            _check_level(ones, weights, self.family)
        self.weight = weights
        if self.family == "logistic" and not self.alpha:
            self.least = EPS * weights

    def _add(
        self, gradient: Floats, hessian: Floats, point: Floats, c: Floats, t: Floats, weight: Array | None
    ) -> float:
        """Add some rows' gradient and Hessian in place; returns their loss."""
        p, y = self.p, t[:, 0]
        eta = c @ point[:p] + (point[p] if self.intercept else 0.0)
        if t.shape[1] > 1:
            eta += t[:, 1]
        losses, mean, variance = FAMILIES[self.family](eta, y)
        error = mean - y
        if weight is not None:
            losses, error, variance = losses * weight, error * weight, variance * weight
        root = np.sqrt(variance)
        gradient[:p] += error @ c
        rows = c * root[:, None]
        hessian[:p, :p] += rows.T @ rows
        if self.intercept:
            gradient[p] += error.sum()
            cross = root @ rows
            hessian[p, :p] += cross
            hessian[:p, p] += cross
            hessian[p, p] += variance.sum()
        return float(losses.sum())


def _check_level(ones: float, weight: float, family: str) -> None:
    """Raises: BadData: there is no best intercept: it would be infinite."""
    if ones == 0 or (family == "logistic" and ones >= weight * (1 - 1e-14)):
        raise BadData(
            f"all targets are {int(ones > 0)}, and the best intercept is infinite", "rows of one class, or no counts",
            "rows with other targets, too, or fit_intercept=False",
        )  # fmt: skip


def _check_targets(y: Array, family: str) -> None:
    if family == "logistic" and not np.isin(y, (0.0, 1.0)).all():
        raise BadData("a target is neither 0 nor 1", "labels of another form", "(y == positive).astype(float)")
    if family == "poisson" and not (y >= 0).all():
        raise BadData("a target is negative", "not counts", "counts of 0 or more")

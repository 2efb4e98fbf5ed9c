"""What ``hasten solve`` found, as values that reports can show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A way to solve the problem.

    Attributes:
        name: of it. passes: over the data, flops: in all, those for choosing alpha among them; of what was done, its
            real passes. predicted, seconds: of reading and all of that; NaN where not known or not done.
        error: bound of the coefficients' relative error by rounding. chosen: whether it was done. reason: why, or not.
    """

    name: str
    passes: int
    flops: float
    predicted: float
    seconds: float
    error: float
    chosen: bool
    reason: str


@dataclass(frozen=True)
class Alpha:
    """A penalty tried, of columns scaled to unit variance: its error on rows left out, mean squared; chosen or not."""

    alpha: float
    error: float
    chosen: bool


@dataclass(frozen=True)
class Coefficient:
    """A column's coefficient for the ``outcome``, in its units per standard deviation of the column."""

    name: str
    value: float


@dataclass(frozen=True)
class Solution:
    """What was fitted.

    Attributes:
        path, target, task: as asked for. rows, features: of the data. earlier: how many of the rows are those of the
            moments that were updated. method: who solved it.
        methods: all ways, the chosen one first; empty where another library was called.
        alphas: penalties tried. score: exact leave-one-out or k-fold score of the chosen one, called ``metric``.
        validation: "leave-one-out", "5-fold" …  condition, error: of the solution.
        read_seconds, solve_seconds: for the pass over the data, and for all after it.
        coefficients: the largest ones. saved: path of the model, or "". outcome: what the coefficients are of: the
            target, or of classes the one that they speak for, as "target=class".
    """

    path: str
    target: str
    task: str
    rows: int
    features: int
    method: str
    methods: tuple[Method, ...]
    alphas: tuple[Alpha, ...]
    score: float
    metric: str
    validation: str
    condition: float
    error: float
    read_seconds: float
    solve_seconds: float
    coefficients: tuple[Coefficient, ...]
    saved: str = ""
    outcome: str = ""
    earlier: int = 0

"""What ``hasten solve`` found, as values that reports can show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A way to solve the problem.

    Attributes:
        name: of it.
        passes: over the data; of what was done, those that it took.
        flops: in all, those for choosing alpha among them.
        predicted: seconds of reading and all of that; NaN where not known.
        seconds: that it took; NaN where it was not done.
        error: bound of the coefficients' relative error by rounding.
        chosen: whether it was done.
        reason: why, or why not.
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
    """A penalty tried.

    Attributes:
        alpha: of columns scaled to unit variance.
        error: mean squared, on rows left out.
        chosen: whether it was taken.
    """

    alpha: float
    error: float
    chosen: bool


@dataclass(frozen=True)
class Coefficient:
    """A column's coefficient.

    Attributes:
        name: the column's.
        value: in units of the ``outcome`` per standard deviation of the column.
    """

    name: str
    value: float


@dataclass(frozen=True)
class Solution:
    """What was fitted.

    Attributes:
        path, target, task: as asked for.
        rows, features: of the data.
        method: who solved it.
        methods: all ways, the chosen one first; empty where another library was called.
        alphas: penalties tried.
        score: exact leave-one-out or k-fold score of the chosen one.
        metric: what the score is.
        validation: "leave-one-out", "5-fold" …
        condition: of the columns, centred and scaled to one length.
        error: bound of the coefficients' relative error by rounding.
        read_seconds: for the pass over the data.
        solve_seconds: for all after it.
        coefficients: the largest ones.
        saved: path of the model, or "".
        outcome: what the coefficients are of: the target, or of classes the one that they speak for, as "target=class".
        files: how many the data are in.
        earlier: how many of the rows are those of the moments that were updated.
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
    files: int = 1

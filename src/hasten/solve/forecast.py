"""Forecasting series by one ridge: windows of the past to all steps of the horizon at once.

Look-back and alpha are chosen on validation windows, whose error is a quadratic form of their moments, so nothing is
predicted while choosing. The linear map of one window to the next, shared by all channels, is the model of Zeng, Chen,
Zhang & Xu, "Are Transformers Effective for Time Series Forecasting?", AAAI 2023, p. 11121-11128 (LTSF-Linear, NLinear),
there trained by Adam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hasten.solve.kernel import Array, Floats
from hasten.solve.linear import Normal
from hasten.solve.moments import Moments
from hasten.solve.path import Spectrum, as_alphas, validation_error
from hasten.solve.problems import BadData
from hasten.solve.source import Block, Source

LEVELS = ("last", "mean", "none")
WINDOWS = 4096  # made dense at a time


class Windows(Source):
    """All windows of a series: ``lookback`` values and the ``horizon`` values after them, of every channel.

    Args:
        series: (time, channels).
        level: what is subtracted from a window and its future: the window's "last" value, its "mean", or "none".
    """

    def __init__(self, series: Array, lookback: int, horizon: int, level: str = "last") -> None:
        series = as_series(series)
        if level not in LEVELS or lookback < 1 or horizon < 1 or len(series) < lookback + horizon:
            raise BadData(
                f"lookback={lookback}, horizon={horizon}, level={level!r} on {len(series)} steps",
                "a series shorter than one window, or a typing error", f"a longer series; level of {', '.join(LEVELS)}",
            )  # fmt: skip
        view = sliding_window_view(series, lookback + horizon, axis=0)  # (windows, channels, lookback + horizon)
        self.view, self.lookback, self.level = view, lookback, level
        self.rows = view.shape[0] * view.shape[1]
        self.names = [f"lag {lookback - j}" for j in range(lookback)]
        self.targets = [f"step {j + 1}" for j in range(horizon)]

    def blocks(self, first: int = 0) -> Iterator[Block]:
        channels = self.view.shape[1]
        step = max(WINDOWS // channels, 1)
        for i in range(first // channels, len(self.view), step):
            rows = self.view[i : i + step].reshape(-1, self.view.shape[2])
            level = level_of(rows[:, : self.lookback], self.level)
            rows = rows - level
            yield Block(
                rows[:, : self.lookback], rows[:, self.lookback :], None, self.names, self.targets, start=i * channels
            )


def level_of(window: Array, level: str) -> Array:
    """(rows, 1) what is subtracted."""
    if level == "last":
        return window[:, -1:]
    return window.mean(axis=1, keepdims=True) if level == "mean" else np.zeros_like(window[:, :1])


@dataclass(frozen=True)
class Forecast:
    """A fitted forecaster.

    Attributes:
        coef: (lookback, horizon). intercept: (horizon,).
        lookback, level, alpha: as chosen. validation: mean squared error of every choice tried, as
            ``{(lookback, level): (alphas,)}``.
    """

    coef: Floats
    intercept: Floats
    lookback: int
    level: str
    alpha: float
    validation: dict[tuple[int, str], Floats]

    def predict(self, past: Any) -> Floats:
        """The next steps of every channel.

        Args:
            past: (time, channels) or (time,), at least ``lookback`` long.

        Returns:
            (horizon, channels) or (horizon,).
        """
        series = np.asarray(past, dtype=np.float64)
        if len(series) < self.lookback:
            raise BadData(f"{len(series)} steps of past for {self.lookback}", "too short a past", "more of it")
        rows = as_series(series)[-self.lookback :].T
        level = level_of(rows, self.level)
        ahead = ((rows - level) @ self.coef + self.intercept + level).T
        return ahead[:, 0] if series.ndim == 1 else ahead

    def error(self, series: Any) -> float:
        """Mean squared error over all windows of ``series``, all steps and channels."""
        source = Windows(series, self.lookback, self.coef.shape[1], self.level)
        total, count = 0.0, 0
        for block in source.blocks():
            rest = block.y - block.x @ self.coef - self.intercept
            total, count = total + float(np.sum(rest * rest)), count + rest.size
        return total / count


def forecaster(
    train: Any, validation: Any, horizon: int, *, lookbacks: Sequence[int] = (336,), alphas: Any = None,
    levels: Sequence[str] = ("last",), refit: bool = False, precision: str = "float64",
) -> Forecast:  # fmt: skip
    """Fit the ridge from windows of the past to the next ``horizon`` steps, the same for all channels.

    Args:
        train: (time, channels). Scale channels alike; they share the model.
        validation: (time, channels) that follows ``train``.
        lookbacks, alphas, levels: what to choose from, by the mean squared error on validation windows whose future
            lies in ``validation`` (their past may reach into ``train``).
        refit: fit again on both with what was chosen.
        precision: as ``Moments``.

    Raises:
        BadData: NaN, or a series shorter than a window.
    """
    grid = as_alphas(np.logspace(-1, 5, 13) if alphas is None else alphas)
    if not (len(lookbacks) and len(levels)):
        raise BadData("nothing to choose from", "lookbacks or levels is empty", "lookbacks=(96, 336)")
    train, validation = as_series(train), as_series(validation)
    if train.shape[1] != validation.shape[1]:
        raise BadData(
            f"train has {train.shape[1]} channels, validation {validation.shape[1]}", "parts of different series",
            "the same channels in both",
        )  # fmt: skip
    tried: dict[tuple[int, str], Floats] = {}
    best: tuple[float, Any] = (np.inf, None)
    for lookback in lookbacks:
        for level in levels:
            m = Moments(precision=precision).update(Windows(train, lookback, horizon, level))
            after = np.concatenate([train[-lookback:], validation])
            held = Moments(precision=precision).update(Windows(after, lookback, horizon, level))
            spectrum = Spectrum(Normal.from_moments(m))
            errors = validation_error(spectrum, held.total, lookback, grid).mean(axis=1)
            tried[lookback, level] = errors
            at = int(np.argmin(errors))
            if errors[at] < best[0]:
                best = (float(errors[at]), (lookback, level, float(grid[at]), m, held, spectrum))
    lookback, level, alpha, m, held, spectrum = best[1]
    if refit:
        spectrum = Spectrum(Normal.from_moments(m + held))
    coef = spectrum.coef(alpha)
    return Forecast(coef, spectrum.normal.intercept_of(coef), lookback, level, alpha, tried)


def as_series(series: Any) -> Array:
    """(time, channels), checked."""
    array = np.asarray(series)
    array = array.astype(np.float64) if array.dtype not in (np.float32, np.float64) else array
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not np.isfinite(array).all():
        raise BadData("the series is no table of finite numbers", "missing steps, or a wrong shape", "(time, channels)")
    return array


def lagged(series: Any, lags: Sequence[int], horizon: int = 1) -> tuple[Floats, Floats]:
    """Chosen lags (yesterday, last week) as columns.

    Args:
        series: (time,) or (time, channels).
        lags: steps back, 1 is the value before.
        horizon: how many steps ahead the target lies; 1 is the next value, for which lag 1 is known.

    Returns:
        X: (rows, lags * channels), channel after channel for each lag; Y: (rows, channels).
    """
    values = as_series(series)
    first = max(lags, default=0) + horizon - 1
    if not len(lags) or min(lags) < 1 or horizon < 1 or len(values) <= first:
        raise BadData(f"lags {list(lags)} on {len(values)} steps", "a lag below 1 or a short series", "lags=[1, 24]")
    columns = [values[first - (lag + horizon - 1) : len(values) - (lag + horizon - 1)] for lag in lags]
    return np.hstack(columns), values[first:]


def seasons(time: Any, periods: Sequence[float], harmonics: int = 3) -> Floats:
    """(rows, 2 * harmonics * periods) sines and cosines of every period.

    Args:
        time: (rows,) in the unit of ``periods`` (24 and 168 for hours).
    """
    if not len(periods) or not min(periods) > 0 or harmonics < 1:
        raise BadData(f"periods={list(periods)}, harmonics={harmonics}", "none, or a period of 0", "periods=[24, 168]")
    t = np.asarray(time, dtype=np.float64)
    angles = [2 * np.pi * k * t / period for period in periods for k in range(1, harmonics + 1)]
    return np.column_stack([f(a) for a in angles for f in (np.sin, np.cos)])

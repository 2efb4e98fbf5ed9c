"""``fit``: from data to a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hasten.core.errors import UsageError
from hasten.fleet.fleet import Fleet
from hasten.fleet.frames import SKIP, tasks_of
from hasten.fleet.modules import Factory
from hasten.fleet.recipe import EarlyStop, Recipe, counted, stop_of
from hasten.fleet.session import Session, Watch
from hasten.fleet.state import plain_settings
from hasten.fleet.summary import proof_lines
from hasten.fleet.tasks import by_name
from hasten.measure import machine


def fit(
    make_model: Callable[..., torch.nn.Module],
    tasks: Any,
    *,
    loss: Any = "mse",
    optimizer: Any = "adam",
    lr: float = 1e-3,
    epochs: int = 20,
    batch_size: int = 64,
    stop: EarlyStop | int | None = None,
    seed: int = 0,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    clip: float | None = None,
    by: str = "",
    features: str | Sequence[str] = (),
    target: str | Sequence[str] = "",
    window: int = 0,
    horizon: int = 0,
    season: int = 0,
    time_column: str = "",
    gaps: str = SKIP,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    engine: str = "auto",
    workers: int = 0,
    shortest_first: bool = False,
    prove: int = 0,
    baseline: str = "",
    journal: str | Path | None = None,
    progress: Watch | None = None,
) -> Fleet:
    """Train one network a key, with the result the plain loop would have given.

    Args:
        make_model: returns an ``nn.Module``. It is called once a key, with torch's generator seeded for that key, with
            the key's settings as arguments, and with the key where it has a parameter ``key``.
        tasks: a mapping ``key -> (X, y)`` with X: (rows, …) and y: (rows,) or (rows, outputs); a mapping
            ``key -> series`` with ``window`` and ``horizon``; or a data frame (pandas, polars, pyarrow …) with ``by``,
            ``target``, and either ``features`` or ``window`` and ``horizon``.
        loss: ``"mse"``, ``"mae"``, ``"huber"``, ``"quantile"``, ``"cross_entropy"``, ``"bce"``, a ``Loss``, or a
            callable ``(predicted, y) -> scalar``.
        optimizer: ``"sgd"``, ``"adam"``, ``"adamw"``, or a callable ``parameters -> torch.optim.Optimizer``.
        lr, weight_decay, momentum, nesterov, betas, eps: the optimizer's, as in ``torch.optim``.
        epochs, batch_size, seed: as in the plain loop; an epoch's last batch holds what is left.
        stop: when a model stops early; it keeps its best weights. A number is a patience.
        clip: largest 2-norm of a model's gradient.
        by, features, target, time_column: columns of a data frame; rows are sorted by ``time_column`` where it is
            given; several targets are predicted together.
        window, horizon: rows of a series that are seen and predicted; windows are views and are never copied out.
        gaps: ``"skip"`` leaves windows out that go over a step in the ``time_column`` that is longer than usual (none
            is where steps have no period), ``"join"`` learns them like others.
        season: rows of one season, for the seasonal-naive baseline.
        settings: a key's own ``lr``, ``weight_decay``, ``seed``; anything else goes to ``make_model``.
        engine: ``"auto"`` tries those that can train these models; or ``"native"``, ``"stacked"``, ``"loop"``.
        workers: models trained side by side; the cores this process may use unless given.
        shortest_first: short jobs first; many keys are done early, the end comes a little later.
        prove: train so many sampled keys by the plain loop, too, and print the comparison.
        baseline: ``"report"`` compares with the seasonal-naive forecast and one global model; ``"keep"`` also lets
            whichever is best on a key's held-out rows predict for it.
        journal: a folder; a run that was killed goes on from there when called again, to the same bits.
        progress: called with a ``Progress`` whenever a model is finished.

    Returns:
        the fleet. Keys that could not be trained are in ``fleet.failed``.

    Raises:
        UsageError: the arguments do not fit together, or another call is at work on the journal.
        HastenError: the journal's disk is full.
    """
    recipe = Recipe(
        loss, optimizer, lr, epochs, batch_size, seed, weight_decay, momentum, nesterov, betas, eps, clip, stop_of(stop)
    )  # fmt: skip
    _check_baseline(baseline, recipe)
    workers, prove = counted("workers", workers) or machine.cores(), counted("prove", prove)
    factory = Factory(make_model)
    columns: dict[str, Any] = {
        "by": by, "features": (features,) if isinstance(features, str) and features else tuple(features),
        "target": target if isinstance(target, str) else list(target), "time_column": time_column,
        "window": counted("window", window),
    }  # fmt: skip
    sizes = {"horizon": counted("horizon", horizon), "season": counted("season", season)}
    found, read = tasks_of(tasks, recipe, **columns, **sizes, gaps=gaps)
    own = {key: plain_settings(key, value) for key, value in by_name(settings or {}).items()}
    session = Session(factory, recipe, found, own, engine, workers, shortest_first)
    session.columns, session.gaps = {**columns, "read": read}, gaps
    fleet = session.train(Path(journal) if journal is not None else None, progress)
    _look_at(fleet, prove, baseline)
    return fleet


def _look_at(fleet: Fleet, prove: int, baseline: str) -> None:
    """Compare what was trained with the plain loop, and with the baselines, where that was asked for."""
    if prove:
        print("\n".join(proof_lines(fleet.prove(prove))))
    if baseline:
        from hasten.fleet import baselines

        baselines.compare(fleet, fleet.session, keep=baseline == "keep")


def _check_baseline(baseline: str, recipe: Recipe) -> None:
    if baseline not in ("", "report", "keep"):
        raise UsageError(f"baseline={baseline!r}", "a typing error", 'baseline="report" or baseline="keep"')
    if baseline and recipe.stop is None:
        raise UsageError(
            "baselines are compared on held-out rows, and none are held out", "stop is None", "stop=EarlyStop()"
        )

"""Forecasts of M4 hourly and M3 by own networks, one global network, scikit-learn in a loop, and seasonal-naive.

Trained on the competitions' training parts, judged on their official test parts by MASE and sMAPE. The files are not
part of this repository: M4 as its CSV files (a row a series), M3 as an .npz with train and test (one series after the
other), train_len, test_len and period.

All networks have one hidden layer of the same width and give what is added to the seasonal-naive forecast of their
window, in the window's own scale (``fleet.Residual``; scikit-learn's is given inputs and targets in that form). Ours
are trained on the mean absolute error, scikit-learn's on the squared one, which is all it has. All groups have the same
setting; nothing is selected on the test parts. "The better on held-out rows" is ``baseline="keep"``:
a key's last windows decide whether its own network, the global one or the seasonal-naive forecast predicts for it.
Series too short for that have their own network. scikit-learn's is fitted on some of the series.
"""

from __future__ import annotations

import argparse
import collections
import csv
import gzip
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import head, save, say
from torch import nn

from hasten import fleet
from hasten.fleet.naive import LEAST_SCALE, repeated

CLAIM = "M4 hourly and M3, one network a series, MASE on the official test parts (goal: no worse than seasonal-naive)"
NAME = "fleet-series"
HIDDEN, EPOCHS, LR = 64, 30, 1e-3
PERIODS = {24: (96, "M4 hourly"), 12: (24, "M3 monthly"), 4: (8, "M3 quarterly"), 1: (4, "M3 yearly and other")}

SEASONS = {"YEARLY": 1, "QUARTERLY": 4, "MONTHLY": 12, "OTHER": 1}

Series = Mapping[str, tuple[Any, Any, int]]  # key to training part, test part, period


def m4(train: Path, test: Path) -> dict[str, tuple[Any, Any, int]]:
    """The hourly series of M4."""

    def read(path: Path) -> dict[str, Any]:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        return {row[0]: np.array([float(v) for v in row[1:] if v not in ("", "NA")]) for row in rows}

    later = read(test)
    return {key: (values, later[key], 24) for key, values in read(train).items()}


def m3(path: Path) -> dict[str, tuple[Any, Any, int]]:
    """All series of M3."""
    a = np.load(path)
    parts = [np.split(a[part], np.cumsum(a[f"{part}_len"])[:-1]) for part in ("train", "test")]
    return {
        f"N{i:04d}": (train.astype(float), test.astype(float), SEASONS[str(period).upper()])
        for i, (train, test, period) in enumerate(zip(*parts, a["period"], strict=True))
    }


def scores(series: Series, forecasts: Mapping[str, Any]) -> dict[str, float]:
    """MASE and sMAPE (per cent), means over the series that have a forecast."""
    mase, smape = [], []
    for key, forecast in forecasts.items():
        train, test, season = series[key]
        error = np.abs(forecast - test)
        mase.append(error.mean() / max(np.abs(train[season:] - train[:-season]).mean(), 1e-9))
        smape.append((200 * error / (np.abs(forecast) + np.abs(test) + 1e-9)).mean())
    return {"MASE": float(np.mean(mase)), "sMAPE": float(np.mean(smape)), "series": len(mase)}


def group(name: str, series: Series, window: int, horizon: int, sample: int) -> dict[str, Any]:
    """All methods on the series of one period and horizon."""
    season = next(iter(series.values()))[2]
    tasks = {key: train for key, (train, _, _) in series.items()}

    def make() -> nn.Module:
        return fleet.Residual(nn.Sequential(nn.Linear(window, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, horizon)), season)

    options: dict[str, Any] = {
        "window": window,
        "horizon": horizon,
        "season": season,
        "epochs": EPOCHS,
        "lr": LR,
        "loss": "mae",
    }
    start = time.perf_counter()
    own = fleet.fit(make, tasks, **options, batch_size=32)
    last = {key: tasks[key][None, -window:] for key in own}
    found = {key: own.predict(key, last[key])[0] for key in own}
    rows: dict[str, dict[str, Any]] = {
        "own networks": {**scores(series, found), "seconds": time.perf_counter() - start}
    }
    start = time.perf_counter()
    kept = fleet.fit(make, tasks, **options, batch_size=32, stop=fleet.EarlyStop(), baseline="keep")
    better = {key: (kept if key in kept else own).predict(key, last[key])[0] for key in own}
    rows["the better on held-out rows"] = {**scores(series, better), "seconds": time.perf_counter() - start}
    start = time.perf_counter()
    rows["one global network"] = {**scores(series, _global(make, own, last)), "seconds": time.perf_counter() - start}
    start = time.perf_counter()
    some = dict(list(last.items())[:sample])
    rows["scikit-learn's, in a loop"] = {
        **scores(series, _sklearn(own, some, season)),
        "seconds": time.perf_counter() - start,
    }
    rows["own networks, the same series"] = {**scores(series, {key: found[key] for key in some}), "seconds": None}
    naive = {key: np.resize(tasks[key][-season:], horizon) for key in own}
    rows["seasonal-naive"] = {**scores(series, naive), "seconds": 0.0}
    say(f"{name}, {len(series)} series, window {window}, horizon {horizon}; failed: {len(own.failed)}")
    for method, row in rows.items():
        errors = f"MASE {row['MASE']:.3f}  sMAPE {row['sMAPE']:6.2f} %"
        took = "–" if row["seconds"] is None else f"{row['seconds']:.2f}"
        say(f"  {method:32} {row['series']:5} series  {errors}  {took:>7} s")
    sources = collections.Counter(row.source for row in kept.summary().rows if not row.cause)
    return {"methods": rows, "failed": own.failed, "sources": sources}


def _global(make: Callable[[], nn.Module], own: fleet.Fleet, last: Mapping[str, Any]) -> dict[str, Any]:
    tasks = [own.session.tasks[key] for key in own]
    pooled = {"all": (np.concatenate([t.X for t in tasks]), np.concatenate([t.y for t in tasks]))}
    shared = fleet.fit(make, pooled, epochs=EPOCHS, lr=LR, batch_size=256, loss="mae")
    found = {}
    for key, X in last.items():
        shift, scale = own.scales[key]
        found[key] = shared.predict("all", (X - shift) / scale)[0] * scale + shift
    return found


def _scale(X: Any) -> Any:
    return np.abs(X - X[:, -1:]).mean(1, keepdims=True) + LEAST_SCALE


def _sklearn(own: fleet.Fleet, last: Mapping[str, Any], season: int) -> dict[str, Any]:
    from sklearn.neural_network import MLPRegressor

    found = {}
    for key, X in last.items():
        task, (shift, scale) = own.session.tasks[key], own.scales[key]
        net = MLPRegressor(
            hidden_layer_sizes=(HIDDEN,),
            batch_size=min(32, len(task.X)),
            max_iter=EPOCHS,
            learning_rate_init=LR,
            alpha=0,
        )
        naive = repeated(task.X.shape[1], task.y.shape[1], season)
        net.fit((task.X - task.X[:, -1:]) / _scale(task.X), (task.y - task.X[:, naive]) / _scale(task.X))
        z = (X - shift) / scale
        added = net.predict((z - z[:, -1:]) / _scale(z)).reshape(-1) * _scale(z)[0]
        found[key] = (z[0, naive] + added) * scale + shift
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--m4", nargs=2, type=Path, metavar=("TRAIN", "TEST"))
    parser.add_argument("--m3", type=Path, metavar="NPZ")
    parser.add_argument("--sample", type=int, default=40, help="series for scikit-learn")
    parser.add_argument("--limit", type=int, default=0, help="series of each group, to try it out")
    args = parser.parse_args()
    head("One network a series: M4 hourly, M3")
    torch.set_num_threads(1)
    series: dict[str, tuple[Any, Any, int]] = m4(*args.m4) if args.m4 else {}
    series |= m3(args.m3) if args.m3 else {}
    groups: dict[tuple[int, int], dict[str, tuple[Any, Any, int]]] = {}
    for key, (train, test, period) in series.items():
        groups.setdefault((period, len(test)), {})[key] = (train, test, period)
    figures = {}
    for (period, horizon), members in groups.items():
        window, name = PERIODS[period]
        chosen = dict(list(members.items())[: args.limit or None])
        figures[f"{name}, horizon {horizon}"] = group(name, chosen, window, horizon, args.sample)
    parts = []
    for name, found in figures.items():
        own, kept, shared, naive = (
            f"{found['methods'][m]['MASE']:.2f}"
            for m in ("own networks", "the better on held-out rows", "one global network", "seasonal-naive")
        )
        parts.append(f"{name}: MASE {own} own, {kept} the better on held-out rows, {shared} global, {naive} naive")
    save(NAME, "; ".join(parts), figures, [])


if __name__ == "__main__":
    main()

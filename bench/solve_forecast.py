"""Forecasting ETTh1 by one ridge, against the same linear model trained by Adam, in one run on one thread.

    python bench/solve_forecast.py ETTh1.csv.gz

The usual split (12, 4, 4 months), scaled by the training part; look-back (336 or 512, those of published work), what is
subtracted from a window, and alpha are chosen on the validation part; then the model is fitted on training and
validation ("refit") and, beside it, on training alone. Errors are means over all test windows, steps and channels.
Adam: the same look-back and level, batches of 32 windows of all channels, learning rate 1e-3 and 1e-4, up to
``--epochs`` with the best validation epoch kept; its seconds are those up to that epoch.
"""

from __future__ import annotations

from solve_common import fix_threads

fix_threads()

import argparse  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from common import RESULTS, head, save, say  # noqa: E402

from hasten.solve.forecast import Forecast, forecaster  # noqa: E402

CLAIM = "Forecasting ETTh1, horizons 96/192/336/720 (goal: mean test MSE ≤ 0.410 in seconds on one core)"
NAME = "solve-forecast"
TRAIN, VALIDATION, TEST = 8640, 11520, 14400


def adam(series: Any, found: Forecast, horizon: int, epochs: int) -> dict[str, float]:
    """The same linear map trained by Adam."""
    torch.set_num_threads(1)
    best: dict[str, float] = {"validation": float("inf")}
    lookback = found.lookback
    values = torch.tensor(series, dtype=torch.float32)
    for rate in (1e-3, 1e-4):
        torch.manual_seed(0)
        layer = torch.nn.Linear(lookback, horizon)
        optimizer = torch.optim.Adam(layer.parameters(), lr=rate)
        start, passed = time.perf_counter(), 0.0
        for _ in range(epochs):
            order = torch.randperm(TRAIN - lookback - horizon + 1)
            for i in range(0, len(order), 32):
                at = order[i : i + 32, None] + torch.arange(lookback + horizon)
                rows = values[at].transpose(1, 2)
                level = (
                    rows[..., lookback - 1 : lookback] if found.level == "last" else rows[..., :lookback].mean(-1, True)
                )
                rows = rows - level
                loss = torch.nn.functional.mse_loss(layer(rows[..., :lookback]), rows[..., lookback:])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            passed += time.perf_counter() - start
            weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
            map_ = Forecast(weight.T, bias, lookback, found.level, 0.0, {})
            error = map_.error(series[TRAIN - lookback : VALIDATION])
            if error < best["validation"]:
                test = map_.error(series[VALIDATION - lookback : TEST])
                best = {"validation": error, "test": test, "seconds": passed, "rate": rate}
            start = time.perf_counter()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    series = pd.read_csv(args.file).iloc[:, 1:].to_numpy(float)
    series = (series - series[:TRAIN].mean(axis=0)) / series[:TRAIN].std(axis=0)
    head("ETTh1: one ridge a horizon against Adam on the same linear model; one thread")
    say("horizon  look-back  level  seconds  test MSE  train only |  Adam test MSE  seconds")
    raw: dict[int, Any] = {}
    for horizon in (96, 192, 336, 720):
        start = time.perf_counter()
        options: dict[str, Any] = {"alphas": np.logspace(0, 6, 13), "levels": ("last", "mean")}
        alone = forecaster(series[:TRAIN], series[TRAIN:VALIDATION], horizon, lookbacks=(336, 512), **options)
        chosen: dict[str, Any] = {"lookbacks": (alone.lookback,), "levels": (alone.level,), "alphas": [alone.alpha]}
        both = forecaster(series[:TRAIN], series[TRAIN:VALIDATION], horizon, refit=True, **chosen)
        seconds = time.perf_counter() - start
        test = series[VALIDATION - both.lookback : TEST]
        other = adam(series, alone, horizon, args.epochs)
        raw[horizon] = {
            "lookback": both.lookback, "level": both.level, "alpha": both.alpha, "seconds": seconds,
            "test": both.error(test), "train_only": alone.error(test), "adam": other,
        }  # fmt: skip
        r = raw[horizon]
        say(
            f"{horizon:>7}  {both.lookback:>9}  {both.level:>5}  {seconds:7.1f}  {r['test']:8.4f}  "
            f"{r['train_only']:10.4f} |"
            f"  {other['test']:13.4f}  {other['seconds']:7.1f}"
        )
    mean = {k: float(np.mean([r[k] for r in raw.values()])) for k in ("test", "train_only")}
    theirs = float(np.mean([r["adam"]["test"] for r in raw.values()]))
    total, adams = sum(r["seconds"] for r in raw.values()), sum(r["adam"]["seconds"] for r in raw.values())
    summary = (
        f"mean test MSE {mean['test']:.4f} (fitted on training alone {mean['train_only']:.4f}) in {total:.0f} s, "
        f"look-back and alpha chosen; the same model by Adam {theirs:.4f} in {adams:.0f} s with the look-back given"
    )
    say("\n" + summary)
    save(NAME, summary, {"mean": mean, "adam": theirs, "seconds": total, "adam_seconds": adams}, raw, args.results)


if __name__ == "__main__":
    main()

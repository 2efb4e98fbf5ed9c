"""Forecasting ETTh1 by one ridge, against the same linear model trained by Adam, in one run on one thread.

    python bench/solve_forecast.py ETTh1.csv.gz

The usual split (12, 4, 4 months), scaled by the training part. Look-back (of the five that published work chooses from)
and alpha are chosen on the validation part; a window's last value is subtracted from it, as NLinear does. Two fits with
what was chosen: on training alone, and on training and validation ("refit"), which a closed form gives for nothing.
Errors are means over all test windows, steps and channels.

Adam: the same map with that look-back, batches of 32 windows of all channels, learning rates 1e-3, 3e-4 and 1e-4, up to
``--epochs``; rate and epoch are chosen on validation, and it, too, is fitted anew on both parts with these. Its seconds
are those up to the epoch that was kept, of the better rate only, so they leave out what choosing costs; ours are all.
"""

from __future__ import annotations

from solve_common import fix_threads

fix_threads()

import argparse  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
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
LOOKBACKS = (96, 192, 336, 512, 720)


def adam(series: Any, lookback: int, horizon: int, epochs: int) -> dict[str, float]:
    """The same linear map trained by Adam; test errors of the fit on training, and of that on both parts."""
    torch.set_num_threads(1)
    best: dict[str, float] = {"validation": float("inf")}
    test = series[VALIDATION - lookback : TEST]
    for rate in (1e-3, 3e-4, 1e-4):
        passed = 0.0
        for epoch, (map_, seconds) in enumerate(trained(series[:TRAIN], lookback, horizon, rate, epochs), 1):
            passed += seconds
            error = map_.error(series[TRAIN - lookback : VALIDATION])
            if error < best["validation"]:
                best = {"validation": error, "test": map_.error(test), "seconds": passed, "rate": rate, "epochs": epoch}
    for map_, seconds in trained(series[:VALIDATION], lookback, horizon, best["rate"], int(best["epochs"])):
        best["refit"], best["refit_seconds"] = map_.error(test), best.get("refit_seconds", 0.0) + seconds
    return best


def trained(series: Any, lookback: int, horizon: int, rate: float, epochs: int) -> Iterator[tuple[Forecast, float]]:
    """The map after every epoch, and the seconds of that epoch."""
    torch.manual_seed(0)
    values = torch.tensor(series, dtype=torch.float32)
    layer = torch.nn.Linear(lookback, horizon)
    optimizer = torch.optim.Adam(layer.parameters(), lr=rate)
    for _ in range(epochs):
        start = time.perf_counter()
        order = torch.randperm(len(series) - lookback - horizon + 1)
        for i in range(0, len(order), 32):
            at = order[i : i + 32, None] + torch.arange(lookback + horizon)
            rows = values[at].transpose(1, 2)
            rows = rows - rows[..., lookback - 1 : lookback]
            loss = torch.nn.functional.mse_loss(layer(rows[..., :lookback]), rows[..., lookback:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - start
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        yield Forecast(weight.T, bias, lookback, "last", 0.0, {}), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    series = pd.read_csv(args.file).iloc[:, 1:].to_numpy(float)
    series = (series - series[:TRAIN].mean(axis=0)) / series[:TRAIN].std(axis=0)
    head("ETTh1: one ridge a horizon against Adam on the same linear model; one thread")
    say("                                   test MSE              Adam, test MSE")
    say("horizon  look-back    alpha  seconds  training   refit     training   refit  seconds")
    raw: dict[int, Any] = {}
    for horizon in (96, 192, 336, 720):
        start = time.perf_counter()
        parts = series[:TRAIN], series[TRAIN:VALIDATION], horizon
        alone = forecaster(*parts, lookbacks=LOOKBACKS, alphas=np.logspace(0, 6, 13), precision="float32")
        lookback = alone.lookback
        both = forecaster(*parts, lookbacks=(lookback,), alphas=[alone.alpha], refit=True, precision="float32")
        seconds = time.perf_counter() - start
        test = series[VALIDATION - lookback : TEST]
        r = raw[horizon] = {
            "lookback": lookback, "alpha": alone.alpha, "seconds": seconds, "test": alone.error(test),
            "refit": both.error(test), "adam": adam(series, lookback, horizon, args.epochs),
        }  # fmt: skip
        other = r["adam"]
        say(
            f"{horizon:>7}  {lookback:>9}  {r['alpha']:7.0f}  {seconds:7.1f}  {r['test']:8.4f}  {r['refit']:.4f}"
            f"  {other['test']:11.4f}  {other['refit']:.4f}  {other['seconds'] + other['refit_seconds']:7.1f}"
        )
    mean = {k: float(np.mean([r[k] for r in raw.values()])) for k in ("test", "refit")}
    theirs = {k: float(np.mean([r["adam"][k] for r in raw.values()])) for k in ("test", "refit")}
    total = sum(r["seconds"] for r in raw.values())
    adams = sum(r["adam"]["seconds"] + r["adam"]["refit_seconds"] for r in raw.values())
    summary = (
        f"mean test MSE {mean['refit']:.4f} fitted on training and validation, {mean['test']:.4f} on training alone, "
        f"in {total:.0f} s for all horizons, look-backs and alphas; the same models by Adam {theirs['refit']:.4f} and "
        f"{theirs['test']:.4f} in {adams:.0f} s, look-back, rate and epochs given"
    )
    say("\n" + summary)
    save(NAME, summary, {"mean": mean, "adam": theirs, "seconds": total, "adam_seconds": adams}, raw, args.results)


if __name__ == "__main__":
    main()

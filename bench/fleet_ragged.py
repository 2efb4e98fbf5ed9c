"""What do unequal jobs cost a fleet, and how much memory does it take?

1660 forecasting networks 96-128-24, one a series, with lognormal numbers of windows (about 1000 on average). Each run's
time is compared with what no schedule could undercut: the work spread evenly over the workers, or the longest job.
Memory is resident memory of a process of its own: what it holds before ``fit`` (the series among it), its peak during
``fit``, and what the trained weights take, which every method must hold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import head, of_mean, save, say, span
from torch import nn

from hasten import fleet
from hasten.measure import machine

CLAIM = "1660 forecasting networks of unequal length (goals: 2 % extra for that, memory under 2× the raw series)"
NAME = "fleet-ragged"
WINDOW, HIDDEN, HORIZON, EPOCHS, BATCH = 96, 128, 24, 20, 64
ROWS, SPREAD, LEAST, MOST = 1000, 0.8, 64, 4800  # windows of a series: their mean, the lognormal's sigma, limits


def model() -> nn.Module:
    """96-128-24 with ReLU."""
    return nn.Sequential(nn.Linear(WINDOW, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HORIZON))


def data(models: int) -> dict[str, Any]:
    """A series a key, float32."""
    random = np.random.default_rng(0)
    rows = np.clip(ROWS * random.lognormal(-(SPREAD**2) / 2, SPREAD, models), LEAST, MOST).astype(int)
    found = {}
    for k, count in enumerate(rows):
        t = np.arange(count + WINDOW + HORIZON - 1)
        values = np.sin(t / random.uniform(2, 30)) + random.normal(size=len(t)) / 3
        found[f"{k:04d}"] = values.astype(np.float32)
    return found


def resident(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def once(models: int, out: Any) -> None:
    """One run, in a process of its own."""
    torch.set_num_threads(1)
    series = data(models)
    options: dict[str, Any] = {"window": WINDOW, "horizon": HORIZON, "batch_size": BATCH, "engine": "native"}
    fleet.fit(model, dict(list(series.items())[:2]), epochs=1, **options)  # kernel loaded, libraries warm
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted anew
    trained = fleet.fit(model, series, epochs=EPOCHS, workers=machine.cores(), **options)
    peak = resident("VmHWM")
    s = trained.summary()
    raw = sum(values.nbytes for values in series.values())
    weights = sum(w.nbytes for w in trained.weights.values())
    out.send(
        {
            "seconds": s.seconds, "bound": s.bound, "raw": raw, "weights": weights, "grown": peak - before,
            "windows": sum(r.rows for r in s.rows), "failed": len(s.failed),
            "written_out": sum(r.rows for r in s.rows) * (WINDOW + HORIZON) * 4,
        }
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1660)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    head(f"{args.models} networks {WINDOW}-{HIDDEN}-{HORIZON} of unequal length, {EPOCHS} epochs")
    context = multiprocessing.get_context("spawn")
    rounds = []
    for _ in range(args.rounds):
        ours, theirs = context.Pipe(False)
        process = context.Process(target=once, args=(args.models, theirs))
        process.start()
        found = ours.recv()
        process.join()
        found["extra"] = 100 * (found["seconds"] / found["bound"] - 1)
        rounds.append(found)
        say(f"{found['seconds']:6.2f} s, no schedule below {found['bound']:.2f} s: {found['extra']:.2f} % more")
    extra = of_mean([found["extra"] for found in rounds], "%")
    raw, weights, grown = (statistics.median(found[name] for found in rounds) for name in ("raw", "weights", "grown"))
    say(f"series {raw / 1e6:.1f} MB; windows written out would be {rounds[0]['written_out'] / 1e6:.0f} MB")
    say(f"peak of fit above what was there: {grown / 1e6:.0f} MB, of that {weights / 1e6:.0f} MB trained weights")
    times = (raw + grown - weights) / raw
    summary = (
        f"{extra.value:.1f} % extra ({span(extra, 1)}); memory {times:.1f}× the raw series "
        f"({raw / 1e6:.0f} MB), trained weights ({weights / 1e6:.0f} MB) apart"
    )
    say(summary)
    save(NAME, summary, {"extra": extra, "memory_times": times, "raw": raw, "weights": weights, "grown": grown}, rounds)


if __name__ == "__main__":
    main()

"""Real time: a sliding window of 10000 rows with 100 columns, and 1660 models in one step. One thread."""

from __future__ import annotations

from solve_common import fix_threads, in_turns, limits, median

fix_threads()

import argparse  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from common import RESULTS, head, save, say  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402

from hasten.solve import Recursive, Window  # noqa: E402

CLAIM = "Sliding window, 100 columns (goal: 15 µs a slide, drift under 1e-9 after 1e6); 1660 models a step (goal: 3 ms)"
NAME = "solve-sliding"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    head("sliding window of 10000 x 100; 1660 models of 30 columns; float64, one thread")
    random = np.random.default_rng(0)
    X = random.standard_normal((100_000, 100))
    y = X @ random.standard_normal(100) + random.standard_normal(100_000)
    window = Window(100, 1, 10_000, alpha=1.0)
    window.extend(X[:10_000], y[:10_000])
    turns = []
    done = 10_000
    while done < args.slides + 10_000:
        start = time.perf_counter()
        for i in range(done, done + 10_000):
            window.slide(X[i % 100_000], y[i % 100_000])
        turns.append((time.perf_counter() - start) / 10_000)
        done += 10_000
    at = np.arange(done - 10_000, done) % 100_000
    wanted = np.linalg.solve(X[at].T @ X[at] + np.eye(100), X[at].T @ y[at])
    drift = float(np.linalg.norm(window.coef[:, 0] - wanted) / np.linalg.norm(wanted))
    refit = in_turns({"Ridge": lambda: Ridge(1.0, fit_intercept=False).fit(X[at], y[at])}, {"Ridge": 5})["Ridge"]
    models = Recursive(1660, 30, forgetting=0.99)
    x, t = random.standard_normal((1660, 30)), random.standard_normal(1660)
    models.step(x, t)
    steps = in_turns({"step": lambda: models.step(x, t)}, {"step": 200})["step"]
    say(f"slide            {1e6 * median(turns):8.1f} µs  ({1e6 * limits(turns)[0]:.1f}–{1e6 * limits(turns)[1]:.1f})")
    say(f"refit by Ridge   {1e6 * median(refit):8.0f} µs  {median(refit) / median(turns):.0f}×")
    say(f"drift            {drift:.1e} after {args.slides} slides, healed {window.healed} times")
    say(f"1660 models      {1e3 * median(steps):8.2f} ms  ({1e3 * limits(steps)[0]:.2f}–{1e3 * limits(steps)[1]:.2f})")
    summary = (
        f"{1e6 * median(turns):.1f} µs a slide ({median(refit) / median(turns):.0f}× a refit by Ridge), drift "
        f"{drift:.0e} after {args.slides:.0e} slides, healed {window.healed} times; "
        f"1660 models in {1e3 * median(steps):.2f} ms"
    )
    figures = {"slide": median(turns), "drift": drift, "healed": window.healed, "step": median(steps)}
    save(NAME, summary, figures, {"slides": turns, "steps": steps, "refit": refit}, args.results)


if __name__ == "__main__":
    main()

"""A thousand shards merged in random orders, with retried jobs refused, against one pass."""

from __future__ import annotations

from solve_common import fix_threads

fix_threads()

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from common import RESULTS, head, save, say  # noqa: E402

from hasten.solve import BadData, Moments, ridge  # noqa: E402

CLAIM = "1000 shards in any order, retries refused (goal: equal to one pass to 1e-11)"
NAME = "solve-shards"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    raw = {}
    for offset in (0.0, 1e6):
        random = np.random.default_rng(0)
        X = random.standard_normal((args.rows, 20)) + offset
        y = (X - offset) @ random.standard_normal(20) + random.standard_normal(args.rows)
        one = Moments(X, y)
        coef = ridge(one).coef
        shards = [Moments(X[i::1000], y[i::1000], shard=f"part-{i}") for i in range(1000)]
        for seed in range(args.orders):
            total, refused = Moments(), 0
            for i in np.random.default_rng(seed).permutation(np.repeat(np.arange(1000), 2)):  # every job runs twice
                try:
                    total = total + shards[i]
                except BadData:
                    refused += 1
            assert refused == 1000 and total.n == args.rows
            scatter = float(np.abs(total.scatter - one.scatter).max() / np.abs(one.scatter).max())
            away = float(np.abs(ridge(total).coef - coef).max() / np.abs(coef).max())
            raw[f"offset {offset:g}, order {seed}"] = {"scatter": scatter, "coef": away}
    head("1000 shards, merged in random orders, each delivered twice")
    worst = {k: max(r[k] for r in raw.values()) for k in ("scatter", "coef")}
    summary = f"{len(raw)} orders, offsets 0 and 1e6: scatter apart by {worst['scatter']:.0e}, coefficients by "
    summary += f"{worst['coef']:.0e}; all 1000 duplicates refused"
    say(summary)
    save(NAME, summary, worst, raw, args.results)


if __name__ == "__main__":
    main()

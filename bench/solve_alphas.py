"""Choosing ridge's alpha: 100 alphas by 5 folds, and by leave-one-out, against scikit-learn. One thread.

GridSearchCV is measured on ``--measured`` of the alphas and scaled up to all: it refits for each of them alike.
"""

from __future__ import annotations

from solve_common import fix_threads, in_turns, median, ratio_line

fix_threads()

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from common import RESULTS, head, save, say  # noqa: E402
from sklearn.linear_model import Ridge, RidgeCV  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402

from hasten.solve import Moments, kfold, leave_one_out  # noqa: E402
from hasten.solve.source import open_source  # noqa: E402

CLAIM = (
    "Ridge, 100 alphas × 5 folds (goal: 500× GridSearchCV, equal to 1e-12, under 3 Grams; leave-one-out 40× RidgeCV)"
)
NAME = "solve-alphas"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--measured", type=int, default=10, help="alphas on which GridSearchCV is measured")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    X = random.standard_normal((args.rows, args.features)) + 1.0
    y = X @ random.standard_normal(args.features) + 2 * random.standard_normal(args.rows)
    alphas = np.logspace(-3, 5, 100)
    few = alphas[:: 100 // args.measured][: args.measured]
    head(f"ridge, 100 alphas, {args.rows} x {args.features}, float64, one thread")
    scoring = "neg_mean_squared_error"
    grid = GridSearchCV(Ridge(), {"alpha": few}, cv=5, scoring=scoring, refit=False)
    arms = {
        "Gram alone": lambda: Moments(X, y),
        "hasten, 5 folds": lambda: kfold(Moments(X, y, folds=5), alphas),
        "hasten, leave-one-out": lambda: leave_one_out(open_source(X, y), Moments(X, y), alphas),
        "RidgeCV": lambda: RidgeCV(alphas).fit(X, y),
        f"GridSearchCV, {len(few)} alphas": lambda: grid.fit(X, y),
    }
    rounds = dict(zip(arms, (7, 7, 5, 2, 2), strict=True))
    arms["Gram alone"]()
    arms["hasten, 5 folds"]()
    seconds = in_turns(arms, rounds)
    seconds["GridSearchCV, scaled to 100"] = [
        t * 100 / len(few) for t in seconds.pop(f"GridSearchCV, {len(few)} alphas")
    ]
    for name, times in seconds.items():
        base = "hasten, leave-one-out" if name == "RidgeCV" else "hasten, 5 folds"
        say(ratio_line(name, seconds[base], times))
    ours = kfold(Moments(X, y, folds=5), few).mse.mean(axis=(0, 2))
    apart = float(np.max(np.abs(ours + grid.cv_results_["mean_test_score"]) / ours))
    chosen = leave_one_out(open_source(X, y), Moments(X, y), alphas)[0].alpha
    same = chosen == RidgeCV(alphas).fit(X, y).alpha_
    k, loo = median(seconds["hasten, 5 folds"]), median(seconds["hasten, leave-one-out"])
    grid_ratio = median(seconds["GridSearchCV, scaled to 100"]) / k
    grams = k / median(seconds["Gram alone"])
    loo_ratio = median(seconds["RidgeCV"]) / loo
    summary = (
        f"k-fold {grid_ratio:.0f}× GridSearchCV (scaled from {len(few)} alphas), scores apart by {apart:.0e}, "
        f"{grams:.1f} Grams; leave-one-out {loo_ratio:.0f}× RidgeCV, {'the same' if same else 'ANOTHER'} alpha"
    )
    say("\n" + summary)
    figures = {"grid": grid_ratio, "grams": grams, "loo": loo_ratio, "apart": apart, "same_alpha": bool(same)}
    save(NAME, summary, figures, seconds, args.results)


if __name__ == "__main__":
    main()

"""Feature elimination and principal components against scikit-learn. One thread."""

from __future__ import annotations

from solve_common import fix_threads, in_turns, median, ratio_line

fix_threads()

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from common import RESULTS, head, save, say  # noqa: E402
from sklearn.decomposition import PCA, IncrementalPCA  # noqa: E402
from sklearn.feature_selection import RFECV  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402

from hasten.solve import ExactRFECV, StreamingPCA  # noqa: E402

CLAIM = "RFECV and streaming PCA (goal: 200× with the identical ranking; exact and 15× IncrementalPCA)"
NAME = "solve-rfe-pca"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="of the elimination, with 100 columns")
    parser.add_argument("--pca-rows", type=int, default=100_000, help="of the components, with 500 columns, float32")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    head(f"RFECV on {args.rows} x 100 float64; PCA on {args.pca_rows} x 500 float32; one thread")
    random = np.random.default_rng(0)
    X = random.standard_normal((args.rows, 100))
    y = X[:, :20] @ random.uniform(0.02, 0.3, 20) + random.standard_normal(args.rows)
    ours, theirs = ExactRFECV(), RFECV(LinearRegression(), cv=5)
    ours.fit(X, y)
    seconds = in_turns({"hasten": lambda: ours.fit(X, y), "RFECV": lambda: theirs.fit(X, y)}, {"hasten": 7, "RFECV": 2})
    same = bool((ours.ranking_ == theirs.ranking_).all())
    scores = float(
        np.max(np.abs(ours.cv_results_["mean_test_score"] - theirs.cv_results_["mean_test_score"]))
    )  # fmt: skip
    say(ratio_line("RFECV", seconds["hasten"], seconds["RFECV"]))
    rfe = median(seconds["RFECV"]) / median(seconds["hasten"])
    Z = random.standard_normal((args.pca_rows, 500), dtype=np.float32)
    Z *= np.linspace(1, 2, 500, dtype=np.float32)
    exact = PCA(20, svd_solver="covariance_eigh").fit(Z.astype(float)).explained_variance_
    pca, single, other = StreamingPCA(20), StreamingPCA(20, precision="float32"), IncrementalPCA(20)
    arms = {"hasten": lambda: pca.fit(Z), "float32": lambda: single.fit(Z), "IncrementalPCA": lambda: other.fit(Z)}
    times = in_turns(arms, {"hasten": 3, "float32": 3, "IncrementalPCA": 2})
    say(ratio_line("IncrementalPCA", times["hasten"], times["IncrementalPCA"]))
    say(ratio_line("IncrementalPCA, products in float32", times["float32"], times["IncrementalPCA"]))
    ratio = median(times["IncrementalPCA"]) / median(times["hasten"])
    quick = median(times["IncrementalPCA"]) / median(times["float32"])
    wrong = [float(np.max(np.abs(m.explained_variance_ / exact - 1))) for m in (pca, single, other)]
    summary = (
        f"RFECV {rfe:.0f}×, ranking {'identical' if same else 'DIFFERENT'}, scores apart by {scores:.0e}; "
        f"IncrementalPCA {ratio:.1f}×, error of the variances {wrong[0]:.0e} (IncrementalPCA's {wrong[2]:.0e}); "
        f"with float32 products {quick:.1f}×, error {wrong[1]:.0e}"
    )
    say("\n" + summary)
    figures = {"rfecv": rfe, "same_ranking": same, "pca": ratio, "pca_float32": quick, "variance_errors": wrong}
    save(NAME, summary, figures, {"rfecv": seconds, "pca": times}, args.results)


if __name__ == "__main__":
    main()

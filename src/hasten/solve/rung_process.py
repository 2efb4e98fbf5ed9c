"""One rung of the ladder in a process of its own: ``python -m hasten.solve.rung_process FOLDER score|fit SECONDS``."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path

import numpy as np

from hasten.solve.rungs import score_folds


def main(folder: str, what: str, seconds: str) -> None:
    """Read the task from ``folder`` and leave ``outcome.pickle`` there."""
    deadline = time.monotonic() + float(seconds)
    data = Path(folder)
    x, y = np.load(data / "x.npy", mmap_mode="r"), np.load(data / "y.npy")
    estimator = pickle.loads((data / "estimator.pickle").read_bytes())
    if what == "fit":
        outcome = {"model": estimator.fit(x, y)}
    else:
        outcome = score_folds(estimator, x, y, pickle.loads((data / "folds.pickle").read_bytes()), deadline)
    (data / "outcome.pickle").write_bytes(pickle.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What the ladder's rungs run in, and networks that answer with no numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from hasten.solve import ladder
from tests.solve.data import table

X, y = table(120, 3)


class Waits:
    """Answers with numbers where its process lets threads wait as was said, else with none."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted

    def fit(self, X: Any, y: Any) -> Self:
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), 0.0 if os.environ.get("OMP_WAIT_POLICY") == self.wanted else np.nan)


@pytest.mark.parametrize("policy", ["", "ACTIVE"])
def test_threads_of_rungs_wait_without_spinning_unless_they_are_told_to(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine boosting's threads spun for 10 to 40 times as long as it took."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    found = ladder(X, y, budget=60, network=Waits(policy or "PASSIVE"), climb_all=True, cv=2)
    assert found.rungs[-1].status == "no gain"


def test_a_network_that_predicts_no_numbers_has_failed() -> None:
    found = ladder(X, y, budget=60, network=Waits("never"), climb_all=True, cv=2)
    assert found.rungs[-1].status.startswith("failed: ValueError: it predicts NaN")
    assert found.best in ("linear", "additive")


def test_the_start_of_the_process_is_no_time_of_the_first_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never begun where the start alone takes as long as was allowed for everything."""
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(600)\n")
    ladder(X, y, budget=0)  # imports what this process needs
    monkeypatch.syspath_prepend(tmp_path)
    first = ladder(X, y, budget=3).rungs[0]
    assert first.status == "out of time" and np.isnan(first.seconds)

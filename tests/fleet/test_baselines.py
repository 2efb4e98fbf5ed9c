"""Is it worth it? The global network gets what own ones got, and what it is compared with is called by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet.session import Session
from tests.fleet.common import mlp, rows
from tests.fleet.test_fit import series_net, waves

SERIES: dict[str, Any] = {"window": 8, "horizon": 3, "epochs": 4, "stop": fleet.EarlyStop(patience=2)}


def test_the_global_network_is_stopped_early_by_held_out_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own networks keep the epoch that was best on the very rows on which both are compared."""
    right, met = Session.train, []

    def train(self: Session, *given: Any) -> Any:
        met.append(self)
        return right(self, *given)

    monkeypatch.setattr(Session, "train", train)
    trained = fleet.fit(series_net, waves(4, 300), **SERIES, baseline="report")
    own, shared = met
    (job,) = shared.jobs
    assert shared.recipe == own.recipe and len(job.train) == sum(len(j.train) for j in own.jobs)
    held = np.concatenate([j.task.X[j.held] for j in own.jobs])
    assert sorted(map(tuple, held)) == sorted(map(tuple, job.task.X[job.held]))
    assert trained.summary().worth["share"] == 1.0


def test_a_global_network_of_some_rows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.fleet.baselines.LEAST", 10)
    found = fleet.fit(series_net, waves(4, 300), **SERIES, baseline="report").summary()
    assert found.worth["share"] == pytest.approx(0.1, abs=0.05) and "has seen 1" in str(found)


@pytest.mark.parametrize(("season", "said"), [(0, "the last value, repeated"), (6, "the seasonal-naive forecast")])
def test_without_a_season_the_forecast_is_no_seasonal_one(season: int, said: str) -> None:
    found = fleet.fit(series_net, waves(2, 120), **SERIES, season=season, baseline="report")
    assert f"by {said}" in str(found.summary())


def test_a_season_longer_than_the_window_is_refused() -> None:
    with pytest.raises(UsageError, match="season=24 and window=8"):
        fleet.fit(series_net, waves(2, 120), **SERIES, season=24)


def test_no_keys_are_compared_where_none_was_trained() -> None:
    bad = {"a": (rows(9, 0)[0], np.ones(9))}
    assert fleet.fit(mlp, bad, epochs=1, stop=2, baseline="report").summary().remarks == ()

"""Is it worth it? The global network gets what own ones got, and what it is compared with is called by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet.session import Session
from tests.fleet.common import FEATURES, mlp, ragged, rows
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


def wide(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, 1))


def test_the_settings_of_one_key_are_not_the_global_networks() -> None:
    """Of a key that failed, whose network has another form, or of one with a learning rate of its own."""
    given = ragged(3)
    bad = {"bad": (np.full_like(given["s0"][0], np.nan), given["s0"][1])}
    how: dict[str, Any] = {"epochs": 2, "stop": 2, "baseline": "report"}
    plain = fleet.fit(wide, given, **how).summary().worth["losses"]["s0"]["global"]
    for own in ({"bad": {"width": 3}}, {"s2": {"lr": 10.0}}):
        found = fleet.fit(wide, {**bad, **given}, settings=own, **how)
        assert len(found) == 3 and found.summary().worth["losses"]["s0"]["global"] == plain
    both = fleet.fit(wide, given, settings={key: {"lr": 0.1, "width": 3} for key in given}, **how)
    assert both.summary().worth["losses"]["s0"]["global"] < plain


def test_a_factory_that_makes_another_network_for_other_keys_has_no_global_one() -> None:
    def by_key(key: str) -> nn.Module:
        net = wide({"s0": 6, "s1": 6}.get(key, 5))
        return nn.Sequential(net, nn.Identity())

    found = fleet.fit(by_key, ragged(2), epochs=2, stop=2, baseline="keep")
    assert len(found) == 2 and found.summary().worth["losses"]["s0"].keys() == {"own"}

    def bent(key: str) -> nn.Module:  # weights of the same shapes that mean something else
        return nn.Sequential(nn.Linear(FEATURES, 4), nn.ReLU() if key in ("s0", "s1") else nn.Tanh(), nn.Linear(4, 1))

    found = fleet.fit(bent, ragged(2), epochs=2, stop=2, baseline="keep")
    assert found.summary().worth["losses"]["s0"].keys() == {"own"}

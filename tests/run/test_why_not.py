"""Why a remedy is not tried, and when one that was kept is tried once more."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

import hasten
from hasten.core.finding import Finding
from hasten.core.interval import Interval
from hasten.core.remedy import Remedy
from hasten.measure.interleave import Outcome, Pairs
from hasten.run.kept import Kept
from hasten.run.room import Measured
from hasten.run.search import Search
from tests.run.test_search import Judge, Room, search, trace


def why(searched: Search, remedy: Remedy, high: float = 2.0) -> str:
    finding = Finding("D103", "x", "y", None, Interval(high**0.5, 1.0, high, "ratio"))
    return searched._why_not(finding, remedy, 60.0)


def new(**changes: Any) -> Search:
    return Search(Room({}), Judge(), dataclasses.replace(trace(fetch=0.1), predicted_steps=10**6), 60.0, **changes)


def test_a_cache_is_not_tried_where_nothing_comes_a_second_time() -> None:
    once = new()
    assert not why(once, hasten.CacheSamples())
    once.trace = dataclasses.replace(once.trace, predicted_steps=157)  # 10,000 samples, 64 a step
    assert why(once, hasten.CacheSamples()) == "the job passes over its data once"
    assert not why(once, hasten.BatchedFetch())


def test_a_cache_is_not_tried_behind_a_gather_of_whole_batches() -> None:
    gathered = new()
    gathered.kept = [Kept(hasten.BatchedFetch(), "D102", Measured(Pairs(), "by hand", 0.0), "")]
    assert why(gathered, hasten.CacheSamples()) == "whole batches are gathered already, from the first pass on"


def test_what_promises_nothing_is_tried_only_where_it_was_asked_for() -> None:
    assert why(new(), hasten.Threads(1), high=1.001) == "predicted to gain nothing"
    assert not why(new(only=("Threads",)), hasten.Threads(1), high=1.001)
    assert not why(new(), hasten.Threads(1), high=1.1)


@pytest.mark.parametrize(("outcome", "left"), [(Outcome.FASTER, ["Compile"]), (Outcome.SLOWER, ["Threads", "Compile"])])
def test_what_was_kept_goes_only_where_it_is_faster_without(outcome: Outcome, left: list[str]) -> None:
    class Known(Room):
        def compare(
            self, without: Any, with_: Any, seconds: float, hoped: float = math.inf, before: Any = None
        ) -> Measured:
            pairs = Pairs(outcome=outcome)
            for i in range(20):
                pairs.add((1.2 if outcome is Outcome.FASTER else 0.8) + 0.001 * i, 1.0)
            return Measured(pairs, "by hand", 0.0)

    found = search(Room({}), trace(), only=("Nothing",))
    found.room, found._end = Known({}), math.inf
    found.kept = [
        Kept(r, "M306", Measured(Pairs(wall=[0.1] * 9), "by hand", 0.0), "")
        for r in (hasten.Threads(1), hasten.Compile())
    ]
    found.trials = [
        dataclasses.replace(t, verdict="kept")
        for t in (_trial("Threads(1)", "Threads"), _trial("Compile()", "Compile"))
    ]
    found._reconsider(found.kept[1].remedy)
    assert [k.remedy.name for k in found.kept] == left


def _trial(text: str, name: str) -> Any:
    from hasten.core.report import Trial

    return Trial(text, name, {}, "equivalent")

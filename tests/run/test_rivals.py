"""Trials that take turns or time from each other: what promises more comes first, and has its part of the budget."""

from __future__ import annotations

from typing import Any

import pytest

from hasten.core.remedy import Fidelity
from hasten.core.trace import Trace
from tests.run.test_search import Copies, Judge, Room, names, search, trace


def loops(optimizer: float = 0.03) -> Trace:
    return trace(optimizer=optimizer)


def test_of_two_that_exclude_each_other_the_one_that_promises_more_is_tried_first() -> None:
    room = Room({"ForeachOptimizer": 1.2, "FusedOptimizer": 1.3})
    found = search(room, loops())
    assert names(found.kept) == ["FusedOptimizer"]
    assert not any("ForeachOptimizer" in with_ for _, with_ in room.tried)
    told = {t.name: t.why for t in found.trials}
    assert told["ForeachOptimizer"] == "FusedOptimizer(), which promises more, was kept in its place"


@pytest.mark.parametrize(
    ("gains", "judge", "options"),
    [
        ({"ForeachOptimizer": 1.2}, Judge(), {}),
        ({"ForeachOptimizer": 1.2, "FusedOptimizer": 1.3}, Judge(("FusedOptimizer",)), {}),
        ({"ForeachOptimizer": 1.2, "FusedOptimizer": 1.3}, Judge(), {"skip": ("FusedOptimizer",)}),
        ({"ForeachOptimizer": 1.2, "FusedOptimizer": 1.3}, Judge(), {"allow": Fidelity.IDENTICAL}),
    ],
)
def test_the_other_is_tried_where_that_gains_nothing_or_may_not_be(
    gains: dict[str, float], judge: Judge, options: dict[str, Any]
) -> None:
    assert names(search(Room(gains), loops(), judge=judge, **options).kept) == ["ForeachOptimizer"]


def test_whole_processes_have_their_part_of_the_budget_by_what_they_promise() -> None:
    """The allocator promises more than what comes after it: that gets what is left beside its processes."""
    started = Room({"Allocator": 1.25}, least=40.0)
    room = Copies(3.0, {"ChannelsLast": 1.5})
    room.least = 12.0
    found = search(room, trace(faults=40_000.0), 60.0, launches=(started, Judge()))
    assert names(found.launched) == ["Allocator"]
    after = [s for (_, with_), s in zip(room.tried, room.allowed, strict=True) if with_[-1] != "Allocator"]
    assert all(seconds <= 60.0 - 40.0 for seconds in after)

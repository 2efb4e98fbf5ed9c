"""Trials that ended for want of time, or of steps, and what is left of the budget."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hasten.measure.interleave import Pairs
from hasten.run.room import Measured
from hasten.run.stepwise import SHORT
from hasten.run.trial import TIME_UP
from tests.run.test_search import Slow, names, search, with_compiler


def test_a_trial_that_time_cut_short_goes_on_where_what_was_reserved_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling promises most and is too dear at its turn; what was kept for it goes to a trial that could not tell,
    which goes on with the pairs it has."""

    class Starved(Slow):
        def compare(
            self, without: Any, with_: Any, seconds: float, hoped: float = math.inf, before: Any = None
        ) -> Measured:
            if with_[-1].name != "FusedOptimizer":
                self.now += 2.0  # longer than the shortest
                return super().compare(without, with_, seconds, hoped)
            self.now += 2.0
            given.append((seconds, hoped, 0 if before is None else len(before.wall)))
            pairs = before if before is not None else Pairs()
            for i in range(60 if before is not None else 10):
                slow = 0.95 if before is None and i % 2 else 1.1
                pairs.add(slow + 0.001 * (i % 3), 1.0, 1.0, 1.0)
                pairs.look()
            return Measured(pairs, "by hand", 2.0, TIME_UP if before is None else "")

    given: list[tuple[float, float, int]] = []
    room = Starved({}, {"Compile": 50.0}, 2.0, monkeypatch)
    found = search(room, with_compiler())
    assert "Compile" not in {r for _, with_ in room.tried for r in with_}
    assert names(found.kept) == ["FusedOptimizer"]
    assert [t.verdict for t in found.trials if t.name == "FusedOptimizer"] == ["kept"]
    (short, _, none), (long, hoped, ten) = given
    assert (none, ten, hoped) == (0, 10, math.inf) and long > 5 * short


@pytest.mark.parametrize(
    ("kind", "args"), [("step", ()), ("child", ()), pytest.param("child", ("thread",), marks=pytest.mark.slow)]
)
def test_where_the_script_has_no_more_steps_it_is_not_the_budget_that_was_short(
    lab: Any, kind: str, args: tuple[str, ...]
) -> None:
    """A copy that went on behind the last step, as in a long evaluation, was waited for to the end of its time, and a
    larger budget was offered. So was a process begun anew."""
    hooks = {"remedies": [kind], "patches": ["judged"], "seconds": 60}
    ran = lab("tail.py", args=args, budget=1000.0 if args else 40.0, hooks=hooks).run()
    document = ran.document or {}
    assert [(t["verdict"], t["why"]) for t in document["run"]["trials"]] == [("cannot tell", SHORT)], ran.why
    assert document["next"] == " ".join(("hasten explain train.py", *args))

"""What rules say of traces written by hand: the place, the remedy, and the range that they are certain of."""

from __future__ import annotations

import dataclasses
from typing import Any

from hasten.core.finding import Finding
from hasten.core.interval import Interval
from hasten.core.trace import LoaderFacts, Phase, Place, Process, Trace, Usage
from hasten.rules import all_rules

LOOP, MODEL, LOAD = (Place("train.py", n, "main", text) for n, text in ((4, "for"), (5, "net(x)"), (9, "np.load")))


def trace(step: float, *, usage: Usage | None = None, loader: LoaderFacts | None = None, **phases: float) -> Trace:
    """A step on two cores with these phases; the rest is forward."""
    times = {"forward": step - sum(phases.values()), **phases}
    return Trace(
        "train.py",
        steps=200,
        window=190,
        step=Interval(step, step, step, "s", 0.95, 190),
        phases=tuple(Phase(n, Interval.exact(s), MODEL if n == "forward" else LOOP) for n, s in times.items()),
        loaders=(loader,) if loader is not None else (),
        usage=usage or Usage(cpu_seconds=step, wall_seconds=step),
        process=Process(threads=2, cores=2, forkable=True),
    )


def found(code: str, of: Trace) -> list[Finding]:
    return list(next(r for r in all_rules() if r.code == code).detect(of))


def faults(**changes: Any) -> Trace:
    usage = Usage(cpu_seconds=0.1, wall_seconds=0.1, system_seconds=0.02, minor_faults=5000)
    return trace(0.1, usage=dataclasses.replace(usage, **changes), fetch=0.08)


def test_page_faults_are_blamed_on_the_line_where_they_came() -> None:
    assert [f.place for f in found("M307", faults(model_faults=0.1, faults_place=LOAD))] == [LOAD]
    assert [f.place for f in found("M307", faults(model_faults=0.9))] == [MODEL]


def test_page_faults_seen_nowhere_are_blamed_on_no_line() -> None:
    for unknown in (faults(), faults(model_faults=0.3)):
        (finding,) = found("M307", unknown)
        assert finding.place is None and finding.notes


def test_threads_keep_no_more_cores_busy_than_the_window_lasted() -> None:
    usage = Usage(cpu_seconds=0.12, wall_seconds=0.1)  # slow steps in the window, quick ones ever since
    (finding,) = found("M306", trace(0.015, usage=usage))
    assert "2 threads keep 1.2 cores busy" in finding.message

"""Loops that begin a pass over a loader for every batch: what that costs is told, and workers are no cure."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hasten.core.facts import Hot, LoaderFacts, Probe, Process, Usage
from hasten.core.finding import Finding
from hasten.core.interval import Interval
from hasten.core.trace import Phase, Trace
from hasten.rules import all_rules
from tests import samples

LOOP = samples.LOOP_LINE
PROBE = Probe(deterministic=True, random_free=True, seconds=20e-6)
NEXT_ITER = LoaderFacts("training", "Rows", LOOP, 50_000, 32, starts=100, batches=100, start_seconds=0.06, probe=PROBE)


def trace(loader: LoaderFacts, beside: float = 0.0, **seconds: float) -> Trace:
    """A step of 27.7 ms, of which 15 ms are the model's."""
    known = {"forward": 0.015, "fetch": 0.0101, "loader start": 0.0006, **seconds}
    return Trace(
        "train.py",
        steps=100,
        window=100,
        step=Interval.exact(0.0277),
        phases=tuple(Phase(name, Interval.exact(s), LOOP) for name, s in known.items()),
        hot=(Hot("python", LOOP, beside, beside / 0.0277),),
        loaders=(loader,),
        process=Process(threads=1, cores=2),
        usage=Usage(2.0, wall_seconds=2.77),
    )


def found(code: str, of: Trace) -> list[Finding]:
    return list(next(r for r in all_rules() if r.code == code).detect(of))


def test_what_beginning_a_pass_takes_is_told() -> None:
    """What was measured: 25.7 ms a step so, 15.8 ms with one iterator."""
    (finding,) = found("D108", trace(NEXT_ITER, beside=0.002))
    assert "50,000 samples" in finding.message and "workers" not in finding.message
    assert finding.place == LOOP and not finding.remedies and "iter(loader) before the loop" in finding.advice
    assert finding.predicted.low < 25.7 / 15.8 < finding.predicted.high < 2.8


def test_workers_that_every_batch_starts_anew_are_not_kept_but_the_pass_is() -> None:
    """By hand: 555 ms a step so, 80 with the same workers kept, 26 without, 7 with one iterator."""
    loader = dataclasses.replace(NEXT_ITER, num_workers=2, start_seconds=46.0)
    step = trace(loader, forward=0.019, fetch=0.098, **{"loader start": 0.46})
    step = dataclasses.replace(step, step=Interval.exact(0.577))
    (finding,) = found("D108", step)
    assert "with 2 workers of its own" in finding.message and finding.predicted.high > 20
    assert not found("D105", step)
    (fewer,) = found("D101", step)
    assert [str(r) for r in fewer.remedies] == ["LoaderWorkers(0)"] and fewer.predicted.high > 20


def test_workers_are_no_cure_for_it() -> None:
    """By hand: a step takes 2.7 times as long with one that stays alive, for every pass waits for what it has begun."""
    assert not found("D101", trace(NEXT_ITER))
    assert found("D101", trace(dataclasses.replace(NEXT_ITER, starts=1)))


@pytest.mark.parametrize(
    "changes",
    [
        {"starts": 2, "batches": 3},  # of a first look
        {"starts": 40, "batches": 100},
        {"length": 32},  # all in one batch
        {"length": 64},
        {"length": -1},
        {"batch_size": -1},
    ],
)
def test_passes_that_go_on_are_no_trouble(changes: dict[str, Any]) -> None:
    loader = dataclasses.replace(NEXT_ITER, **changes)
    assert not loader.cut_short and not found("D108", trace(loader))


def test_a_pass_that_costs_nothing_is_not_told_of() -> None:
    dear = dataclasses.replace(NEXT_ITER, probe=dataclasses.replace(PROBE, seconds=500e-6))
    assert not found("D108", trace(dear))

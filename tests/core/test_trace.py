"""What is derived from a trace: passes that a job makes, forward passes that train, the most that a cure can bring."""

from __future__ import annotations

import dataclasses
import math

import pytest

from hasten.core.facts import Event, LoaderFacts, ModelFacts, Place, Usage
from hasten.core.interval import Interval
from hasten.core.trace import Phase, Trace

STUDENT, TEACHER = Place("train.py", 7), Place("train.py", 8)
TRACE = Trace(
    "train.py",
    step=Interval.exact(0.1),
    phases=(Phase("forward", Interval.exact(0.06)),),
    loaders=(LoaderFacts("training", "Photos", length=1000, batch_size=100),),
    predicted_steps=20,
)


def test_a_job_that_accumulates_gradients_passes_over_its_data_as_often_as_it_fetches() -> None:
    assert TRACE.passes == pytest.approx(2)
    assert dataclasses.replace(TRACE, batches=4.0).passes == pytest.approx(8)
    assert dataclasses.replace(TRACE, predicted_steps=-1).passes == math.inf
    odd = dataclasses.replace(TRACE.loaders[0], length=1001)
    assert dataclasses.replace(TRACE, loaders=(odd,)).passes == pytest.approx(20 / 11)


def test_the_forward_of_a_teacher_is_not_what_is_trained() -> None:
    """A line where both are called belongs to the model that trains."""
    events = (Event("forward", STUDENT, 1.0, 0.04), Event("forward", TEACHER, 1.0, 0.02))
    student, teacher = ModelFacts("Net", STUDENT), ModelFacts("Net", TEACHER, trained=False)
    trace = dataclasses.replace(TRACE, events=events, models=(student, teacher))
    assert trace.trained_forward == pytest.approx(0.04)
    both = dataclasses.replace(trace, models=(*trace.models, ModelFacts("Net", TEACHER)))
    assert both.trained_forward == pytest.approx(0.06)


def test_a_cure_cannot_take_a_whole_step_away() -> None:
    assert TRACE.amdahl(0.05) == pytest.approx(2)
    assert TRACE.amdahl(0.2) == pytest.approx(100)
    assert TRACE.faster(0.08, (2.0, 4.0)) == pytest.approx((0.1 / 0.06, 0.1 / 0.04))


def test_a_loaders_own_workers_are_no_strangers() -> None:
    usage = Usage(wall_seconds=0.1, other_load=1.5, worker_cpu_seconds=0.08)
    assert usage.strangers == pytest.approx(0.7)
    assert dataclasses.replace(usage, worker_cpu_seconds=0.3).strangers == 0.0

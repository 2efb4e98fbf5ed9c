"""Samples belong to steps that have ended, to the loop that asked, and to lines of the user's."""

from __future__ import annotations

import sys
import zipimport
from types import CodeType
from typing import Any

import pytest

from hasten.core.interval import Interval
from hasten.measure.clock import INDEX, PhaseClock
from hasten.seams.collect import MOST_CHILDREN, _children, _hot, _owned
from hasten.seams.facts import _place
from hasten.seams.locate import resolve
from hasten.seams.samples import SampleKey, Sampler

FETCH, FORWARD, EVALUATION, PYTHON = (INDEX[n] for n in ("fetch", "forward", "evaluation", "python"))


def code(name: str) -> CodeType:
    return compile("a = 1\nb = 2\n", name, "exec")


USER, LIBRARY = code("/home/someone/train.py"), zipimport.zipimporter.find_spec.__code__


def key(phase: int, line: int, kind: str = "", of: CodeType = USER) -> SampleKey:
    return (phase, of, line, kind, "")


@pytest.fixture
def sampler() -> Sampler:
    return Sampler(PhaseClock())


def test_what_comes_after_the_last_step_is_no_steps(sampler: Sampler) -> None:
    clock = sampler.clock
    sampler.pending[key(PYTHON, 1)] = 0.1
    assert sampler.take() == {}
    clock.cut(clock.now())
    assert sampler.take() == {key(PYTHON, 1): 0.1}
    sampler.pending[key(PYTHON, 2)] = 5.0  # the interpreter ends
    assert sampler.take() == {}


def test_an_evaluations_samples_are_the_running_steps(sampler: Sampler) -> None:
    clock = sampler.clock
    clock.evaluation(True)
    sampler.tail[key(FETCH, 2)] = 0.2
    clock.cut(clock.now())
    assert sampler.take() == {key(EVALUATION, 2): 0.2}


def test_an_evaluations_first_batch_moves_and_the_training_loops_does_not(sampler: Sampler) -> None:
    clock = sampler.clock
    sampler.pending.update({key(FETCH, 1): 0.3, key(FETCH, 2): 0.1})
    first = next(start for start, _, line in USER.co_lines() if line == 1)
    sampler.move(FETCH, EVALUATION, (USER, first))
    clock.cut(clock.now())
    assert sampler.take() == {key(FETCH, 1): 0.3, key(EVALUATION, 2): 0.1}


def test_waiting_for_workers_carries_the_line_that_waits_most() -> None:
    samples = {key(FETCH, 2, "wait for workers"): 0.1, key(FETCH, 1, "wait for workers"): 5.0}
    children = _children(FETCH, Interval.exact(1.0), samples)
    assert [(c.name, c.place.line if c.place else 0) for c in children] == [("wait for workers", 1)]


def test_no_place_of_a_library_is_named() -> None:
    samples = {key(PYTHON, 64, of=LIBRARY): 3.0, key(PYTHON, 1): 1.0}
    children = _children(PYTHON, Interval.exact(1.0), samples)
    assert [c.place.line if c.place else 0 for c in children] == [1]
    assert children[0].seconds.value == pytest.approx(0.25)  # the library's time is not handed to the others
    assert [h.place.line for h in _hot(samples, 10)] == [1]
    booked: dict[Any, list[int]] = {(PYTHON, LIBRARY, 0): [1, 50], (PYTHON, USER, 0): [1, 5]}
    assert {place.file for _, place, _, _ in resolve(booked)} == {"/home/someone/train.py"}
    assert _place((LIBRARY, 0)) is None


def test_lines_too_many_to_be_shown_are_accounted_for() -> None:
    samples = {key(PYTHON, line): 1.0 for line in range(1, 10)} | {key(PYTHON, 64, of=LIBRARY): 1.0}
    assert len(_children(PYTHON, Interval.exact(1.0), samples)) == MOST_CHILDREN
    assert _owned(PYTHON, samples) == pytest.approx(0.9)
    assert _owned(FETCH, samples) == 0.0


def test_page_faults_are_told_by_line_outside_the_model(sampler: Sampler) -> None:
    assert sampler.faulting()[1] is None  # nothing seen
    sampler.faults.update({(FETCH, USER, 2): 9000, (FORWARD, USER, 1): 1000})
    model, place = sampler.faulting()
    assert model == pytest.approx(0.1)
    assert place is not None and place.line == 2
    sampler.faults[FORWARD, USER, 1] = 20_000
    model, place = sampler.faulting()
    assert model > 0.5 and place is None


def test_a_part_is_never_more_than_the_whole() -> None:
    weights = (0.5, 0.45, 0.66, 0.79)  # their sum depends on the order in the last digit
    samples = {key(FETCH, line, "wait for workers"): weight for line, weight in enumerate(weights, 1)}
    (part,) = _children(FETCH, Interval.exact(2.0), samples)
    assert part.seconds.value == pytest.approx(2.0)


def test_a_figure_that_is_saved_is_no_picture_that_is_decoded(sampler: Sampler) -> None:
    """PIL writes it, from inside of matplotlib; and a picture that a script saves itself is encoded."""
    calls = ["train.py", "matplotlib/figure.py", "PIL/Image.py", "PIL/PngImagePlugin.py"]
    assert innermost(sampler, calls)[3] == "plot"
    assert innermost(sampler, [calls[0], *calls[2:]])[3] == "encode"


def innermost(sampler: Sampler, files: list[str]) -> SampleKey:
    """The key of a stack in which each file's ``save`` calls the next one's."""
    root = "/usr/lib/site-packages/"
    names: dict[str, Any] = {"inner": lambda: sampler._key(sys._getframe(1))}
    for file in reversed(files):
        name = USER.co_filename if file == "train.py" else root + file
        names = {"inner": names.get("save", names["inner"])}
        exec(compile("def save(): return inner()", name, "exec"), names)
    key: SampleKey = names["save"]()
    return key


def test_what_a_checkpoint_runs_again_in_backward_is_recomputed(sampler: Sampler) -> None:
    calls = ["train.py", "torch/utils/checkpoint.py", "train.py"]
    assert innermost(sampler, calls)[3] == ""
    sampler.clock.current = INDEX["backward"]
    assert innermost(sampler, calls)[3] == "recompute"
    assert innermost(sampler, calls[:1])[3] == ""


def test_who_asks_a_loader_or_steps_an_optimizer_is_not_what_it_does(sampler: Sampler) -> None:
    """tqdm around a loader whose own samples take the time; a schedule has put its wrapper around the step."""
    asked = ["train.py", "tqdm/std.py", "torch/utils/data/dataloader.py", "torch/utils/data/dataset.py"]
    assert innermost(sampler, asked)[3] == ""
    assert innermost(sampler, [*asked[:3], "torch/utils/data/_utils/collate.py"])[3] == "collate"
    assert innermost(sampler, asked[:2])[3] == "progress bar"
    stepped = ["train.py", "torch/optim/lr_scheduler.py", "torch/optim/optimizer.py", "torch/optim/adam.py"]
    assert innermost(sampler, stepped)[3] == ""
    assert innermost(sampler, stepped[:2])[3] == "schedule"

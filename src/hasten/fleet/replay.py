"""An engine's own training of a few keys once more, stopped on its way: ``prove`` looks at it there."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from hasten.fleet import stack_trial, stacked
from hasten.fleet.loop import drive, fresh
from hasten.fleet.native.engine import NativeTrainer
from hasten.fleet.state import Floats, State
from hasten.fleet.tasks import Job

if TYPE_CHECKING:
    from hasten.fleet.session import Session

STOPS = 5  # of one key's training, at most


@dataclass(frozen=True)
class Stop:
    """A model on its way.

    Attributes:
        state: weights, moments and steps taken; its ``epoch`` is the running one.
        step: batches of that epoch that were taken.
    """

    state: State
    step: int


def stops(session: Session, jobs: Sequence[Job], epochs: Mapping[int, int]) -> dict[int, list[Stop]]:
    """Where each job's training is before the first step, at steps spread evenly over it, and at its end.

    Args:
        jobs: of any kinds whose engine is no loop.
        epochs: that each was trained for, by index.

    Returns:
        by a job's index; the last one has the weights that training ends with.
    """
    found: dict[int, list[Stop]] = {}
    size = session.recipe.batch_size
    wanted = {j.index: _spread(epochs[j.index] * j.steps(size)) for j in jobs}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the stack's own processes
    try:
        for name in dict.fromkeys(session.kinds[job.index].name for job in jobs):
            mine = [job for job in jobs if session.kinds[job.index].name == name]
            if session.choices[name].engine == "stacked":
                width = stacked.width_of(session.kinds[mine[0].index])
                for first in range(0, len(mine), width):
                    found |= _stacked(session, mine[first : first + width], wanted)
            else:
                found |= {job.index: _native(session, job, wanted[job.index]) for job in mine}
    finally:
        torch.set_num_threads(threads)
    return found


def _spread(steps: int) -> list[int]:
    """Steps to stop before; the end, which comes by itself, is none of them."""
    return sorted({round(at) for at in np.linspace(0, steps, STOPS)} - {steps})


def _begun(session: Session, job: Job) -> State:
    return fresh(session.factory(job), session.kinds[job.index].layout, session.recipe)


def _native(session: Session, job: Job, wanted: Sequence[int]) -> list[Stop]:
    recipe, kind = session.recipe, session.kinds[job.index]
    trainer = NativeTrainer(kind.chain, kind.layout, recipe, most=job.most).take(job)
    size, each = recipe.batch_size, job.steps(recipe.batch_size)
    begun = _begun(session, job)
    epochs = {0: copy.deepcopy(begun)}

    def saved(state: State) -> None:
        if any(step // each == state.epoch for step in wanted):
            epochs[state.epoch] = copy.deepcopy(state)

    end = drive(job, begun, recipe, trainer, saved)
    found = []
    for epoch, step in (divmod(step, each) for step in wanted):
        state = copy.deepcopy(epochs[epoch])
        if step:  # the first batches of an epoch, as an epoch of their own
            trainer.take(replace(job, order=job.epoch_order(epoch)[: step * size])).load(state)
            list(trainer.epochs(epoch, state.steps, 1))
            trainer.store(state)
            state.numbers[1] += step
        found.append(Stop(state, step))
    return [*found, Stop(end, 0)]


def _stacked(session: Session, jobs: Sequence[Job], wanted: Mapping[int, Sequence[int]]) -> dict[int, list[Stop]]:
    kind = session.kinds[jobs[0].index]
    stack = stacked.Stack(kind, session.recipe, stacked.width_of(kind))
    for job in jobs:
        stack.put(stacked.Slot(job, _begun(session, job), -1, 0, 0.0))
    found: dict[int, list[Stop]] = {job.index: [] for job in jobs}
    while stack.free < stack.width:
        for i, slot in enumerate(stack.places):
            if slot is not None and slot.state.steps + slot.step in wanted[slot.job.index]:
                state = copy.deepcopy(slot.state)
                stack.read(i, state)
                state.numbers[1] += slot.step
                found[slot.job.index].append(Stop(state, slot.step))
        for i, slot in stack.step():
            if stack.close(i, slot):
                found[slot.job.index].append(Stop(slot.state, 0))
    return found


def gradient(session: Session, job: Job, state: State, step: int) -> Floats:
    """The engine's gradient on batch ``step`` of the epoch that ``state`` is in. (total,), float32."""
    recipe, kind = session.recipe, session.kinds[job.index]
    if session.choices[kind.name].engine == "stacked":
        return stack_trial.gradient(kind, job, recipe, state, step)
    trainer = NativeTrainer(kind.chain, kind.layout, recipe, most=job.most).take(job)
    trainer.load(state)
    rows = job.epoch_order(state.epoch)[step * recipe.batch_size : (step + 1) * recipe.batch_size]
    return trainer.gradient(rows, state.epoch, step)[0]


def one_step(session: Session, job: Job, state: State, rows: npt.NDArray[np.int64]) -> State:
    """The engine's own state one optimizer step on ``rows`` later, which are taken as an epoch's first batch."""
    recipe, kind = session.recipe, session.kinds[job.index]
    job, after = replace(job, order=rows), copy.deepcopy(state)
    if session.choices[kind.name].engine == "stacked":
        stack = stacked.Stack(kind, recipe, stacked.width_of(kind))
        stack.put(stacked.Slot(job, after, -1, 0, 0.0))
        stack.step()
        stack.read(0, after)
    else:
        trainer = NativeTrainer(kind.chain, kind.layout, recipe, most=job.most).take(job)
        trainer.load(state)
        list(trainer.epochs(state.epoch, state.steps, 1))
        trainer.store(after)
    return after

"""Stacks tried on real models: how fast they are, whether bits stay a model's own, and what gradients they compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from hasten.core.errors import in_a_line
from hasten.fleet.loop import fresh
from hasten.fleet.modules import Factory
from hasten.fleet.recipe import Recipe
from hasten.fleet.stackable import CannotStack
from hasten.fleet.stacked import Slot, Stack, width_of
from hasten.fleet.state import State
from hasten.fleet.tasks import Job
from hasten.fleet.workers import Kind


def probe(kind: Kind, jobs: Sequence[Job], factory: Factory, recipe: Recipe, seconds: float) -> float:
    """Seconds that a step of one model takes in a stack.

    Raises:
        CannotStack: these models cannot be stacked, or not to the same bits whatever lies beside them.
    """
    if not recipe.plain:
        raise CannotStack("the loss or the optimizer is a callable")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        width = width_of(kind)
        some = list(jobs[:width])
        stack = filled(kind, some, factory, recipe, width)
        before = filled(kind, [some[-1], some[0]] if len(some) > 1 else some, factory, recipe, width)
        for _ in range(2):
            for _, ended in (*stack.step(), *before.step()):
                ended.step = 0  # the same epoch again, where it holds one batch
        rewind(stack)
        rewind(before)
        last = min(len(some), 2) - 1
        if not torch.equal(stack.flat[0, 0], before.flat[0, last]):
            raise CannotStack("a model's bits depend on what lies beside it, on this machine")
        rows_are_independent(stack)

        def step(_: int) -> None:
            rewind(stack)
            stack.step()

        return least(step, 3, seconds) / len(some)
    except CannotStack:
        raise
    except Exception as error:
        raise CannotStack(in_a_line(error)) from error
    finally:
        torch.set_num_threads(threads)


def least(call: Callable[[int], object], calls: int, seconds: float) -> float:
    """What a call takes: the least of ``calls`` or more, up to twenty while ``seconds`` have not passed.

    In seconds of this thread's own, in which everything tried here runs: on a busy machine calls that are long would
    look slower than short ones, between which others had their turns.
    """
    best, end, done = float("inf"), time.perf_counter() + seconds, 0
    while done < calls or (time.perf_counter() < end and done < 20):
        start = time.thread_time()
        call(done)
        best = min(best, time.thread_time() - start)
        done += 1
    return best


def filled(kind: Kind, jobs: Sequence[Job], factory: Factory, recipe: Recipe, width: int) -> Stack:
    stack = Stack(kind, recipe, width)
    for job in jobs:
        stack.put(Slot(job, fresh(factory(job), kind.layout, recipe), -1, 0, 0.0))
    return stack


def rewind(stack: Stack) -> None:
    for slot in stack.places:
        if slot is not None:
            slot.step = 0


def rows_are_independent(stack: Stack) -> None:
    """A short batch is padded: what stands in the padding must not reach the other rows.

    Raises:
        CannotStack: it does.
    """
    n = max(1, stack.recipe.batch_size // 2)
    with torch.no_grad():
        if stack.tape is not None:
            stack.tape.hold()
        counts = stack.rows.sum(1).int().tolist()
        stack.rows[:, n:] = 0
        before = stack.losses().clone()
        for X, count in zip(
            stack.X, counts, strict=True
        ):  # by another row that is there: its numbers may name something
            X[n:] = X[count - 1 if count < len(X) else 0] + (count == 1)
        after = stack.losses()
    if not torch.allclose(before, after, rtol=1e-5, atol=1e-7, equal_nan=True):
        raise CannotStack("rows of a batch depend on each other, so that a short last batch cannot be padded")


def gradient(kind: Kind, job: Job, recipe: Recipe, state: State, step: int = 0) -> npt.NDArray[np.float32]:
    """A model's gradient on one batch of its epoch, computed in a stack, and what its modules keep behind it.
    (total,)."""
    stack = Stack(kind, recipe, width_of(kind))
    slot = Slot(job, state, -1, 0, 0.0)
    stack.put(slot)
    stack.begin(0, slot)
    slot.step = step
    with torch.no_grad():
        stack.fill(0, slot)
    stack.backward()
    stack.collect(np.zeros(stack.width, np.int64))
    flat = np.zeros(kind.layout.total, np.float32)
    for e in kind.layout.entries:
        grad = stack.params[e.name].grad if e.trains else None
        if grad is not None:
            flat[e.start : e.start + e.size] = grad[0].numpy().reshape(-1)
    for e in stack.kept:
        flat[e.start : e.start + e.size] = stack.flat[0, 0, e.start : e.start + e.size].numpy()
    return flat

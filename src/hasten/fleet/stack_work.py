"""A worker of the stacked engine: keeps a stack full until no job is left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hasten.fleet.loop import fresh
from hasten.fleet.stacked import Slot, Stack, width_of
from hasten.fleet.workers import Asker, Run


def work(run: Run, asker: Asker) -> None:
    """A forked worker: keeps its stack full until no job is left."""
    while given := asker.more(1):
        kind = run.kinds[given[0][0]]
        jobs = sum(held.name == kind.name for held in run.kinds)
        share = -(-jobs // run.workers)  # no worker takes more than this at once, so that none stands idle
        stack = Stack(kind, run.recipe, width_of(kind))
        _admit(run, asker, stack, given)
        empty = False  # whether the queue is, for this kind
        while True:
            room = min(stack.free, share - (stack.width - stack.free))
            if room > 0 and not empty:
                more = asker.more(room, kind.name)
                empty = not more
                _admit(run, asker, stack, more)
            if stack.free == stack.width:
                break
            for i, slot in _stepped(run, asker, stack, share):
                if stack.close(i, slot):
                    _leave(run, asker, slot, min(stack.width, share))
                elif slot.keep >= 0:
                    stack.read(i, slot.state)
                    run.store.save(slot.keep, slot.job.index, slot.state)


def _stepped(run: Run, asker: Asker, stack: Stack, share: int) -> list[tuple[int, Slot]]:
    """One step of all models whose rows can be taken; those whose epoch has ended. The others fail."""
    while stack.free < stack.width:
        try:
            return stack.step()
        except Exception:
            refused = stack.refused()
            if not refused:
                raise
            for i, slot, why in refused:
                slot.state.fail(why)
                stack.leave(i, slot.state)
                _leave(run, asker, slot, min(stack.width, share))
    return []


def _admit(run: Run, asker: Asker, stack: Stack, given: Sequence[tuple[int, int]]) -> None:
    for index, keep in given:
        job = run.jobs[index]
        try:
            stack.check(job)
            state = run.start_of(job) or fresh(run.module(job), stack.kind.layout, run.recipe)
        except Exception as error:
            state = run.failed(job, error)
            run.store.finish(index, state)
            asker.done(index, 0, 0.0)
            continue
        stack.put(Slot(job, state, keep, state.steps, time.perf_counter()))


def _leave(run: Run, asker: Asker, slot: Slot, beside: int) -> None:
    slot.state.seconds = (time.perf_counter() - slot.begun) / beside  # its share of the stack's time
    run.store.finish(slot.job.index, slot.state)
    asker.done(slot.job.index, slot.before, slot.state.seconds)

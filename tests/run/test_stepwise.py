"""How many steps a trial leaves out after a switch, and what can be switched within one process."""

from __future__ import annotations

import hasten
from hasten.run.stepwise import settle_of, switchable


def test_steps_that_are_left_out_after_a_switch() -> None:
    threads, nhwc, zeroed, compiled = (
        hasten.Threads(1),
        hasten.ChannelsLast(),
        hasten.ZeroGradToNone(),
        hasten.Compile(),
    )
    assert settle_of([], 0.01) == settle_of([], 1.0) == 0
    assert settle_of([threads, nhwc], 0.01) == 1
    assert settle_of([threads, nhwc], 1.0) == 0  # a switch takes milliseconds
    assert settle_of([threads, zeroed], 1.0) == 1
    assert settle_of([hasten.Allocator()], 0.01) > settle_of([hasten.Allocator()], 1.0) == 1
    assert (
        settle_of([threads, compiled], 1.0) == compiled.settle
    )  # what compiles anew takes as many steps, however long


def test_threads_are_not_switched_under_compiled_code() -> None:
    threads, compiled = hasten.Threads(1), hasten.Compile()
    assert switchable([threads], [hasten.FusedOptimizer()])
    assert not switchable([threads], [compiled])  # which is made for a number of threads
    assert switchable([hasten.FusedOptimizer()], [compiled])
    assert not switchable([compiled], [])

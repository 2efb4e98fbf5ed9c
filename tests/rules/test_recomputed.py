"""Activations that are computed once more in backward are told where memory is free."""

from __future__ import annotations

import dataclasses

from hasten.core.facts import Place
from hasten.core.interval import Interval
from hasten.core.trace import Phase, Trace
from tests.rules.test_judgements import found, trace

BLOCK = Place("net.py", 15, "forward", "return x + self.layers(x)")


def checkpointed(name: str = "recompute", seconds: float = 0.02, free: float = 8e9, device: str = "cpu") -> Trace:
    """A step of 100 ms, 60 of them backward."""
    of = trace(0.1, backward=0.06)
    part = Phase(name, Interval(seconds, 0.9 * seconds, 1.1 * seconds, "s", 0.95, 100), BLOCK)
    phases = tuple(dataclasses.replace(p, children=(part,)) if p.name == "backward" else p for p in of.phases)
    process = dataclasses.replace(of.process, available_bytes=free, device=device)
    usage = dataclasses.replace(of.usage, resident_bytes=1e9)
    return dataclasses.replace(of, phases=phases, process=process, usage=usage)


def test_a_block_that_runs_again_in_backward_is_told() -> None:
    (finding,) = found("M312", checkpointed())
    assert finding.place == BLOCK and "20 ms of a step of 100 ms" in finding.message
    assert 1.05 < finding.predicted.low < 1.25 < finding.predicted.high < 2
    assert finding.notes == ("8.0 GB of memory are free, the process holds 1.0 GB",)


def test_where_memory_is_short_it_is_what_checkpoints_are_for() -> None:
    assert not found("M312", checkpointed(free=0.5e9))
    assert not found("M312", checkpointed(device="cuda"))


def test_other_code_that_runs_in_backward_is_left_alone() -> None:
    assert not found("M312", checkpointed(name="return grad * self.scale"))
    assert not found("M312", checkpointed(seconds=0.004))

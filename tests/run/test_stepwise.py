"""Steps left out after a switch, what one process can switch, and why there is no claim."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, cast

import pytest

import hasten
from hasten.measure.interleave import Pairs
from hasten.run import stepwise
from hasten.run.stepwise import settle_of, switchable
from hasten.seams import fork
from hasten.seams.child import WITH, WITHOUT


class Ends:
    """A child that sends so many pairs and is gone, as where the script has ended in it."""

    error = ""

    def __init__(self, pairs: int, over: bool = False) -> None:
        self.left, self.ended, self.over = pairs, False, over

    def is_over(self, _seconds: float) -> bool:
        return self.over and self.left <= 0

    def rows(self, _timeout: float) -> list[tuple[int, float, float, float, float]]:
        self.left -= 1
        self.ended = self.left < 0
        return [] if self.ended else [(kind, 0.01, 0.01, 0.0, 0.0) for kind in (WITHOUT, WITH)]

    def kill(self) -> None:
        self.ended = True


def test_a_child_that_ends_after_a_pair_is_no_noise() -> None:
    """A tutorial of 60 steps was over after one pair; "the noise is larger than the difference" was said of it."""
    for pairs, why in ((0, stepwise.TOO_EARLY), (1, stepwise.OVER), (272, "")):
        child = cast(fork.Child, cast(Any, Ends(pairs)))
        assert stepwise.listen(child, Pairs(), 100.0, 20.0) == why
    at_end = cast(fork.Child, cast(Any, Ends(3, over=True)))
    assert stepwise.listen(at_end, Pairs(), 100.0, 20.0) == stepwise.SHORT


def test_a_file_of_the_script_is_no_error_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "error").write_text("the script's own")
    monkeypatch.chdir(tmp_path)
    near, far = socket.socketpair()
    with near, far:
        assert fork.Child(0, near, 0.0).error == ""
        assert fork.Child(0, near, 0.0, str(tmp_path)).error == "the script's own"


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

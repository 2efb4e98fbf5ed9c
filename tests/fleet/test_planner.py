"""Engines are chosen by what they take, whatever else the machine does."""

from __future__ import annotations

import time

from hasten.fleet import stack_trial


def test_time_that_others_had_is_not_counted() -> None:
    """On a machine with other work the kernel, timed over an epoch, looked slower than the loop, timed over a step."""
    assert stack_trial.least(lambda _: time.sleep(0.05), 2, 0.0) < 0.025
    calls: list[int] = []
    stack_trial.least(calls.append, 3, 0.0)
    assert calls == [0, 1, 2]

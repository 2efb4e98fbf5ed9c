"""Signals reach the script once, also while others come."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from hasten.seams.launch import Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    handlers = Signals()
    handlers.early = []
    yield handlers
    handlers.close()


@pytest.mark.parametrize("second", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_come_while_one_is_passed_on_wait_for_it(
    signals: Signals, second: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``timeout`` sends SIGTERM to the command and then to its group: the second one's handler read what the first had
    been told to read, and the first waited for ever."""
    heard, tell = os.pipe()
    os.dup2(heard, signals.heard)
    os.set_blocking(signals.heard, False)  # so that waiting for ever is an error here
    os.write(tell, bytes(sorted({signal.SIGUSR1, second})))
    original = select.select
    came: list[int] = []

    def ready(*args: Any) -> Any:
        found = original(*args)
        if not came:
            came.append(second)
            signal.raise_signal(second)
        return found

    monkeypatch.setattr(select, "select", ready)
    signal.raise_signal(signal.SIGUSR1)
    assert came and set(signals.early) <= {second}
    os.close(heard)
    os.close(tell)

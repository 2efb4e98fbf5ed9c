"""An interrupt is heard within about an epoch, and loses nothing that a journal has kept."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten import fleet
from hasten.fleet.native import engine
from hasten.fleet.native.build import NoCompiler, kernel
from tests.fleet.common import mlp, ragged, weights
from tests.fleet.test_store import looks

try:
    kernel()
except NoCompiler:
    pytest.skip("no C++ compiler here", allow_module_level=True)

OPTIONS: dict[str, Any] = {"engine": "native", "workers": 2, "batch_size": 16}


def interrupted(moment: Callable[[], bool], **options: Any) -> float:
    """Seconds that ``fit`` went on after an interrupt at the first moment that is given."""
    met: list[float] = []

    def interrupt() -> None:
        while not moment():
            time.sleep(0.002)
        met.append(time.monotonic())
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        fleet.fit(mlp, ragged(3, 400), **OPTIONS, **options)
    return time.monotonic() - met[0]


def test_an_interrupt_does_not_wait_for_all_epochs() -> None:
    end = time.monotonic() + 2.5
    assert interrupted(lambda: time.monotonic() > end, epochs=2_000_000) < 5


def test_an_interrupt_leaves_a_journal_that_is_gone_on_from(tmp_path: Path) -> None:
    options = {"epochs": 2000, "stop": fleet.EarlyStop(patience=2000)}
    laid_out: set[int] = set()

    def has_begun() -> bool:
        laid_out.add(looks(tmp_path))
        return len(laid_out - {0}) > 2

    assert interrupted(has_begun, **options, journal=tmp_path) < 5
    again = fleet.fit(mlp, ragged(3, 400), **OPTIONS, **options, journal=tmp_path)
    assert not again.failed
    assert weights(again) == weights(fleet.fit(mlp, ragged(3, 400), **OPTIONS, **options))


@pytest.mark.parametrize("seconds", [0.0, 1e-3, 1e9])
def test_bits_do_not_depend_on_how_long_a_call_is(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(fleet.fit(mlp, ragged(3), epochs=9, **OPTIONS))
    monkeypatch.setattr(engine, "CALL", seconds)
    assert weights(fleet.fit(mlp, ragged(3), epochs=9, **OPTIONS)) == whole


def test_a_loss_that_becomes_infinite_ends_a_model_in_its_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {**ragged(1), "huge": (ragged(1)["s0"][0], ragged(1)["s0"][1] * np.float32(1e30))}
    causes = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(engine, "CALL", seconds)
        causes.append(fleet.fit(mlp, tasks, epochs=5, **OPTIONS).failed)
    assert causes[0] == causes[1] and "loss became" in causes[0]["huge"]

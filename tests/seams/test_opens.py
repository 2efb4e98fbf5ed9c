"""Files that are opened again and again are counted, with the line that opens them; nothing else is."""

from __future__ import annotations

import builtins
import io
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.measure.clock import INDEX
from hasten.seams.opens import Opens
from hasten.seams.watch import Watch

FETCH, CHECKPOINT = INDEX["fetch"], INDEX["checkpoint"]


@pytest.fixture
def opens() -> Iterator[Opens]:
    watch = Watch()
    watch.clock.enter(FETCH)
    counter = Opens(watch)
    counter.start()
    yield counter
    counter.stop()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, np.zeros((4, 3)))
    return path


def load(path: Path, times: int) -> None:
    for _ in range(times):
        np.load(path)


def counted(opens: Opens, steps: int = 1) -> dict[str, float]:
    opens.watch.steps += steps
    opens.stop()
    return {Path(e.kind).name: e.calls for e in opens.events()}


def test_opens_are_counted_per_step_at_the_users_line(opens: Opens, rows: Path) -> None:
    load(rows, 12)
    assert counted(opens, steps=4) == {"rows.npy": 3.0}
    place = opens.events()[0].place
    assert place.text.strip() == "np.load(path)"
    assert place.text[place.column - 1 : place.end_column - 1] == "np.load(path)"
    assert opens.events()[0].seconds > 0


def test_once_or_twice_a_pass_is_usual(opens: Opens, rows: Path) -> None:
    load(rows, 2)
    assert counted(opens) == {}


def test_every_pass_over_a_loader_may_open_a_file(opens: Opens, rows: Path) -> None:
    class Loader:
        pass

    load(rows, 7)
    loader = Loader()
    opens.watch.record_of(loader).starts = 3
    assert counted(opens) == {}


def test_different_files_are_different(opens: Opens, tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.txt").write_text("x")
        (tmp_path / f"{i}.txt").read_text()
    assert counted(opens) == {}


def test_writing_and_saving_and_other_threads_are_not_reading(opens: Opens, tmp_path: Path, rows: Path) -> None:
    for _ in range(9):
        with open(tmp_path / "log.txt", "a") as file:
            file.write("x")
    opens.watch.clock.enter(CHECKPOINT)
    load(rows, 9)
    opens.watch.clock.leave()
    thread = threading.Thread(target=load, args=(rows, 9))
    thread.start()
    thread.join()
    assert counted(opens) == {}


def test_afterwards_open_is_what_it_was() -> None:
    before = builtins.open, io.open
    counter = Opens(Watch())
    counter.start()
    assert builtins.open is not before[0]
    counter.stop()
    assert (builtins.open, io.open) == before


def test_a_failing_open_fails_as_always(opens: Opens, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        (tmp_path / "missing").open()


def test_h5py_files_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class File:
        def __init__(self, name: str, mode: str = "r", **_: Any) -> None:
            self.name = name

    module = types.ModuleType("h5py")
    module.File = File  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", module)
    counter = Opens(Watch())
    original = File.__init__
    counter.start()
    files = [File("data.h5") for _ in range(6)] + [File("out.h5", "w") for _ in range(6)]
    assert counted(counter) == {"data.h5": 6.0}
    assert files[0].name == "data.h5"
    assert File.__init__ is original

"""Files that many write at once are whole, and what killed processes left beside them is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hasten import fleet
from hasten.core.errors import HastenError, UsageError
from hasten.fleet import whole
from tests.fleet.common import mlp, ragged, rows, weights

HOLDS = """
import sys, time
from pathlib import Path
from hasten.fleet import whole
with whole.beside(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"0" * 1000)
    print(folder, flush=True)
    time.sleep(60)
"""

ALONE = """
import sys, time
from pathlib import Path
from hasten.fleet import whole
with whole.alone(Path(sys.argv[1])):
    print("at work", flush=True)
    time.sleep(60)
"""


def holder(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process in the midst of writing ``path``, and where it writes."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_fleets_saved_to_one_path_at_once_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    fleets = [fleet.fit(mlp, {f"k{i}": rows(20 + i, i)}, epochs=1, engine="loop", workers=1) for i in range(2)]
    failed: list[BaseException] = []

    def save(one: fleet.Fleet) -> None:
        try:
            for _ in range(30):
                one.save(path)
                assert len(fleet.Fleet.load(path, mlp)) == 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(one,)) for one in fleets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert weights(fleet.Fleet.load(path, mlp)) in [weights(one) for one in fleets]
    assert {p.name for p in tmp_path.iterdir()} == {"f.safetensors", "f.safetensors.parquet"}


def test_what_a_killed_process_left_is_removed_and_what_one_at_work_has_is_not(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    killed, left = holder(path)
    killed.kill()
    killed.wait()
    assert left.exists()
    working, kept = holder(path)  # its own writing begins with removing
    try:
        assert not left.exists() and kept.exists()
        fleet.fit(mlp, ragged(1), epochs=1, engine="loop", workers=1).save(path)
        assert (kept / "half").exists() and path.exists()
    finally:
        os.kill(working.pid, signal.SIGKILL)
        working.wait()
    whole.written(path, lambda to: to.write_text("x"))
    assert not kept.exists() and path.read_text() == "x"


def test_one_process_at_a_time_changes_a_file_and_a_killed_one_bars_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    process = subprocess.Popen([sys.executable, "-c", ALONE, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "at work\n"
    monkeypatch.setattr(whole, "PATIENCE", 0.0)
    try:
        with pytest.raises(UsageError, match=r"another process is at work on .*f\n"), whole.alone(path):
            pass
        whole.written(path, lambda to: to.write_text("new"))  # what stands there now is what is read from here on
        with whole.alone(path):
            assert path.read_text() == "new"
    finally:
        process.kill()
        process.wait()
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_who_waited_for_a_file_meets_the_one_that_took_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, met = tmp_path / "f", []
    path.write_text("old")
    monkeypatch.setattr(whole, "PATIENCE", 60.0)

    def second() -> None:
        with whole.alone(path):
            met.append(path.read_text())

    with whole.alone(path):
        thread = threading.Thread(target=second)
        thread.start()
        whole.written(path, lambda to: to.write_text("new"))
    thread.join()
    assert met == ["new"]
    with whole.alone(tmp_path / "none"):
        pass


def test_what_cannot_be_written_leaves_the_older_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o640)

    def half(to: Path) -> None:
        to.write_text("ne")
        raise OSError("No space left on device")

    with pytest.raises(HastenError, match="No space left"):
        whole.written(path, half)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f"]
    whole.written(path, lambda to: to.write_text("new"))
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640

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

ROOT = Path(__file__).parents[2]

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
                one._stood.clear()  # as if it was never saved: it may take the other one's place
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


UPDATES = """
import sys
from hasten import fleet
from hasten.core.errors import UsageError
from tests.fleet.common import mlp, rows
one = fleet.Fleet.load(sys.argv[1], mlp)
one.update({"k0": rows(8, int(sys.argv[2]))})
print("learned", flush=True)
sys.stdin.readline()
try:
    one.save(sys.argv[1])
    print("saved", one.summary().rows[0].rows, flush=True)
except UsageError as error:
    print("refused", error, sep="\\n", flush=True)
"""


def test_of_two_processes_that_update_one_file_at_once_the_second_loses_nothing_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    fleet.fit(mlp, {"k0": rows(40, 0)}, epochs=1, engine="loop", workers=1).save(path)
    both = [
        subprocess.Popen([sys.executable, "-c", UPDATES, str(path), str(seed)], text=True, cwd=ROOT,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE) for seed in (1, 2)
    ]  # fmt: skip
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "learned\n"
    first, second = (process.communicate("\n")[0] for process in both)
    kept = path.read_bytes()
    assert first.startswith("saved") and second.startswith("refused")
    assert "has changed since this fleet was loaded" in second and "try: fleet.save(another path)" in second
    assert path.read_bytes() == kept and {p.name for p in tmp_path.iterdir()} == {path.name, path.name + ".parquet"}


def test_a_fleet_is_saved_again_unless_another_one_was_meanwhile(tmp_path: Path) -> None:
    path, other = tmp_path / "f.safetensors", tmp_path / "g.safetensors"
    mine = fleet.fit(mlp, {"k0": rows(40, 0)}, epochs=1, engine="loop", workers=1)
    mine.save(path)
    mine.update({"k0": rows(8, 1)})
    mine.save(path)  # over its own file
    theirs = fleet.Fleet.load(path, mlp)
    theirs.save(path)
    theirs.save(path)
    learned = path.read_bytes()
    with pytest.raises(UsageError, match="has changed since"):
        mine.save(path)
    assert path.read_bytes() == learned
    mine.save(other)  # the ways out
    path.unlink()
    mine.save(path)
    with whole.alone(path):  # as the command holds it
        mine.save(path)


def test_a_fleet_is_not_saved_where_a_command_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.safetensors"
    mine = fleet.fit(mlp, {"k0": rows(40, 0)}, epochs=1, engine="loop", workers=1)
    mine.save(path)
    process = subprocess.Popen([sys.executable, "-c", ALONE, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "at work\n"
    monkeypatch.setattr(whole, "PATIENCE", 0.0)
    try:
        with pytest.raises(UsageError, match=r"another process is at work on"):
            mine.save(path)
    finally:
        process.kill()
        process.wait()
    mine.save(path)


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

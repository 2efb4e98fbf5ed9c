"""Scripts that do what hasten does not expect: they behave as without it, and its trials still run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hasten.run.inside import UNFINISHED
from tests.scripts.lab import EVERY_WAY, Lab, Ran, assert_tried, assert_untouched, processes, sessions

pytestmark = pytest.mark.slow  # minutes together; `make check-all` runs them

ALL = ("plain", "explain", "run")
SHORT = ("plain", "run")
LONG = {"remedies": ["step"], "seconds": 60}  # one trial that is still going on when the signal comes


def compare(lab: Lab, ways: tuple[str, ...] = ALL) -> Ran:
    """The run under ``hasten run``, after all have been compared with the plain one."""
    plain, *others = lab.all(ways)
    for other in others:
        assert_untouched(plain, other)
    assert not sessions(lab)
    assert not processes(lab)
    return others[-1]


def case(words: str, *, slow: bool = False, tried: bool = True, ways: tuple[str, ...] = SHORT, **options: Any) -> Any:
    return pytest.param(words.split(), tried, ways, options, id=words, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    ("words", "tried", "ways", "options"),
    [
        case("odd_process.py", ways=ALL, stdin="".join(f"line {i}\n" for i in range(12))),
        case("odd_data.py", ways=ALL),
        case("trains.py clipped"),
        case("trains.py adversarial", slow=True),
        case("trains.py by_hand", slow=True),
        case("trains.py closures"),
        case("trains.py one_by_one", ways=ALL),
        case("ends.py _exit 100", ways=ALL),
        case("ends.py exit 100", slow=True),
        case("ends.py words 100", slow=True),
        case("ends.py abort 100", slow=True),
        case("ends.py chained 100"),
        case("ends.py item 100"),
        case("ends.py item 3", slow=True, tried=False),
        case("ends.py collate 100", slow=True),
        case("ends.py collate 3", slow=True, tried=False),
        case("ends.py hook 100", slow=True),
        case("ends.py hook 3", slow=True, tried=False),
        case("ends.py closure 100", slow=True),
        case("ends.py closure 3", tried=False, ways=ALL),
        case("ends.py interrupt 100", slow=True),
        case("workers.py fork new 14"),
        case("workers.py fork persistent 14", ways=ALL, slow=True),
        case("workers.py spawn persistent 10", slow=True),
        case("beside.py programs", slow=True),
        case("beside.py forks"),
        case("beside.py pool", slow=True, tried=False),
        case("beside.py thread_beside", slow=True, tried=False),
        case("beside.py in_a_thread", slow=True, tried=False, ways=ALL),
        case("compiles.py", slow=True, ways=ALL),
    ],
)
def test_behaves_as_without(lab: Any, words: list[str], tried: bool, ways: tuple[str, ...], options: Any) -> None:
    ran = compare(lab(words[0], args=tuple(words[1:]), **options), ways)
    if tried:
        assert_tried(ran)


@pytest.mark.parametrize("kind", ["endless", pytest.param("deadlock", marks=pytest.mark.slow)])
def test_a_child_that_never_comes_back_is_given_up(lab: Any, kind: str) -> None:
    ran = compare(lab("beside.py", args=(kind,), budget=2.0), SHORT)
    trials = (ran.document or {})["run"]["trials"]
    assert next(t["why"] for t in trials) == "its part of the budget was over", ran.why


OWN_SITE = """
import sys
if sys.orig_argv[1] == "train.py":  # not in the command line's own process
    print("own site", [p for p in sys.path if p.endswith("boot/site")])
    import {imported}
"""


@pytest.mark.parametrize("imported", ["json", "no_such_module"])
def test_own_sitecustomize_runs_as_by_python(lab: Any, tmp_path: Path, imported: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(OWN_SITE.format(imported=imported))
    ways = ("plain", "explain") if imported == "json" else SHORT
    compare(lab("ends.py", args=("exit", "4"), hooks=None, path=(str(site),)), ways)


# -- signals -----------------------------------------------------------------------------------------------------


def stopped(lab: Lab, way: str, words: str, number: int, group: bool = True) -> Ran:
    """Run until ``words`` are said, then send a signal to the process group, or to the first process only."""
    process = lab.start(way)
    lab.await_words(way, words) if way != "plain" else await_file(lab, way)
    (os.killpg if group else os.kill)(process.pid, number)
    return lab.finish(way, process)


def await_file(lab: Lab, way: str) -> None:
    path = lab.home(way) / "pid"
    while not path.exists():
        time.sleep(0.02)
    time.sleep(0.3)


@pytest.mark.parametrize(
    ("number", "handler", "group"),
    [
        (signal.SIGINT, "", True),
        (signal.SIGINT, "handler", True),
        pytest.param(signal.SIGINT, "handler", False, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "", True, marks=pytest.mark.slow),
        (signal.SIGTERM, "handler", False),
        pytest.param(signal.SIGTERM, "handler", True, marks=pytest.mark.slow),
    ],
)
def test_signals_in_the_middle_of_a_trial(lab: Any, number: int, handler: str, group: bool) -> None:
    laboratory = lab(
        "signalled.py", args=(handler,) if handler else (), budget=60.0, hooks={"remedies": ["step"], "seconds": 60}
    )
    plain = stopped(laboratory, "plain", "", number)
    ran = stopped(laboratory, "run", "trial 1", number, group)
    assert ran.code == plain.code == (5 if handler else -number)
    assert ran.out == plain.out
    assert ran.err.splitlines()[-1:] == plain.err.splitlines()[-1:]  # where it was interrupted is chance
    assert "hasten" not in ran.err
    assert {k: v for k, v in ran.tree.items() if k != "pid"} == {k: v for k, v in plain.tree.items() if k != "pid"}
    if number == signal.SIGINT:  # SIGTERM that the script does not handle ends it at once
        assert (ran.document or {})["run"]["message"] == UNFINISHED
    assert not sessions(laboratory)
    assert not processes(laboratory)


def test_a_handled_signal_ends_the_trial_and_the_training_goes_on(lab: Any) -> None:
    laboratory = lab("signalled.py", args=("note",), budget=60.0, hooks=LONG)
    plain = stopped(laboratory, "plain", "", signal.SIGUSR1, group=False)
    ran = stopped(laboratory, "run", "trial 1", signal.SIGUSR1, group=False)
    assert_untouched(without_pid(plain), without_pid(ran))
    assert "noted ['SIGUSR1']" in ran.out


def without_pid(ran: Ran) -> Ran:
    return Ran(ran.code, ran.out, ran.err, ran.said, {k: v for k, v in ran.tree.items() if k != "pid"}, ran.document)


@pytest.mark.parametrize("whom", ["command line", "script"])
def test_nothing_is_left_after_a_kill(lab: Any, whom: str) -> None:
    laboratory = lab("beside.py", args=("endless",), budget=60.0, hooks={"remedies": ["child"], "seconds": 60})
    process = laboratory.start("run")
    laboratory.await_words("run", "trial 1")
    time.sleep(0.5)
    assert len(processes(laboratory)) >= 3
    os.kill(process.pid if whom == "command line" else script_of(process.pid), signal.SIGKILL)
    ran = laboratory.finish("run", process)
    assert ran.code == -signal.SIGKILL
    end = time.monotonic() + 10
    while processes(laboratory) and time.monotonic() < end:
        time.sleep(0.05)
    assert not processes(laboratory)
    if whom == "script":  # the command line was there to clean up; else the next start does
        assert not sessions(laboratory)


def script_of(command_line: int) -> int:
    """The child of the command line that runs the script."""
    with open(f"/proc/{command_line}/task/{command_line}/children") as file:
        for pid in file.read().split():
            with open(f"/proc/{pid}/cmdline") as words:
                if words.read().split("\0")[1] == "train.py":
                    return int(pid)
    raise AssertionError("the script is not there")


# -- full disks --------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_switches_the_cache_off_and_nothing_else(lab: Any) -> None:
    hooks = {"remedies": ["cache"], "patches": ["disk_fills"]}
    ran = compare(lab("caches.py", hooks=hooks), SHORT)
    assert_tried(ran)
    assert "hasten: the disk is full\n" in ran.said


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_cache_on_a_tiny_disk_is_not_made(lab: Any, tiny_disk: Path) -> None:
    hooks = {"remedies": ["cache"], "patches": ["kept_in_files"]}
    laboratory = lab("caches.py", hooks=hooks, env={"HASTEN_CACHE_DIR": str(tiny_disk)})
    ran = compare(laboratory, SHORT)
    assert_tried(ran)


# -- broken promises ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["one_bit", "draws", "stale", "percent"])
def test_broken_promises_are_caught(lab: Any, wrong: str) -> None:
    """Every time, and the script's own weights are as without."""
    hooks = {"remedies": [wrong, *EVERY_WAY[:1]]}
    laboratory = lab("ends.py", args=("never", "0"), hooks=hooks, budget=20.0, allow="equivalent")
    ran = compare(laboratory, SHORT)
    first, second = ran.document["run"]["trials"]  # type: ignore[index]
    assert first["verdict"] == "broken promise", ran.why
    assert second["verdict"] == "kept", ran.why

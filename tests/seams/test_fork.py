"""Children seen from their parent: where their threads start a turn, and where they may go from there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasten.seams.fork import ERROR, Child, _by_work, _note_error
from hasten.seams.isolate import Stray

BUSY = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def work():
    while True: pass
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
print(threading.get_native_id(), *[t.native_id for t in threading.enumerate()], flush=True)
time.sleep(60)
"""


@pytest.fixture
def busy() -> Iterator[tuple[int, list[int]]]:
    """A process and its threads: main, one that sleeps, one that works."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    threads = [int(word) for word in process.stdout.readline().split()][1:]
    yield process.pid, threads
    process.kill()
    process.communicate()


def test_the_main_thread_comes_first_then_who_works_most(busy: tuple[int, list[int]]) -> None:
    pid, (main, sleeps, works) = busy
    assert _by_work(pid) == [main, works, sleeps] and main == pid
    assert _by_work(2**22 + 1) == [2**22 + 1]  # no such process


def test_a_turn_leaves_no_thread_bound(busy: tuple[int, list[int]]) -> None:
    pid, threads = busy
    mine = sorted(os.sched_getaffinity(0))
    near, far = socket.socketpair()
    child = Child(pid, near, time.monotonic())
    before = {thread: os.sched_getaffinity(thread) for thread in threads}
    placed = child._place(mine)
    assert {t: os.sched_getaffinity(t) for t in threads} == {
        t: {mine[i % len(mine)]} for i, t in enumerate((threads[0], threads[2], threads[1]))
    }
    assert placed == before
    for thread, cores in before.items():
        os.sched_setaffinity(thread, cores)
    child.turn(mine)
    assert {thread: os.sched_getaffinity(thread) for thread in threads} == before
    assert far.recv(1) == b"t"


def test_a_fork_is_a_fork() -> None:
    """Also where it is not Python's own: its hooks run on both sides."""
    code = """
import os, threading, warnings
warnings.simplefilter("error")
threading.Thread(target=threading.Event().wait, daemon=True).start()
from hasten.seams.silent import silent_fork
ran = []
os.register_at_fork(before=lambda: ran.append("before"), after_in_child=lambda: ran.append("child"),
                    after_in_parent=lambda: ran.append("parent"))
pid = silent_fork()
if not pid:
    os._exit(7 if ran == ["before", "child"] and threading.active_count() == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *ran)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("7 before parent\n", "")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Stray(), "it was about to start a program or to open a connection"),  # workers that are spawned, say
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError(), "KeyError"),
    ],
)
def test_what_ended_a_child_is_told_in_words(tmp_path: Path, error: BaseException, told: str) -> None:
    _note_error(str(tmp_path), type(error), error)
    assert (tmp_path / ERROR).read_text(encoding="utf-8") == told

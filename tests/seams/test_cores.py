"""Children seen from their parent: where their threads start a turn, and where they may go from there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from hasten.seams.cores import by_work, placed
from hasten.seams.fork import Child

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
    assert by_work(pid) == [main, works, sleeps] and main == pid
    assert by_work(2**22 + 1) == [2**22 + 1]  # no such process


def test_a_turn_leaves_no_thread_bound(busy: tuple[int, list[int]]) -> None:
    pid, threads = busy
    mine = sorted(os.sched_getaffinity(0))
    near, far = socket.socketpair()
    child = Child(pid, near, time.monotonic())
    before = {thread: os.sched_getaffinity(thread) for thread in threads}
    moved = placed(by_work(pid), mine)
    assert {t: os.sched_getaffinity(t) for t in threads} == {
        t: {mine[i % len(mine)]} for i, t in enumerate((threads[0], threads[2], threads[1]))
    }
    assert moved == before
    for thread, cores in before.items():
        os.sched_setaffinity(thread, cores)
    child.turn(mine)
    assert {thread: os.sched_getaffinity(thread) for thread in threads} == before
    assert far.recv(1) == b"t"

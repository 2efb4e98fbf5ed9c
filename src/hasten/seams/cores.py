"""Where the threads of another process run."""

from __future__ import annotations

import os
from collections.abc import Sequence


def placed(threads: Sequence[int], cores: Sequence[int]) -> dict[int, set[int]]:
    """Put the first thread on the first core, the second on the second, and so on round.

    Returns:
        what each thread was allowed before; those that may not be moved are left out.
    """
    before = {}
    for number, thread in enumerate(threads):
        try:
            allowed = os.sched_getaffinity(thread)
        except OSError:  # it has ended
            continue
        if set_cores(thread, {cores[number % len(cores)]}):
            before[thread] = allowed
    return before


def by_work(pid: int) -> list[int]:
    """The threads of a process: the main thread, then the others by the CPU time they have used, most first."""
    used = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{name}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            used[int(name)] = int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    except (OSError, ValueError, IndexError):
        return [pid]
    return [pid, *sorted(used.keys() - {pid}, key=lambda thread: -used[thread])]


def set_cores(thread: int, cores: set[int]) -> bool:
    """Allow a thread these cores only; False where it has ended or may not be moved."""
    try:
        os.sched_setaffinity(thread, cores)
    except OSError:
        return False
    return True

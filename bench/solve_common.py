"""What the benches of ``hasten.solve`` share: fixed threads, taking turns, plain references."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

THREADS = 1


def fix_threads(count: int = THREADS) -> None:
    """Fix the threads of every library; call it before numpy is imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(count)


def in_turns(arms: dict[str, Callable[[], Any]], rounds: dict[str, int]) -> dict[str, list[float]]:
    """Seconds of every arm, round by round in turns; arms that take long have fewer rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for k in range(max(rounds.values())):
        for name, action in arms.items():
            if k < rounds[name]:
                start = time.perf_counter()
                action()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median(seconds: Sequence[float]) -> float:
    """Median of a list of seconds."""
    return statistics.median(seconds)


def limits(seconds: Sequence[float]) -> tuple[float, float]:
    """Least and largest: with few rounds an interval of level 95 % would be wider than that."""
    return min(seconds), max(seconds)


def ratio_line(name: str, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """One line of a table: a peer's time over ours, medians, with the least and largest round's ratio."""
    low, high = min(theirs) / max(ours), max(theirs) / min(ours)
    return f"{name:<34}{median(theirs):>10.3f} s {median(theirs) / median(ours):>9.1f}×  ({low:.1f}–{high:.1f})"

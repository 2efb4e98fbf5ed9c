"""What every bench shares: the head of its output, intervals, a busy core, and a dated file for what it found."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hasten.core.codec import encode
from hasten.core.interval import Interval, student_t
from hasten.core.plan import write_atomically
from hasten.measure import machine
from hasten.measure.interleave import hodges_lehmann

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


def say(text: str = "") -> None:
    """One line of the bench's own output, at once."""
    print(text, flush=True)


def where() -> dict[str, Any]:
    """Machine, versions, and how busy the machine is now."""
    return {
        "machine": machine.machine(),
        "versions": machine.versions(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def head(title: str) -> None:
    """Title, machine, versions and load."""
    say(title)
    say(f"{machine.describe()}, load {os.getloadavg()[0]:.1f}")
    say()


def save(name: str, summary: str, figures: dict[str, Any], raw: Any, folder: Path = RESULTS) -> Path:
    """Write a dated result; a second one of the same day and processor replaces the first.

    Args:
        summary: one line for the README's table of claims.
        figures: what the summary is made from; intervals with their unit and level.
        raw: every single measurement.
    """
    stem = f"{datetime.date.today().isoformat()}-{name}"
    ends = itertools.chain([""], (f".{n}" for n in itertools.count(2)))
    paths = (folder / f"{stem}{end}.json" for end in ends)
    path = next(p for p in paths if not p.exists() or _processor(p) == machine.cpu_model())
    content = {
        "bench": name,
        "summary": summary,
        "command": _command(),
        **where(),
        "figures": encode(figures),
        "raw": encode(raw),
    }
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    say(f"\nwritten to {os.path.relpath(path)}")
    return path


def _processor(path: Path) -> str:
    """Where a result was measured."""
    return str(json.loads(path.read_text(encoding="utf-8"))["machine"]["cpu"])


def _command() -> str:
    """How the bench was called, without the folders of this machine."""
    words = [Path(word).name if os.sep in word else word for word in sys.argv]
    if "--results" in words:
        at = words.index("--results")
        del words[at : at + 2]
    return " ".join(words)


# -- intervals ---------------------------------------------------------------------------------------------------------


def centre(values: Sequence[float], unit: str, level: float = 0.95) -> Interval:
    """Hodges-Lehmann estimate of paired differences, with the interval of the signed-rank test.

    Where there are too few for the level (five or fewer at 95 %), Student's interval of their mean.
    """
    middle, low, high = hodges_lehmann(list(values), level)
    if math.isinf(low):
        return of_mean(values, unit, level)
    return Interval(middle, low, high, unit, level, len(values))


def of_mean(values: Sequence[float], unit: str, level: float = 0.95) -> Interval:
    """Mean with Student's interval; infinite for a single value."""
    mean = statistics.fmean(values)
    n = len(values)
    half = student_t(n - 1, level) * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.inf
    return Interval(mean, mean - half, mean + half, unit, level, n)


def ratio(logs: Sequence[float], level: float = 0.95) -> Interval:
    """A ratio from paired log-ratios."""
    found = centre(logs, "1", level)
    return Interval(_exp(found.value), _exp(found.low), _exp(found.high), "ratio", level, found.n)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def span(interval: Interval, digits: int = 2) -> str:
    """``low–high``; a dash where a single measurement says nothing about its spread."""
    return f"{interval.low:.{digits}f}–{interval.high:.{digits}f}" if math.isfinite(interval.high) else "–"


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper & Pearson 1934), by bisection of the binomial's tails."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else _bisect(lambda p: 1 - _at_most(hits - 1, n, p) < tail)
    high = 1.0 if hits == n else _bisect(lambda p: _at_most(hits, n, p) > tail)
    return Interval(hits / n, low, high, "1", level, n)


def _at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p)."""
    if p <= 0 or p >= 1:
        return 1.0 if p <= 0 or k >= n else 0.0
    logs = (math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1))
    return math.fsum(math.exp(c + i * math.log(p) + (n - i) * math.log1p(-p)) for i, c in enumerate(logs))


def _bisect(below: Callable[[float], bool]) -> float:
    """The p in (0, 1) where ``below`` turns from true to false."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


# -- a noisy machine ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def busy_core(on: bool = True) -> Iterator[None]:
    """Another process keeps one core busy."""
    if not on:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def child_environment(**extra: str) -> dict[str, str]:
    """This environment, with the checkout's sources importable and output unbuffered."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}

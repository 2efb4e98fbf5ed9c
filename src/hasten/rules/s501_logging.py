"""Logging takes a measurable part of every step.

Why it is slow
    Histograms of all weights, figures, JSON lines and progress bars are made by the training thread while nothing
    trains, and nobody looks at a number for each step.

Remedy
    None from outside: what is recorded is the experiment's business. By hand: log every N steps, keep scalars as
    detached tensors and write them together, give progress bars a ``mininterval``.

Fidelity
    identical: reading a weight does not change it.

When it does not help
    Where the log of each step is what the run is for.

References
    https://docs.pytorch.org/docs/stable/tensorboard.html
    https://tqdm.github.io/docs/tqdm/
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.finding import Finding, Rule
from hasten.core.trace import Hot, Place, Trace
from hasten.seams.source import logs

LEAST_SHARE = 0.03  # of the step
SAVED = (0.8, 1.0)  # logging every 10th step saves 0.9 of it, every 100th nearly all; measured 3.1x with histograms
_KINDS = ("log", "progress bar")
_CALLEES = frozenset({"histogram", "dump", "dumps", "savefig", "writerow", "print", "print_exc"})


def detect(trace: Trace) -> Iterator[Finding]:
    lines = _lines(trace)
    seconds = sum(lines.values())
    own = trace.phase("log") - sum(s for (phase, _), s in lines.items() if phase == "log")
    cost = seconds + max(0.0, own)
    if not cost >= LEAST_SHARE * trace.step_seconds:
        return
    dearest = max(lines, key=lambda x: lines[x], default=None)
    place = dearest[1] if dearest is not None and lines[dearest] >= own else trace.place("log")
    yield RULE.finding(
        f"logging takes {1000 * cost:.1f} ms of a step of {1000 * trace.step_seconds:.1f} ms",
        place,
        (trace.amdahl(SAVED[0] * cost), trace.amdahl(SAVED[1] * cost)),
        label="logs in every step",
        advice="log every 50 steps (if step % 50 == 0), and write what has gathered in one go",
        notes=tuple(f"{p}  {1000 * s:.1f} ms" for (_, p), s in sorted(lines.items(), key=lambda x: -x[1])[1:4]),
    )


def _lines(trace: Trace) -> dict[tuple[str, Place], float]:
    """Seconds per step of the lines that log, by phase and place."""
    known = {
        (child.place.file, child.place.line)
        for phase in trace.phases
        for child in phase.children
        if child.name in _KINDS and child.place is not None
    }
    found: dict[tuple[str, Place], float] = {}
    for hot in trace.hot:
        if hot.phase in ("python", "log", "wait") and _logs(hot, known):
            key = (hot.phase, hot.place)
            found[key] = found.get(key, 0.0) + hot.seconds
    return found


def _logs(hot: Hot, known: set[tuple[str, int]]) -> bool:
    return (
        hot.phase == "log"
        or (hot.place.file, hot.place.line) in known
        or hot.callee in _CALLEES
        or logs(hot.place.text)
    )


RULE = Rule("S501", "logging", detect, __doc__)

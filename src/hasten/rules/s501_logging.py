"""Logging takes a measurable part of every step.

Why it is slow
    Histograms of all weights, figures, JSON lines and progress bars are made by the training thread while nothing
    trains, and nobody looks at a number for each step. ``plt.pause`` draws and then waits, as long as it says.

Remedy
    None from outside: what is recorded is the experiment's business. By hand: log and plot every N steps, keep scalars
    as detached tensors and write them together, give progress bars a ``mininterval``.

Fidelity
    identical: reading a weight does not change it.

When it does not help
    Where the log of each step is what the run is for.

References
    https://docs.pytorch.org/docs/stable/tensorboard.html
    https://tqdm.github.io/docs/tqdm/
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from hasten.core.facts import Hot, Place
from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace
from hasten.seams.source import in_every_round, logs

LEAST_SHARE = 0.03  # of the step
MOSTLY = 0.5  # of a line's time, from which on it is there to log
SAVED = (0.8, 1.0)  # logging every 10th step saves 0.9 of it, every 100th nearly all; measured 3.1x with histograms
ALWAYS = 1.5  # steps from one call to the next, up to which a line logs in every step, …
RARELY = 10.0  # … and above which it does so rarely
LEAST_NOTED = 5e-5  # seconds a step of another line that is told, too
_EVERY_50 = "log every 50 steps (if step % 50 == 0), and write what has gathered in one go"
_MORE_RARELY = "log less at a time or more rarely, and write what has gathered in one go"
_PLOT = "plot"  # what is done in matplotlib
_KINDS = ("log", "progress bar", _PLOT)
_DRAW_MORE_RARELY = "draw more rarely, or once at the end; plt.pause waits as long as it says, on top of drawing"
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
    every = _every(trace, place, watched=dearest is None or dearest[0] == "log" or lines[dearest] < own)
    plots = _plots(trace, place)
    advice = _DRAW_MORE_RARELY if plots else _EVERY_50 if every <= RARELY else _MORE_RARELY
    yield RULE.finding(
        f"{'plotting' if plots else 'logging'} takes {ms(cost)} of a step of {ms(trace.step_seconds)}",
        place,
        (trace.amdahl(SAVED[0] * cost), trace.amdahl(SAVED[1] * cost)),
        label=f"{'draws' if plots else 'logs'} {_how_often(every)}",
        advice=advice,
        notes=tuple(f"{p}  {ms(s)}" for (_, p), s in _others(lines, dearest) if s >= LEAST_NOTED),
    )


def _how_often(every: float) -> str:
    if math.isnan(every):
        return "here"
    if every > RARELY:
        return f"every {every:.0f} steps" if math.isfinite(every) else "now and then"
    return "in every step" if every <= ALWAYS else "often"


def _every(trace: Trace, place: Place | None, watched: bool) -> float:
    """Steps from one call of a line that logs to the next; infinite where none was seen in the window. Of a line whose
    calls are not watched, 1 where it stands in the loop that trains and under no condition, else NaN."""
    calls = max((e.calls for e in trace.events if place is not None and _line(e.place) == _line(place)), default=0.0)
    if calls > 0:
        return 1 / calls
    if watched:
        return math.inf if trace.events else 1.0
    return 1.0 if place is not None and in_every_round(place.file, place.line) else math.nan


def _plots(trace: Trace, place: Place | None) -> bool:
    """Whether what a line does is mostly done in matplotlib."""
    if place is None:
        return False
    parts = [c for p in trace.phases for c in p.children if c.place is not None and _line(c.place) == _line(place)]
    drawn = sum(c.seconds.value for c in parts if c.name == _PLOT)
    return drawn > MOSTLY * sum(c.seconds.value for c in parts)


def _others(
    lines: dict[tuple[str, Place], float], dearest: tuple[str, Place] | None
) -> list[tuple[tuple[str, Place], float]]:
    """The dearest lines beside that which is told of."""
    told = dearest[1] if dearest is not None else None
    rest = [x for x in lines.items() if told is None or _line(x[0][1]) != _line(told)]
    return sorted(rest, key=lambda x: -x[1])[:3]


def _line(place: Place) -> tuple[str, int]:
    return place.file, place.line


def _lines(trace: Trace) -> dict[tuple[str, Place], float]:
    """Seconds per step of the lines that log, by phase and place. Of a line that does more (a framework's ``fit``) what
    logging libraries take. Where a line of print waits for a device, that is no time of logging: the device works then,
    whoever waits for it (S502)."""
    inside = {
        (phase.name, child.place.file, child.place.line): child.seconds.value
        for phase in trace.phases
        for child in phase.children
        if child.name in _KINDS and child.place is not None
    }
    phases = ("python", "log", "wait") if trace.process.device == "cpu" else ("python", "log")
    seen = [hot for hot in trace.hot if hot.phase in phases]
    logged = [h.seconds if _logs(h) else inside.get((h.phase, h.place.file, h.place.line), 0.0) for h in seen]
    found: dict[tuple[str, Place], float] = {}
    for hot, part in zip(seen, logged, strict=True):
        same = [i for i, x in enumerate(seen) if (x.place.file, x.place.line) == (hot.place.file, hot.place.line)]
        whole = sum(logged[i] for i in same) >= MOSTLY * sum(seen[i].seconds for i in same)
        seconds = hot.seconds if whole else min(part, hot.seconds)
        if seconds > 0:
            found[hot.phase, hot.place] = found.get((hot.phase, hot.place), 0.0) + seconds
    return found


def _logs(hot: Hot) -> bool:
    return hot.phase == "log" or hot.callee in _CALLEES or logs(hot.place.text)


RULE = Rule("S501", "logging", detect, __doc__)

"""The host waits for the device to hand it a number.

Why it is slow
    ``.item()``, ``.cpu()``, ``if tensor:`` and ``print(tensor)`` stop the host until all queued work is done. The
    device then has nothing queued, and stands still until the host has caught up.

Remedy
    None from outside: the script uses the number. By hand: add up detached tensors on the device and read them every
    N steps; compare on the device (``torch.where``) instead of branching on the host.

Fidelity
    identical: the same numbers are read, later.

When it does not help
    On a CPU nothing is queued and reading a number costs about a microsecond (measured 1.01x): there, only a measured
    share of the step is reported. On a GPU that is busy all the time, waiting is not the trouble either.

References
    https://docs.pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution
    https://docs.pytorch.org/docs/stable/generated/torch.cuda.set_sync_debug_mode.html
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace
from hasten.seams.source import logs

LEAST_SHARE = 0.03  # of the step spent waiting, and of the step in which the device stands still
LEAST_SHARE_ON_CPU = 0.05  # of the step spent reading; a busy machine alone makes a few reads look like 3 %
LEAST_NOTED = 5e-5  # seconds a step of another line that is told, too
SAVED_ON_CPU = (0.5, 1.0)  # part of the reads' own time


def detect(trace: Trace) -> Iterator[Finding]:
    wait, step = trace.phase("wait"), trace.step_seconds
    least = LEAST_SHARE_ON_CPU if trace.process.device == "cpu" else LEAST_SHARE
    low, high = saved(trace, wait)
    if not wait >= least * step or not high >= least * step:
        return
    reads = [e for e in trace.events if e.kind == "wait"]
    if trace.process.device == "cpu":
        logged = math.fsum(e.seconds for e in reads if logs(e.place.text))  # told by S501
        reads = [e for e in reads if not logs(e.place.text)]
        wait = max(0.0, wait - logged)
        low, high = saved(trace, wait)
        if not wait >= least * step:
            return
    place = max(reads, key=lambda e: e.seconds).place if reads else trace.place("wait")
    count = f"{sum(e.calls for e in reads):.0f} reads a step" if reads else "reads"
    waits = trace.process.device != "cpu"
    yield RULE.finding(
        f"{count} of tensor values {'keep the host waiting for' if waits else 'take'} {ms(wait)} of {ms(step)}",
        place,
        (trace.amdahl(low), trace.amdahl(high)),
        label="waits for the value" if waits else "reads the values",
        advice=f"keep it as a detached tensor, add up{' on the device' if waits else ''}, and read it every 50 steps",
        notes=tuple(
            f"{e.place}  {ms(e.seconds)}"
            for e in sorted(reads, key=lambda e: -e.seconds)[1:4]
            if e.seconds >= LEAST_NOTED
        ),
    )


def saved(trace: Trace, wait: float) -> tuple[float, float]:
    """Least and most seconds per step that waiting costs. The device's own work stays, whoever waits for it."""
    if trace.process.device == "cpu":
        return SAVED_ON_CPU[0] * wait, SAVED_ON_CPU[1] * wait
    busy = math.fsum(p.seconds.value for p in trace.device_phases if p.seconds.known)
    if not busy:
        return 0.0, wait
    return 0.0, min(wait, max(0.0, trace.step_seconds - busy))


RULE = Rule("S502", "host-wait", detect, __doc__)

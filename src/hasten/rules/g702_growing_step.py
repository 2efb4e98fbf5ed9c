"""Steps take longer the longer the training runs.

Why it is slow
    Something works on all that has gathered so far: a metric over the whole history, ``list.pop(0)`` on a growing
    buffer, hooks or parameter groups added in the loop. The loss of time grows with the square of the steps.

Remedy
    None from outside: the line has to be written so that a step costs the same at any time. By hand: running sums
    instead of lists, ``collections.deque`` or a ring buffer instead of ``pop(0)``, set-up out of the loop.

Fidelity
    equivalent: a running sum rounds differently from a sum over the history.

When it does not help
    Runs that end before the growth matters. A schedule that makes steps longer on purpose (longer sequences, larger
    batches) is reported, too.

References
    https://docs.python.org/3/library/collections.html#collections.deque
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace

PREDICTED = (0.25, 1.0)  # of the growth at the end: half of its mean over the watched steps, and all of it
SAMPLED = 0.6  # of a line's growth at the end, at least: what samples since the last doubling of the steps have seen


def detect(trace: Trace) -> Iterator[Finding]:
    growth = trace.growth
    if not growth.grows or not growth.relative > 0 or growth.seconds is None:
        return
    added = growth.seconds.value * trace.steps
    own = growth.place_seconds / SAMPLED  # NaN where unknown
    curable, of_it = growth.relative, ""
    if own < added:  # the rest is not the line's: others have come to share the machine
        curable = own / (added / growth.relative + added - own)
        of_it = f", {ms(growth.place_seconds)} of it in this line"
    yield RULE.finding(
        f"a step takes {ms(added)} longer at the end than at the start ({growth.relative:+.0%}){of_it}",
        growth.place,
        (1.0 + PREDICTED[0] * curable, 1.0 + PREDICTED[1] * curable),
        label="takes longer in every step",
        advice="keep running sums or a buffer of fixed length, so that this line does not work on the whole history",
        notes=("predicted over the watched steps; it grows with their number",),
    )


RULE = Rule("G702", "growing-step", detect, __doc__)

"""A variable keeps the graphs of all steps alive.

Why it is slow
    ``total += loss`` adds tensors, not numbers: the sum holds every step's graph, and with it memory that is never
    given back. It ends in an out-of-memory error, or in swapping; until then it costs little time. A list that every
    epoch begins anew holds an epoch's graphs at its end, and the process stays as large as that.

Remedy
    None from outside: the variable is the script's. By hand: ``total += loss.item()``, or ``loss.detach()`` where
    waiting for the number would cost.

Fidelity
    identical, unless something differentiates the sum.

When it does not help
    Time: measured 0.98x after 800 steps on a CPU. The memory is the point.

References
    https://docs.pytorch.org/docs/stable/notes/faq.html#my-model-reports-cuda-runtime-error-2-out-of-memory
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.finding import Finding, Rule
from hasten.core.trace import Growth, Trace

LEAST_UNEXPLAINED = 256 << 20  # bytes of growth reported without a culprit; below, caches and allocators do that, too


def detect(trace: Trace) -> Iterator[Finding]:
    growth = trace.growth
    if not growth.variable and not _unexplained(growth, trace.steps):
        return
    slope = f"memory grows by {_bytes(growth.memory.value)} a step" if growth.leaks and growth.memory else ""
    whose = "all steps"
    if growth.epoch and growth.kept is not None:
        whose, most = "an epoch's steps", growth.kept.value * growth.epoch
        slope = f"{_bytes(growth.kept.value)} a step, {_bytes(most)} when it is begun anew"
    predicted = (1.0, 1.0 + growth.relative / 2) if growth.grows and growth.relative > 0 else (1.0, 1.0)
    if growth.variable:
        yield RULE.finding(
            f"{growth.variable!r} holds the graphs of {whose}" + (f": {slope}" if slope else ""),
            growth.variable_place,
            predicted,
            label="adds a tensor with its graph",
            advice=f"add {growth.variable}'s new values with .item(), or .detach() to keep them on the device",
        )
    else:
        yield RULE.finding(
            f"{slope}, and no variable of the script was found that keeps a graph",
            growth.place,
            predicted,
            advice="look for lists, dicts or buffers that are only added to; detach tensors before keeping them",
        )


def _unexplained(growth: Growth, steps: int) -> bool:
    return growth.leaks and growth.memory is not None and growth.memory.low * steps > LEAST_UNEXPLAINED


def _bytes(number: float) -> str:
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


RULE = Rule("G701", "graph-kept-alive", detect, __doc__)

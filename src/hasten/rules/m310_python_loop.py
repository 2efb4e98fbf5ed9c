"""A Python loop inside the step runs small operations one by one.

Why it is slow
    Every operation costs some microseconds of Python, dispatch and autograd before the first number is computed, and
    the same again in backward. One operation on the whole batch pays that once.

Remedy
    None from outside: the loop has to be written as operations on whole tensors. By hand: index and reduce along the
    batch dimension, ``torch.vmap`` for a function of one sample, ``nn.LSTM``/``nn.GRU`` instead of a loop over a
    cell, ``torch._foreach_*`` or ``clip_grad_norm_`` instead of a loop over parameters.

Fidelity
    equivalent: the same sums in another order.

When it does not help
    Iterations that are large by themselves, or that need the result of the one before and have no fused module; there
    ``torch.compile`` may help. Loops whose iterations call different modules are not reported. Iterations are
    counted in a forked child, so nothing is found where the process cannot be forked or the script compiles.

References
    https://docs.pytorch.org/docs/stable/generated/torch.vmap.html
    https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hasten.core.facts import Event
from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace
from hasten.seams.source import Loop, carried, iterated, iterations_are_alike, loop_at, source_of, without_graph

LEAST_SHARE = 0.05  # of the step spent in the loop's own lines; backward comes on top
LEAST_RUNS = 8.0  # iterations a step; fewer are seldom worth another way to write them
LONGEST = 1e-3  # seconds an iteration; ten operations take a tenth of it, so longer ones are real work
FORWARD_SAVED = (0.4, 0.95)  # part of the loop's time; measured 2.2x (losses of pairs) and 2.1x (LSTMCell) for a step
BACKWARD_SAVED = (0.0, 0.9)  # part of the backward pass that belongs to the loop, by its share of the forward work

_STATE = re.compile(r"hid|stat|^h[xcn]?$|^h_", re.IGNORECASE)  # what recurrent modules are given and give
_OF_PARAMETERS = re.compile(r"\bparameters\(|\b\w*(params|grads|state_dict)\b")


def detect(trace: Trace) -> Iterator[Finding]:
    work = trace.phase("forward") + trace.phase("python")
    for event in trace.events:
        if event.kind != "loop" or not event.seconds >= LEAST_SHARE * trace.step_seconds:
            continue
        if (
            event.calls < max(LEAST_RUNS, 1.5 * trace.backwards)
            or _on_a_core(trace) * event.seconds / event.calls > LONGEST
        ):
            continue
        loop = loop_at(event.place.file, event.place.line)
        if loop is not None and not iterations_are_alike(loop):
            continue
        behind = trace.phase("backward") * min(1.0, event.seconds / max(work, 1e-9))
        if without_graph(event.place.file, event.place.line):  # an average of weights
            behind = 0.0
        low, high = (
            min(FORWARD_SAVED[i] * event.seconds + BACKWARD_SAVED[i] * behind, 0.95 * trace.step_seconds)
            for i in (0, 1)
        )
        each = 1e6 * event.seconds / event.calls
        digits = 0 if each >= 10 else 1 if each >= 1 else 2
        yield RULE.finding(
            f"a Python loop runs {event.calls:.0f} times a step, "
            f"{each:.{digits}f} µs each, {ms(event.seconds)} together",
            event.place,
            (trace.amdahl(low), trace.amdahl(high)),
            label="one small operation after another",
            advice=_advice(event, loop),
        )


def _on_a_core(trace: Trace) -> float:
    """Part of the time in which it had a core: others may make a small operation take long."""
    usage = trace.usage
    return 1 - usage.waited_seconds / usage.wall_seconds if 0 < usage.waited_seconds < usage.wall_seconds else 1.0


def _advice(event: Event, loop: Loop | None) -> str:
    over = source_of(event.place.file, iterated(loop)) if loop is not None else ""
    body = source_of(event.place.file, loop) if loop is not None else ""
    if _OF_PARAMETERS.search(over):
        return "work on all parameters at once: torch._foreach_* on their list, clip_grad_norm_ for norms"
    if "cell" in body.lower():
        return "let nn.LSTM, nn.GRU or nn.RNN run over the whole sequence instead of a cell in a loop"
    if loop is not None and (name := carried(loop)):
        whole = "where nn.GRU, nn.LSTM or nn.RNN makes it, call that once with the whole sequence; else "
        return (
            f"each iteration needs {name!r} of the one before: {whole if _STATE.search(name) else ''}run the loop for"
            " many rows or tasks at once (torch.vmap around it), or have torch.compile take its iterations together"
        )
    return "write it as operations on the whole batch (index, reduce along dim 0), or torch.vmap the loop's body"


RULE = Rule("M310", "python-loop", detect, __doc__)

"""Backward computes gradients that no step uses.

Why it is slow
    ``backward`` goes through everything that a loss was made of: through a generator while its critic learns, through
    a backbone that is not in the optimizer, through the target network of Q-learning. A backward pass costs up to twice
    the forward pass, and these gradients are zeroed, or never looked at.

Remedy
    None from outside: what else looks at ``.grad`` is the script's business. By hand: ``requires_grad_(False)`` for
    what is not trained, or its calls under ``torch.no_grad()``; ``.detach()`` what a network has made where it does
    not learn from this loss.

Fidelity
    identical: two forked children took the same steps with these gradients and without, and all weights were the same
    bits.

When it does not help
    Where the gradient has to pass through a network to another one, it is the gradients of its weights only that are
    saved, by ``requires_grad_(False)`` meanwhile. What is predicted is measured: calls of backward with and without, in
    a forked child, which is not made on CUDA or of compiled scripts.

References
    https://docs.pytorch.org/docs/stable/notes/autograd.html#setting-requires-grad
    https://docs.pytorch.org/docs/stable/generated/torch.Tensor.detach.html
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from hasten.core.facts import Place, UnusedFacts
from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace

LEAST_SHARE = 0.03  # of the step
_NAMED = 3  # modules that are named


def detect(trace: Trace) -> Iterator[Finding]:
    for facts in trace.unused:
        cost = math.fsum(
            e.seconds for e in trace.events if e.kind == "backward" and _line(e.place) == _line(facts.place)
        )
        saved = facts.share.value * cost
        if not saved >= LEAST_SHARE * trace.step_seconds or not facts.share.low > 0:
            continue
        yield RULE.finding(
            f"{ms(saved)} of a step of {ms(trace.step_seconds)} go into gradients of {_names(facts)} that no step uses",
            facts.place,
            (trace.amdahl(facts.share.low * cost), trace.amdahl(facts.share.high * cost)),
            label="differentiates more than is trained",
            advice=_advice(facts),
            notes=(f"without them all weights were the same to the bit after {facts.steps} steps in a forked child",),
        )


def _line(place: Place) -> tuple[str, int]:
    return place.file, place.line


def _names(facts: UnusedFacts) -> str:
    rest = len(facts.modules) - _NAMED
    named = ", ".join(facts.modules[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"{named} ({facts.elements:,} parameters)"


def _advice(facts: UnusedFacts) -> str:
    name = facts.modules[0]
    if facts.stepped:
        return (
            f".detach() what {name} has made before this loss, or, where the gradient must pass through {name},"
            f" {name}.requires_grad_(False) meanwhile"
        )
    return f"{name}.requires_grad_(False), or call it under torch.no_grad() where nothing before it learns"


RULE = Rule("M311", "unused-gradients", detect, __doc__)

"""Saving checkpoints takes a measurable part of the training time.

Why it is slow
    ``torch.save`` copies, pickles and writes everything while the training waits; a checkpoint every few steps is
    overwritten before anybody could need it. A deep copy of the weights in every step costs the same way.

Remedy
    None from outside: what must survive a crash is the user's business. By hand: save every N minutes instead of
    every N steps; or copy the state to host memory and let a thread write it
    (``torch.distributed.checkpoint.async_save``).

Fidelity
    identical: what is saved is not changed by saving it less often.

When it does not help
    Where the disk is the limit even for one checkpoint: then save less, for example no optimizer state.

References
    https://docs.pytorch.org/docs/stable/distributed.checkpoint.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hasten.core.facts import Hot
from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace

LEAST_SHARE = 0.03  # of the time since the first step
SAVED = (0.5, 0.95)  # half as often, or in the background; measured 1.7x for every 2 steps against every 100
SAVE = "save every few minutes instead of every few steps, or hand a copy to torch's async_save"
COPY = "copy only what is the best so far, or every few minutes; where each copy is needed, copy into tensors that stay"
_CALLED = re.compile(r"(\w+)\s*\(")
_COPIED = re.compile(r"\bdeepcopy\(\s*(?:self\.)?(\w+)\s*\)")


def detect(trace: Trace) -> Iterator[Finding]:
    called = {name for model in trace.models if model.place for name in _CALLED.findall(model.place.text)}
    copies = [hot for hot in trace.hot if _copies_state(hot, called)]
    saving = trace.phase("checkpoint")
    cost = saving + sum(hot.seconds for hot in copies)
    if not cost >= LEAST_SHARE * trace.step_seconds:
        return
    place = trace.place("checkpoint")
    if place is None or (copies and copies[0].seconds > saving):
        place = copies[0].place if copies else None
    saves = saving >= cost - saving
    yield RULE.finding(
        f"{'checkpoints take' if saves else 'copying all weights takes'} {cost / trace.step_seconds:.0%} of the time,"
        f" {ms(cost)} for every step",
        place,
        (trace.amdahl(SAVED[0] * cost), trace.amdahl(SAVED[1] * cost)),
        label="the training waits for the file" if saves else "copies all weights",
        advice=SAVE if saves else COPY,
    )


def _copies_state(hot: Hot, models: set[str]) -> bool:
    """Whether a line copies all weights.

    Args:
        models: names by which the script calls its models.
    """
    text = hot.place.text
    if hot.phase != "python":
        return False
    if "state_dict" in text:
        return "deepcopy" in (hot.callee, *_CALLED.findall(text)) or ".clone()" in text
    return bool(models.intersection(_COPIED.findall(text)))


RULE = Rule("E603", "checkpoint-share", detect, __doc__)

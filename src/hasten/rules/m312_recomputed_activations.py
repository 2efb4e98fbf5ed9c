"""Activations are computed a second time in backward, to save memory that is there.

Why it is slow
    ``torch.utils.checkpoint`` forgets what a block has computed, and backward runs the block's forward pass once more:
    about a third more work. That is worth it where the activations of all blocks do not fit.

Remedy
    None from outside: what a network needs at its largest batch is not known. By hand: call the blocks themselves
    instead of ``checkpoint(block, x)``, all or every second one; ``model.gradient_checkpointing_disable()`` in
    transformers.

Fidelity
    identical: the same operations, once, from the same random state.

When it does not help
    Where memory is short, and on GPUs, where it mostly is: nothing is said there, nor where less memory is free than
    the process holds already.

References
    https://docs.pytorch.org/docs/stable/checkpoint.html
    https://arxiv.org/abs/1604.06174
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import RECOMPUTE, Trace

LEAST_SHARE = 0.05  # of the step
SAVED = (0.5, 2.2)  # times that: hooks around all saved tensors cost, too (six small blocks: measured 1.62x by hand)
ROOM = 1.0  # times what the process holds that must be free


def detect(trace: Trace) -> Iterator[Finding]:
    backward = next((p for p in trace.phases if p.name == "backward"), None)
    lines = [c for c in backward.children if c.name == RECOMPUTE] if backward is not None else []
    cost, least = sum(c.seconds.value for c in lines), sum(c.seconds.low for c in lines)
    free, held = trace.process.available_bytes, trace.usage.resident_bytes
    if not least >= LEAST_SHARE * trace.step_seconds or trace.process.device != "cpu" or not free > ROOM * held:
        return
    most = min(SAVED[1] * cost, cost + trace.phase("forward"))
    yield RULE.finding(
        f"{ms(cost)} of a step of {ms(trace.step_seconds)} go into computing activations once more in backward",
        lines[0].place,
        (trace.amdahl(SAVED[0] * least), trace.amdahl(most)),
        label="runs in forward, and again in backward",
        advice="call the blocks themselves instead of torch.utils.checkpoint, all of them or every second one",
        notes=(f"{free / 1e9:.1f} GB of memory are free, the process holds {held / 1e9:.1f} GB",),
    )


RULE = Rule("M312", "recomputed-activations", detect, __doc__)

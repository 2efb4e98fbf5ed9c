"""The script asks for 16 bits on a processor that has no units for them.

Why it is slow
    Without matrix units for bfloat16 every number is converted, and products run on the units for 32 bits or slower
    ones: autocast then costs time instead of saving it.

Remedy
    None from outside: precision is part of the experiment. By hand: ``torch.autocast(device, enabled=…)`` where the
    machine has a GPU or a CPU with AMX only.

Fidelity
    approximate: products in float32 are more exact, and differ.

When it does not help
    On GPUs, and on CPUs with ``amx_bf16``. With AMX switched off in oneDNN, autocast of three small networks ran 0.26
    to 0.87 times as fast as float32, one 0.03 times with AVX2 alone; with AMX, 1.2 to 2.3 times.

References
    https://docs.pytorch.org/docs/stable/amp.html
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.facts import Place
from hasten.core.finding import Finding, Rule
from hasten.core.trace import Trace
from hasten.seams.source import calls

FACTOR = (1.1, 3.8)  # of forward and backward: the same networks in float32


def detect(trace: Trace) -> Iterator[Finding]:
    process = trace.process
    if process.device != "cpu" or not process.autocast or process.bfloat16_units:
        return
    yield RULE.finding(
        "the model computes in 16 bits under autocast on a processor without units for them",
        _place(trace),
        trace.faster(trace.phase("forward") + trace.phase("backward"), FACTOR),
        label="slower here than float32",
        advice="leave autocast out on this processor: enabled=False, or torch.cuda.is_available()",
    )


def _place(trace: Trace) -> Place | None:
    """The first line that asks for autocast in the file that calls the model; else that call."""
    at = trace.place("forward")
    found = calls(at.file, lambda c: getattr(c.func, "attr", getattr(c.func, "id", "")) == "autocast") if at else []
    return found[0] if found else at


RULE = Rule("M313", "slow-autocast", detect, __doc__)

"""Weights or optimizer state have become subnormal numbers.

Why it is slow
    Numbers below 1.2e-38 are handled by microcode on most processors: 10 to 100 times slower per operation. Weight
    decay, gates that close and momentum of dead units produce them.

Remedy
    ``FlushDenormals()`` makes the processor treat them as zero, in all threads.

Fidelity
    equivalent: values below 1.2e-38 become 0.

When it does not help
    When there are none: then it costs nothing and gains nothing.

References
    https://docs.pytorch.org/docs/stable/generated/torch.set_flush_denormal.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace

LEAST_SHARE = 0.001  # of a tensor's elements; fewer do not show in a step
SAVED = 0.9  # of the time of what computes with them at most; measured 10x where half of the state was subnormal
SLOWER = 100.0  # times longer than usual that an operation on one takes, at most


@dataclass(frozen=True)
class FlushDenormals(Remedy):
    """Treats subnormal numbers as zero in this thread and in torch's OpenMP threads."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.PROCESS
    settle: ClassVar[int] = 1

    def on(self, target: Any = None) -> Undo:
        import torch

        if _flushes():
            raise Unsuited("subnormal numbers are zero already")
        if not torch.set_flush_denormal(True):
            raise Unsuited("this processor cannot flush subnormal numbers")
        _renew_threads()

        def undo() -> None:
            torch.set_flush_denormal(False)
            _renew_threads()

        return undo


def _flushes() -> bool:
    import torch

    return not torch.tensor(1e-310, dtype=torch.float64).mul(1).item()


def _renew_threads() -> None:
    # The mode belongs to a thread and is inherited when a thread is made: end the pool, it comes back with the mode.
    from hasten.seams.openmp import pause_openmp

    pause_openmp()


def detect(trace: Trace) -> Iterator[Finding]:
    share = trace.process.denormal_share
    if not share >= LEAST_SHARE:
        return
    cost = trace.phase("optimizer")
    if trace.process.denormal_tensor == "weight":
        cost += trace.phase("forward") + trace.phase("backward")
    saved = min(SAVED, share * SLOWER / (1 + share * SLOWER))
    yield RULE.finding(
        f"{share:.1%} of the first elements of the {trace.process.denormal_tensor} are subnormal numbers",
        trace.place("optimizer"),
        (1.0, trace.amdahl(saved * cost)),
        label="computes with subnormal numbers",
        remedies=(FlushDenormals(),),
    )


RULE = Rule("M305", "denormals", detect, __doc__, (FlushDenormals,))

"""Anomaly detection was left on.

Why it is slow
    ``torch.autograd.set_detect_anomaly(True)`` records a Python stack for every operation of the forward pass and
    checks every gradient for NaN. It is meant for finding one bug, and is often left on.

Remedy
    ``AnomalyOff()`` switches it off.

Fidelity
    identical: the check reads gradients and changes none. A NaN no longer raises in ``backward``.

When it does not help
    While you are hunting a NaN.

References
    https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace

SHARE = (0.3, 0.8)  # part of forward and backward that the bookkeeping takes; 3.7x measured on a small model


@dataclass(frozen=True)
class AnomalyOff(Remedy):
    """Switches autograd's anomaly mode off."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.PROCESS

    def on(self, target: Any = None) -> Undo:
        import torch

        enabled, check = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
        torch.set_anomaly_enabled(False)
        return lambda: torch.set_anomaly_enabled(enabled, check)


def detect(trace: Trace) -> Iterator[Finding]:
    if not trace.process.anomaly_mode:
        return
    cost = trace.phase("backward") + trace.phase("forward")
    yield RULE.finding(
        "autograd's anomaly mode is on: every operation records a stack and every gradient is checked",
        trace.process.anomaly_place or trace.place("backward"),
        (trace.amdahl(SHARE[0] * cost), trace.amdahl(SHARE[1] * cost)),
        label="runs under detect_anomaly",
        remedies=(AnomalyOff(),),
    )


RULE = Rule("M308", "anomaly-mode", detect, __doc__, (AnomalyOff,))

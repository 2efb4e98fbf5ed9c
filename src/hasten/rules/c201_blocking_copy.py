"""Batches are copied to the device from pageable memory, one after the other.

Why it is slow
    A copy from pageable memory goes through a staging buffer and blocks the host; from pinned memory it runs beside
    the computation.

Remedy
    ``PinMemory()`` pins the loader's batches; copies of pinned batches become asynchronous.

Fidelity
    identical: the same bytes arrive.

When it does not help
    On a CPU, or when batches are small.

References
    https://docs.pytorch.org/tutorials/intermediate/pinmem_nonblock.html
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.core.trace import Trace

LEAST_SHARE = 0.05  # of the step spent copying, beside what the device does anyway


@dataclass(frozen=True)
class PinMemory(Remedy):
    """Lets a DataLoader hand out batches in pinned memory."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.LOADER
    grain: ClassVar[Grain] = Grain.CHILD

    def on(self, target: Any = None) -> Undo:
        import torch

        if not torch.accelerator.is_available():
            raise Unsuited("there is no accelerator to copy to")
        if target.pin_memory:
            raise Unsuited("the loader pins its batches already")
        target.pin_memory = True

        def undo() -> None:
            target.pin_memory = False

        return undo

    def on_seam(self, seam: Any, target: Any) -> Undo:
        """From outside: pin, and make ``tensor.to(device)`` of pinned tensors asynchronous."""
        from hasten.seams.copy import asynchronous

        undo, back = self.on(target), asynchronous()

        def both() -> None:
            back()
            undo()

        return both


def detect(trace: Trace) -> Iterator[Finding]:
    loader, cost = trace.loader, trace.phase("copy")
    if trace.process.device != "cuda" or loader is None or loader.pin_memory:
        return
    saved = _saved(trace, cost)
    if not saved >= LEAST_SHARE * trace.step_seconds:
        return
    yield RULE.finding(
        f"copies to the device block the host for {ms(cost)} a step",
        trace.place("copy") or loader.place,
        (1.0, trace.amdahl(0.9 * saved)),
        label="copies from pageable memory",
        remedies=(PinMemory(),),
    )


def _saved(trace: Trace, cost: float) -> float:
    """Most seconds per step that can go: a copy from pageable memory also waits for what the device does before it, and
    that stays."""
    busy = math.fsum(p.seconds.value for p in trace.device_phases if p.seconds.known)
    own = next((p.seconds.value for p in trace.device_phases if p.name == "copy"), 0.0)
    return min(cost, max(0.0, trace.step_seconds - busy) + own) if busy else cost


RULE = Rule("C201", "blocking-copy", detect, __doc__, (PinMemory,))

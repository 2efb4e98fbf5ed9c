"""Gradients are filled with zeros instead of being dropped.

Why it is slow
    ``zero_grad(set_to_none=False)`` writes every gradient, and backward then reads, adds and writes it again
    instead of just writing.

Remedy
    ``ZeroGradToNone()`` drops the gradients.

Fidelity
    identical, as long as every parameter gets a gradient in every step: a parameter without one is then skipped by
    the optimizer instead of being updated with zeros (weight decay, momentum). The comparison of weights finds
    that.

When it does not help
    Scripts that read ``.grad`` between ``zero_grad`` and ``backward``.

References
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace

GRADIENT_BYTES_A_SECOND = 4e9  # a pass over memory on two cores


@dataclass(frozen=True)
class ZeroGradToNone(Remedy):
    """Makes ``zero_grad(set_to_none=False)`` of an optimizer drop the gradients instead."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.OPTIMIZER
    settle: ClassVar[int] = 1

    def on(self, target: Any = None) -> Undo:
        if "zero_grad" in vars(target):
            raise Unsuited("the optimizer has a zero_grad of its own")
        original = target.zero_grad

        def zero_grad(set_to_none: bool = True) -> None:
            original(set_to_none=True)

        target.zero_grad = zero_grad

        def undo() -> None:
            vars(target).pop("zero_grad", None)

        return undo


def detect(trace: Trace) -> Iterator[Finding]:
    for facts in trace.optimizers:
        if facts.zeroes_gradients and trace.step_seconds > 0:
            saved = trace.phase("zero_grad") + 2 * 4 * facts.elements / GRADIENT_BYTES_A_SECOND
            yield RULE.finding(
                f"zero_grad writes {facts.elements:,} zeros a step",
                facts.zero_place or trace.place("zero_grad"),
                (1.0, trace.amdahl(min(saved, 0.5 * trace.step_seconds))),
                label="set_to_none is False",
                remedies=(ZeroGradToNone(),),
            )
            return


RULE = Rule("O403", "zeroed-gradients", detect, __doc__, (ZeroGradToNone,))

"""The optimizer updates one tensor at a time.

Why it is slow
    A for-loop optimizer starts a dozen operations for every parameter tensor from Python; the foreach
    implementation starts a dozen for all of them.

Remedy
    ``ForeachOptimizer()`` sets ``foreach=True`` in the optimizer's groups.

Fidelity
    identical: the same operations on the same numbers (measured: the same bits). NAdam, RAdam, ASGD and Adafactor take
    others, and are left alone.

When it does not help
    Few or large tensors; on a CPU the gain is small. Its temporaries take memory of the size of the parameters.

References
    https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.facts import OptimizerFacts
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.seams.optimizer import in_groups_while_stepping, set_in_groups

LEAST_SHARE = 0.03  # of the step spent in the optimizer
SAME_BITS = ("SGD", "Adam", "AdamW", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop")
EVERY_STEP = 0.9  # of the script's steps; an optimizer of one model after the other takes part in few
SAVED = (0.0, 0.6)  # part of the optimizer's time; measured 1.02 to 1.25x of a step


@dataclass(frozen=True)
class ForeachOptimizer(Remedy):
    """Uses the multi-tensor implementation of an optimizer."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.OPTIMIZER
    conflicts: ClassVar[tuple[str, ...]] = ("FusedOptimizer",)

    def on(self, target: Any = None) -> Undo:
        self._suits(target)
        return set_in_groups(target, foreach=True)

    def on_seam(self, _seam: Any, target: Any) -> Undo:
        """From outside: while it steps, so that what the script saves of its optimizer is as it was."""
        self._suits(target)
        return in_groups_while_stepping(target, self._suits, foreach=True)

    def _suits(self, target: Any) -> None:
        import torch

        groups = target.param_groups
        if not all("foreach" in g for g in groups):
            raise Unsuited(f"{type(target).__name__} has no foreach implementation")
        if not isinstance(target, tuple(getattr(torch.optim, name) for name in SAME_BITS)):
            raise Unsuited(f"{type(target).__name__} rounds elsewhere in its foreach implementation")
        if all(g["foreach"] for g in groups) or any(g.get("fused") for g in groups):
            raise Unsuited("the optimizer does not loop over tensors")
        if any(g.get("differentiable") for g in groups):
            raise Unsuited("a differentiable optimizer must loop")


def detect(trace: Trace) -> Iterator[Finding]:
    suited = [o for o in trace.optimizers if _loops(o)]
    cost = trace.optimizing(suited)
    if not suited or not cost >= LEAST_SHARE * trace.step_seconds:
        return
    together = [o for o in suited if o.steps > EVERY_STEP * trace.steps] or suited[:1]
    yield RULE.finding(
        f"{suited[0].kind} updates {sum(o.tensors for o in together)} tensors one by one, {ms(cost)} a step",
        suited[0].place,
        (trace.amdahl(SAVED[0] * cost), trace.amdahl(SAVED[1] * cost)),
        label="foreach and fused are off",
        remedies=(ForeachOptimizer(),),
    )


def _loops(facts: OptimizerFacts) -> bool:
    """Whether foreach would do otherwise, to the same bits."""
    loops = facts.implementation == "loop" and facts.can_foreach
    return loops and facts.kind in SAME_BITS and facts.tensors > 2


RULE = Rule("O401", "loop-optimizer", detect, __doc__, (ForeachOptimizer,))

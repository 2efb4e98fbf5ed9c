"""The optimizer passes over memory once per operation.

Why it is slow
    Adam in separate operations reads and writes weights, gradients and moments about a dozen times; the fused
    kernel does it once.

Remedy
    ``FusedOptimizer()`` sets ``fused=True`` in the optimizer's groups.

Fidelity
    equivalent: one kernel rounds at other places (measured 7e-7 of an update).

When it does not help
    When the optimizer's share of the step is small.

References
    https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.seams.optimizer import in_groups_while_stepping, set_in_groups

LEAST_SHARE = 0.03  # of the step spent in the optimizer
SAVED = (0.3, 0.95)  # part of the optimizer's time


@dataclass(frozen=True)
class FusedOptimizer(Remedy):
    """Uses the fused kernel of an optimizer."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.OPTIMIZER
    conflicts: ClassVar[tuple[str, ...]] = ("ForeachOptimizer",)

    def on(self, target: Any = None) -> Undo:
        self._suits(target)
        return set_in_groups(target, fused=True, foreach=False)

    def on_seam(self, _seam: Any, target: Any) -> Undo:
        """From outside: while it steps, so that what the script saves of its optimizer is as it was."""
        self._suits(target)
        return in_groups_while_stepping(target, self._suits, fused=True, foreach=False)

    def _suits(self, target: Any) -> None:
        groups = target.param_groups
        if not all("fused" in g for g in groups):
            raise Unsuited(f"{type(target).__name__} has no fused implementation")
        if all(g["fused"] for g in groups):
            raise Unsuited("the optimizer is fused already")
        if any(g.get("differentiable") or (g.get("amsgrad") is None and "amsgrad" in g) for g in groups):
            raise Unsuited("a differentiable optimizer cannot be fused")
        _check(groups)
        _steps_as_tensors(target)


def _check(groups: list[Any]) -> None:
    import torch

    for p in (p for g in groups for p in g["params"]):
        if p.layout is not torch.strided or not torch.is_floating_point(p):
            raise Unsuited("a parameter is sparse or not floating point")
        if p.dtype not in (torch.float32, torch.float64) and not p.is_cuda:
            raise Unsuited(f"a parameter is {p.dtype}")


def _steps_as_tensors(optimizer: Any) -> None:
    import torch

    for state in optimizer.state.values():
        step = state.get("step")
        if step is not None and not isinstance(step, torch.Tensor):
            raise Unsuited("the optimizer counts its steps outside of tensors")


def detect(trace: Trace) -> Iterator[Finding]:
    suited = [o for o in trace.optimizers if o.implementation != "fused" and o.can_fuse]
    cost = trace.optimizing(suited)
    if not suited or not cost >= LEAST_SHARE * trace.step_seconds:
        return
    yield RULE.finding(
        f"{suited[0].kind} makes a pass over memory per operation, {ms(cost)} a step",
        suited[0].place,
        (trace.amdahl(SAVED[0] * cost), trace.amdahl(SAVED[1] * cost)),
        label="fused is off",
        remedies=(FusedOptimizer(),),
    )


RULE = Rule("O402", "unfused-optimizer", detect, __doc__, (FusedOptimizer,))

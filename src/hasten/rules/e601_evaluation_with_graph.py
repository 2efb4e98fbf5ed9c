"""Evaluation records a graph that nobody differentiates.

Why it is slow
    Without ``torch.no_grad`` every operation of an evaluation saves its inputs for a backward pass that never
    comes: memory grows, and some time goes.

Remedy
    ``NoGradEvaluation()`` runs calls of a model in eval mode without a graph, once the script has shown that it
    never differentiates them. By hand only: ``hasten run`` cannot know that a script will not differentiate a later
    evaluation (a saliency map, an attack), which would then fail.

Fidelity
    identical: the same operations, nothing saved.

When it does not help
    Time gains are small on a CPU (measured 1.07); the memory counts. Not applied to scripts that train in eval
    mode.

References
    https://docs.pytorch.org/docs/stable/notes/autograd.html#locally-disabling-gradient-computation
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.seams.patch import Patches

SAVED = (0.0, 0.15)  # part of the evaluation's time


@dataclass(frozen=True)
class NoGradEvaluation(Remedy):
    """Runs a module's calls in eval mode under ``torch.no_grad``."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.MODEL
    grain: ClassVar[Grain] = Grain.JOB
    by_hand: ClassVar[bool] = True

    def on(self, target: Any = None) -> Undo:
        """For use by hand: wraps ``target.forward``."""
        import torch

        original = target.forward
        if getattr(original, "is_without_graph", False):
            raise Unsuited("evaluation runs without a graph already")

        def forward(*args: Any, **kwargs: Any) -> Any:
            with torch.set_grad_enabled(torch.is_grad_enabled() and target.training):
                return original(*args, **kwargs)

        forward.is_without_graph = True  # type: ignore[attr-defined]
        patches = Patches()
        patches.set(target, "forward", forward)
        return patches.undo

    def on_seam(self, seam: Any, target: Any) -> Undo:
        """From outside: only for calls that the watch has found to be evaluation."""
        record = seam.watch.models.get(id(target))
        if record is None or record.trains_in_eval_mode or not record.evaluations_with_graph:
            raise Unsuited("no evaluation with a graph was seen")
        seam.without_graph = True

        def undo() -> None:
            seam.without_graph = False

        return undo


def detect(trace: Trace) -> Iterator[Finding]:
    cost = trace.phase("evaluation")
    for model in trace.models:
        if model.evaluations_with_graph and cost > 0:
            yield RULE.finding(
                f"{model.evaluations_with_graph} evaluation calls of {model.kind} recorded a graph",
                model.evaluation_place or trace.place("evaluation"),
                (trace.amdahl(SAVED[0] * cost), trace.amdahl(SAVED[1] * cost)),
                label="runs without torch.no_grad()",
                remedies=(NoGradEvaluation(),),
            )
            return


RULE = Rule("E601", "evaluation-with-graph", detect, __doc__, (NoGradEvaluation,))

"""Evaluation records a graph that nobody differentiates.

Why it is slow
    Without ``torch.no_grad`` every operation of an evaluation saves its inputs for a backward pass that never
    comes: memory grows, and some time goes.

Remedy
    ``NoGradEvaluation()`` runs calls of a model in eval mode without a graph. Should the script differentiate one after
    all (a saliency map, an attack), that call is made again with a graph, from the same random state, and the model is
    left alone from then on. The trial repeats an evaluation that the script has made, with and without.

Fidelity
    identical: the same operations, nothing saved; outputs are compared to the bit. Where torch takes other kernels
    without a graph (attention, LSTM), they may differ, and the remedy is not applied.

When it does not help
    Time gains are small on a CPU (measured 1.07); the memory counts. Told but not applied where the model stays in
    train mode: whether a call is an evaluation is known only afterwards. Not applied to scripts that train in eval
    mode, nor to models whose outputs are of their own classes, or depend on tensors that are neither parameters nor
    arguments. A call that is made again must find the weights, buffers and attributes that it had: where weights or
    buffers were written to in between, other than a normalisation's running means, differentiating it is an error.

References
    https://docs.pytorch.org/docs/stable/notes/autograd.html#locally-disabling-gradient-computation
    https://arxiv.org/abs/1604.06174
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.seams.on_demand import OnDemand
from hasten.seams.patch import Patches

SAVED = (0.0, 0.15)  # part of the evaluation's time
IN_TRAIN_MODE = (
    "the model is in train mode: dropout stays on, and batch norm learns from these data; model.eval() first"
)


@dataclass(frozen=True)
class NoGradEvaluation(Remedy):
    """Runs a module's calls in eval mode without recording a graph; one is made when it is asked for."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.MODEL
    grain: ClassVar[Grain] = Grain.CALL

    def on(self, target: Any = None) -> Undo:
        """For use by hand: wraps ``target.forward``."""
        import torch

        original, run = target.forward, OnDemand()
        if getattr(original, "is_without_graph", False):
            raise Unsuited("evaluation runs without a graph already")

        def call(_module: Any, *args: Any, **kwargs: Any) -> Any:
            return original(*args, **kwargs)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if target.training or not torch.is_grad_enabled():
                return original(*args, **kwargs)
            return run(call, target, args, kwargs)

        forward.is_without_graph = True  # type: ignore[attr-defined]
        patches = Patches()
        patches.set(target, "forward", forward)
        return patches.undo

    def on_seam(self, seam: Any, target: Any) -> Undo:
        """From outside: where the outermost modules are called, so that a copy of the model is a plain copy."""
        record = seam.watch.models.get(id(target))
        if record is None or record.trains_in_eval_mode:
            raise Unsuited("the model is trained in eval mode")
        before, seam.on_demand = seam.on_demand, seam.on_demand or OnDemand()

        def undo() -> None:
            seam.on_demand = before

        return undo


def detect(trace: Trace) -> Iterator[Finding]:
    cost = trace.phase("evaluation")
    for model in trace.models:
        graphs = model.evaluations_with_graph + model.graphs_in_train_mode
        if graphs and cost > 0:
            in_eval_mode = model.evaluations_with_graph > model.graphs_in_train_mode
            yield RULE.finding(
                f"{graphs} evaluation calls of {model.kind} recorded a graph",
                model.evaluation_place or trace.place("evaluation"),
                (trace.amdahl(SAVED[0] * cost), trace.amdahl(SAVED[1] * cost)),
                label="runs without torch.no_grad()",
                advice="" if in_eval_mode else "evaluate under torch.no_grad(): nothing differentiates these calls",
                notes=(IN_TRAIN_MODE,) if model.in_train_mode and model.acts_by_mode else (),
                remedies=(NoGradEvaluation(),) if in_eval_mode else (),
            )
            return


RULE = Rule("E601", "evaluation-with-graph", detect, __doc__, (NoGradEvaluation,))

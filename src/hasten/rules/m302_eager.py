"""Many small operations are started one by one from Python.

Why it is slow
    In eager mode every operation pays for Python, dispatch and its own pass over memory; a compiled graph fuses
    them.

Remedy
    ``Compile()`` compiles the model's calls in place with ``torch.compile``: those of training. Evaluations and samples
    that are drawn from the model stay eager, since each of their shapes would be compiled anew, and no step repays it.

Fidelity
    equivalent: fused operations round at other places. Dropout draws the numbers that eager mode draws
    (``torch._inductor.config.fallback_random``), so that the updates can be compared at all.

When it does not help
    Gradients that are differentiated again (``create_graph=True``), which compiled code does not support.
    Short jobs (compiling takes from ten seconds to minutes; what trials have compiled is kept for later runs with the
    plan, which then start some seconds later instead), shapes that change, models dominated by a few large kernels.

References
    https://docs.pytorch.org/docs/stable/generated/torch.compile.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import LEAST_TOLD, Finding, Rule
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.core.trace import Trace

COMPILE_SECONDS = 40.0  # forward and backward of a small model on two cores, measured 20 to 70
FACTOR = (1.0, 1.6)  # measured 0.9 to 2.3 on public scripts
START_SECONDS = 4.0  # the same where the compiled code is found, as in later runs with the plan; measured 3 to 5
WORTH = 5.0  # a job must last this many times that before compiling is spoken of


@dataclass(frozen=True)
class Compile(Remedy):
    """Compiles a module's calls in place, where they record a graph; the module stays the same object."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.MODEL
    grain: ClassVar[Grain] = Grain.CHILD
    conflicts: ClassVar[tuple[str, ...]] = (
        "ChannelsLast",
        "CacheFeatures",
    )  # what is compiled chooses layouts by itself
    settle: ClassVar[int] = 6
    one_off_seconds: ClassVar[float] = COMPILE_SECONDS
    start_seconds: ClassVar[float] = START_SECONDS

    def on(self, target: Any = None) -> Undo:
        import torch

        from hasten.measure.machine import has_compiler

        if getattr(target, "_compiled_call_impl", None) is not None or type(target).__name__ == "OptimizedModule":
            raise Unsuited("the model is compiled already")
        if isinstance(target, torch.jit.ScriptModule):
            raise Unsuited("the model is TorchScript")
        if next(target.parameters(), None) is None:
            raise Unsuited("the module has no parameters")
        if not next(target.parameters()).is_cuda and not has_compiler():
            raise Unsuited("torch.compile needs a C++ compiler on this machine")
        from torch._inductor import config

        def call(*args: Any, **kwargs: Any) -> Any:
            return target._call_impl(*args, **kwargs)

        before, config.fallback_random = config.fallback_random, True
        target.compile()  # never looks into an nn.Sequential of torch's own modules: all of it is torch's code,
        compiled = torch.compile(call)  # which is followed from a function that is not
        target._compiled_call_impl = _in_training(target, compiled)

        def undo() -> None:
            target._compiled_call_impl = None
            config.fallback_random = before

        return undo


def _in_training(module: Any, compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Calls ``compiled`` where training does: with a graph, and in train mode if the module is in it now."""
    import torch

    trains, recorded = module.training, torch.is_grad_enabled

    def call(*args: Any, **kwargs: Any) -> Any:
        if recorded() and module.training >= trains:
            return compiled(*args, **kwargs)
        return module._call_impl(*args, **kwargs)

    return call


def detect(trace: Trace) -> Iterator[Finding]:
    process = trace.process
    if process.compiled_by_script or process.differentiated_twice:
        return
    if not (process.compiler or process.device == "cuda"):
        return
    model = max((m for m in trace.models if m.elements and m.trained), key=lambda m: m.elements, default=None)
    if model is None or model.compiled or model.directly:  # what is compiled is the module's call
        return
    job = trace.predicted_steps * trace.step_seconds if trace.predicted_steps > 0 else float("inf")
    if job < WORTH * START_SECONDS:
        return
    cost = trace.trained_forward + trace.phase("backward")
    predicted = trace.faster(cost, FACTOR)
    if predicted[1] < LEAST_TOLD:  # nothing that pays for compiling
        return
    many = f"{model.modules} modules" if model.modules > 1 else "its operations"
    yield RULE.finding(
        f"{model.kind} runs {many} eagerly",
        model.place,
        predicted,
        label="starts every operation from Python",
        remedies=(Compile(),),
        notes=(f"compiling takes about {COMPILE_SECONDS:.0f} s once, before it gains anything",),
    )


RULE = Rule("M302", "eager", detect, __doc__, (Compile,))

"""Convolutions run on channels-first memory.

Why it is slow
    Convolution kernels work on channels-last (NHWC) blocks; with NCHW tensors every layer reorders its input and
    output.

Remedy
    ``ChannelsLast()`` converts what 2-d convolutions are given while the model is trained, and what the model returns
    back again. Weights, gradients and what an evaluation computes keep their layout, so that ``p.view(-1)`` goes on
    working. By hand, on a model of your own, it converts the weights, and activations follow.

Fidelity
    equivalent: another order of summation.

When it does not help
    Models without convolutions, or whose layers force a contiguous layout; very small images. Not applied to models
    that the script compiles, or looks into by hooks.

References
    https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.seams.forward import with_tensors
from hasten.seams.patch import Patches

FACTOR = (1.0, 1.4)  # measured 0.95 to 1.25 on public scripts on a CPU; only a trial can tell
_BY_HAND = "model.to(memory_format=torch.channels_last); from outside only models that are trained are given it"


@dataclass(frozen=True)
class ChannelsLast(Remedy):
    """Runs a module's 2-d convolutions on channels-last memory; by hand it converts 4-d parameters and buffers."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.MODEL
    settle: ClassVar[int] = 1
    at_once: ClassVar[bool] = True

    def on(self, target: Any = None) -> Undo:
        import torch

        tensors = _suited(target)
        if any(_held(t) for t in tensors):
            raise Unsuited("the script holds the memory of its weights elsewhere, too")
        _convert(tensors, torch.channels_last)
        return lambda: _convert(tensors, torch.contiguous_format)

    def on_seam(self, seam: Any, target: Any) -> Undo:
        """From outside: what is computed is converted, and nothing that the script holds."""
        _suited(target)
        if _looked_into(target):
            raise Unsuited("hooks of the script look into the model")
        if seam.watch.compiled_by_script:
            raise Unsuited("the script compiles its model")
        if _inside in seam.around:
            raise Unsuited("convolutions run on channels-last memory already")
        seam.around.append(_inside)
        return lambda: seam.around.remove(_inside)


def _suited(target: Any) -> list[Any]:
    """The 4-d tensors of a model."""
    import torch

    if not any(isinstance(m, torch.nn.Conv2d) for m in target.modules()):
        raise Unsuited("the model has no 2-d convolution")
    tensors = [t for t in (*target.parameters(), *target.buffers()) if t.dim() == 4]
    if any(_channels_last(t) for t in tensors):
        raise Unsuited("the model is in channels-last memory already")
    return tensors


def _looked_into(target: Any) -> bool:
    """Whether hooks that are not torch's own (weight norms) see what the model's modules are given and return."""
    hooks = (h for m in target.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values()))
    return any(not str(getattr(hook, "__module__", "")).startswith("torch.") for hook in hooks)


def _channels_last(tensor: Any) -> bool:
    import torch

    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _inside(call: Any) -> Any:
    """A module's call whose convolutions run on channels-last memory, if it is one to train by."""
    import torch
    from torch.nn import functional

    def inside(module: Any, *args: Any, **kwargs: Any) -> Any:
        if not module.training or not torch.is_grad_enabled():
            return call(module, *args, **kwargs)
        original = functional.conv2d

        def conv2d(input: Any, weight: Any, *args: Any, **kwargs: Any) -> Any:
            if input.dim() == 4:
                input = input.contiguous(memory_format=torch.channels_last)
            return original(input, weight, *args, **kwargs)

        patches = Patches()
        patches.set(functional, "conv2d", conv2d)
        try:
            out = call(module, *args, **kwargs)
        finally:
            patches.undo()
        return with_tensors(out, lambda t: t.contiguous() if t.requires_grad and t.dim() == 4 else t)

    return inside


def _held(tensor: Any) -> bool:
    """Whether others look at the same memory (a state dict that is no copy, another process) and would lose it."""
    import torch

    storage = tensor.untyped_storage()
    if tensor.device.type == "cpu" and tensor.is_shared():
        return True
    return bool(torch._C._storage_Use_Count(storage._cdata) > 2)  # the tensor, and what was asked for here


def _convert(tensors: list[Any], layout: Any) -> None:
    import torch

    with torch.no_grad():
        for tensor in tensors:
            tensor.data = tensor.data.contiguous(memory_format=layout)
            if tensor.grad is not None:
                tensor.grad.data = tensor.grad.data.contiguous(memory_format=layout)


def detect(trace: Trace) -> Iterator[Finding]:
    for model in sorted(trace.models, key=lambda m: not m.trained):
        if model.conv2d and not model.channels_last and model.elements:
            trained = trace.trained_forward
            cost = trained + trace.phase("backward") if model.trained else trace.phase("forward") - trained
            yield RULE.finding(
                f"{model.kind} runs {model.conv2d} convolutions on channels-first memory",
                model.place,
                trace.faster(cost, FACTOR),
                label="reorders tensors in every convolution",
                remedies=(ChannelsLast(),) if model.trained else (),
                advice="" if model.trained else _BY_HAND,
            )
            return


RULE = Rule("M301", "channels-first", detect, __doc__, (ChannelsLast,))

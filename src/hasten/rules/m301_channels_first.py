"""Convolutions run on channels-first memory.

Why it is slow
    Convolution kernels work on channels-last (NHWC) blocks; with NCHW tensors every layer reorders its input and
    output.

Remedy
    ``ChannelsLast()`` converts the weights of a model with 2-d convolutions (and their optimizer state);
    activations follow.

Fidelity
    equivalent: another order of summation.

When it does not help
    Models without convolutions, or whose layers force a contiguous layout; very small images.

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

FACTOR = (1.0, 1.4)  # measured 0.95 to 1.25 on public scripts on a CPU; only a trial can tell


@dataclass(frozen=True)
class ChannelsLast(Remedy):
    """Converts a module's 4-d parameters and buffers to channels-last memory, in place."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.MODEL
    settle: ClassVar[int] = 1

    def on(self, target: Any = None) -> Undo:
        import torch

        if not any(isinstance(m, torch.nn.Conv2d) for m in target.modules()):
            raise Unsuited("the model has no 2-d convolution")
        tensors = [t for t in (*target.parameters(), *target.buffers()) if t.dim() == 4]
        if any(t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in tensors):
            raise Unsuited("the model is in channels-last memory already")
        if any(_held(t) for t in tensors):
            raise Unsuited("the script holds the memory of its weights elsewhere, too")
        _convert(tensors, torch.channels_last)
        return lambda: _convert(tensors, torch.contiguous_format)


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
    for model in trace.models:
        if model.conv2d and not model.channels_last and model.elements:
            cost = trace.phase("forward") + trace.phase("backward")
            yield RULE.finding(
                f"{model.kind} runs {model.conv2d} convolutions on channels-first memory",
                model.place,
                (1.0, trace.amdahl(cost * (1 - 1 / FACTOR[1]))),
                label="reorders tensors in every convolution",
                remedies=(ChannelsLast(),),
            )
            return


RULE = Rule("M301", "channels-first", detect, __doc__, (ChannelsLast,))

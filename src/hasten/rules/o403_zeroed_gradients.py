"""Gradients are filled with zeros instead of being dropped.

Why it is slow
    ``zero_grad(set_to_none=False)`` writes every gradient, and backward then reads, adds and writes it again
    instead of just writing.

Remedy
    ``ZeroGradToNone()`` drops the gradients.

Fidelity
    identical: a parameter that ``backward`` has no gradient for gets its zeros back right after it (or before the
    optimizer steps), so that it is updated with them (weight decay, momentum). So do all when ``.grad`` of one is read
    in between. A gradient of minus zero becomes zero, as it does when it is added to zeros. Gradients that the script
    holds itself, that are views of a larger tensor, or sparse, are filled with zeros as before.

When it does not help
    Scripts that read ``.grad`` between ``zero_grad`` and ``backward``: the zeros are written after all.

References
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.seams.optimizer import around_steps
from hasten.seams.patch import Patches

GRADIENT_BYTES_A_SECOND = 4e9  # a pass over memory on two cores


@dataclass(frozen=True)
class ZeroGradToNone(Remedy):
    """Makes ``zero_grad(set_to_none=False)`` of an optimizer drop the gradients instead."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.OPTIMIZER
    settle: ClassVar[int] = 1

    def on(self, target: Any = None) -> Undo:
        import torch

        if "zero_grad" in vars(target):
            raise Unsuited("the optimizer has a zero_grad of its own")
        if inspect.unwrap(type(target).zero_grad) is not inspect.unwrap(torch.optim.Optimizer.zero_grad):
            raise Unsuited(f"{type(target).__name__} has a zero_grad of its own")
        return _Drops(target).take_off


class _Drops:
    """Drops an optimizer's gradients where it is asked to fill them with zeros, and fills what stays without."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = weakref.ref(optimizer)  # nothing here keeps it: a script may train many, one after the other
        self.dropped: dict[int, Any] = {}  # by the address of the parameter
        self.alone = _references()
        self.steps = around_steps(self._before_step, lambda *_: None, optimizer)
        optimizer.zero_grad = self.zero_grad
        _READS.begin(self)
        weakref.finalize(optimizer, self._gone).atexit = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        optimizer: Any = self.optimizer()
        self.dropped.clear()
        dropped = {}
        if not set_to_none:
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                gradient = p.grad
                if gradient is None or gradient.is_sparse or gradient._is_view():
                    continue
                if sys.getrefcount(gradient) <= self.alone:
                    p.grad = None
                    dropped[id(p)] = p
        type(optimizer).zero_grad(optimizer, set_to_none=set_to_none)
        if dropped:
            self.dropped = dropped  # from now on reading one fills it
            _READS.waiting.add(self)

    def _before_step(self, *_: Any) -> None:
        if self.dropped:
            self.fill()

    def fill(self) -> None:
        """Make every dropped gradient what it would be had it been added to zeros."""
        import torch

        _READS.waiting.discard(self)
        dropped = list(self.dropped.values())
        self.dropped.clear()
        found = []
        for p in dropped:
            gradient = p.grad
            if gradient is None:
                p.grad = torch.zeros_like(p, requires_grad=False)
            elif gradient.requires_grad or gradient.layout is not torch.strided:
                p.grad = torch.zeros_like(p, requires_grad=False) + gradient
            else:
                found.append(gradient)
        if found:
            with torch.no_grad():
                torch._foreach_add_(found, 0.0)  # 0 + -0 is 0

    def _gone(self) -> None:
        self.fill()
        _READS.end(self)

    def take_off(self) -> None:
        self._gone()
        self.steps()
        optimizer = self.optimizer()
        if optimizer is not None:
            vars(optimizer).pop("zero_grad", None)


class _Reads:
    """Sees ``.grad`` of a parameter being read while it is dropped: from ``zero_grad`` until ``backward`` is over.

    Installed once, not for each step: every change of a class makes Python forget what it knows of all its subclasses,
    and Python 3.13 stops learning it after a thousand.

    Attributes:
        all: what is installed for; waiting: those of them that have dropped something since.
    """

    def __init__(self) -> None:
        self.all: set[_Drops] = set()
        self.waiting: set[_Drops] = set()
        self.patches = Patches()

    def begin(self, drops: _Drops) -> None:
        import torch

        self.all.add(drops)
        if len(self.all) == 1:
            plain = inspect.getattr_static(torch.Tensor, "grad")
            get = plain.__get__

            def read(tensor: Any) -> Any:
                for each in tuple(self.waiting):
                    if id(tensor) in each.dropped:
                        each.fill()
                return get(tensor)

            self.patches.set(torch.Tensor, "grad", property(read, plain.__set__, plain.__delete__, plain.__doc__))
            self.patches.set(torch.autograd, "backward", self._filling(torch.autograd.backward))

    def _filling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def backward(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            finally:
                for each in tuple(self.waiting):
                    each.fill()

        return backward

    def end(self, drops: _Drops) -> None:
        if drops in self.all:
            self.all.remove(drops)
            if not self.all:
                self.patches.undo()


_READS = _Reads()


def _references() -> int:
    """To a gradient that nobody else holds; more or fewer by the version of torch."""
    import torch

    p = torch.nn.Parameter(torch.zeros(1))
    p.grad = torch.zeros(1)
    gradient = p.grad
    return sys.getrefcount(gradient)


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

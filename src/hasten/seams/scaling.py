"""Scaling losses so that gradients in float16 do not vanish, from outside: no line of the script knows of it.

The scheme of Micikevicius et al. 2018, "Mixed Precision Training" (section 3.2), with the dynamic scale of
``torch.amp.GradScaler``: the loss is multiplied before it is differentiated, and gradients are divided again as soon as
that is done, so that clipping, logging and accumulation see true gradients. A step for which any of them came out
infinite or NaN is left out, and the scale is halved; after 2000 steps without one it is doubled.

What is divided is known beforehand: the parameters of the modules and of every optimizer that has stepped. A loss that
is differentiated for anything else (an input, for an adversarial example) is not scaled.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from hasten.core.remedy import Undo
from hasten.seams.optimizer import around_steps
from hasten.seams.patch import Patches

FIRST_SCALE = 2.0**16
GROWTH_STEPS = 2000
LOOKS = 4  # first losses whose graphs are looked through


class LossScaler:
    """One for a process: the modules whose gradients are float16 somewhere on their way.

    Attributes:
        scale: what losses are multiplied by.
        left_out: steps of optimizers that were left out.
    """

    def __init__(self) -> None:
        self.scale = FIRST_SCALE
        self.left_out = 0
        self._modules: list[weakref.ref[Any]] = []
        self._stepped: weakref.WeakSet[Any] = weakref.WeakSet()
        self._looks = LOOKS
        self._strange = 0
        self._held: list[tuple[Any, Any]] = []
        self._patches = Patches()
        self._take_off: Undo | None = None
        self._inside = False
        self._overflowed = False
        self._good_steps = 0

    def add(self, module: Any, optimizers: Iterable[Any] = ()) -> Undo:
        """Scale the losses of a module from now on, with the way back.

        Args:
            optimizers: those that have stepped already.
        """
        reference = weakref.ref(module)
        self._stepped.update(optimizers)
        if not self._modules:
            self._begin()
        self._modules.append(reference)

        def undo() -> None:
            self._modules.remove(reference)
            if not self._modules:
                self._end()

        return undo

    def _begin(self) -> None:
        import torch

        self._patches.set(torch.autograd, "backward", self._wrapped(torch.autograd.backward))
        self._patches.set(torch.Tensor, "backward", self._wrapped(torch.Tensor.backward))
        self._take_off = around_steps(self._before_step, self._after_step)

    def _end(self) -> None:
        self._patches.undo()
        if self._take_off is not None:
            self._take_off()
            self._take_off = None

    # -- differentiating -----------------------------------------------------------------------------------------

    def _wrapped(self, original: Any) -> Any:
        def backward(tensors: Any, gradients: Any = None, *args: Any, **kwargs: Any) -> None:
            name = "gradient" if "gradient" in kwargs else "grad_tensors"
            given = kwargs.pop(name, gradients)
            if self._inside:  # Tensor.backward calls torch.autograd.backward
                original(tensors, given, *args, **kwargs)
                return
            self._inside = True
            try:
                parameters = self._parameters()
                if not self._all_known(tensors, parameters):
                    original(tensors, given, *args, **kwargs)
                    return
                before = [p.grad for p in parameters]
                for p in parameters:
                    p.grad = None
                try:
                    original(tensors, self._scaled(tensors, given), *args, **kwargs)
                finally:
                    self._unscale(parameters, before)
            finally:
                self._inside = False

        backward.__wrapped__ = original  # type: ignore[attr-defined]
        return backward

    def _parameters(self) -> list[Any]:
        found = {id(p): p for r in self._modules if (m := r()) is not None for p in m.parameters()}
        found |= {id(p): p for optimizer in self._stepped for group in optimizer.param_groups for p in group["params"]}
        return [p for p in found.values() if p.requires_grad]

    def _all_known(self, tensors: Any, parameters: list[Any]) -> bool:
        """Whether a loss is a function of these alone; looked up for the first losses, and later as it was then."""
        if self._looks and self._strange < LOOKS:
            known = {id(p) for p in parameters}
            roots = list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]
            if any(id(leaf) not in known for leaf in leaves(roots)):
                self._strange += 1
                return False
            self._looks -= 1
        return self._strange < LOOKS

    def _scaled(self, tensors: Any, given: Any) -> Any:
        """What to begin with: the scale itself for a loss, or scaled where the script gives something."""
        import torch

        if isinstance(tensors, (list, tuple)):
            given = given if isinstance(given, (list, tuple)) else [given] * len(tensors)
            return [self._scaled(t, g) for t, g in zip(tensors, given, strict=True)]
        if given is not None:
            return given * self.scale
        return torch.full_like(tensors, self.scale) if tensors.numel() == 1 else None

    def _unscale(self, parameters: list[Any], before: list[Any]) -> None:
        import torch

        new = [p.grad for p in parameters if p.grad is not None and not p.grad.is_sparse]
        if new:
            found = torch.zeros((), device=new[0].device)
            inverse = torch.full((), 1 / self.scale, device=new[0].device)
            torch._amp_foreach_non_finite_check_and_unscale_(new, found, inverse)
            self._overflowed |= bool(found)
        for p, old in zip(parameters, before, strict=True):
            if old is not None:
                p.grad = old if p.grad is None else old.add_(p.grad)

    # -- stepping ------------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._stepped.add(optimizer)
        self._held = []
        if not self._overflowed:
            return
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if p.grad is not None:
                self._held.append((p, p.grad))
                p.grad = None  # an optimizer passes over parameters without gradients, its own state stays

    def _after_step(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        for p, gradient in self._held:
            p.grad = gradient
        if self._overflowed:
            self.left_out += 1
            self.scale, self._good_steps, self._overflowed = self.scale / 2, 0, False
            return
        self._good_steps += 1
        if self._good_steps == GROWTH_STEPS:
            self.scale, self._good_steps = self.scale * 2, 0


def leaves(roots: list[Any]) -> Iterator[Any]:
    """The tensors that differentiating ``roots`` accumulates gradients for."""
    seen: set[Any] = set()
    stack = [t.grad_fn for t in roots]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        stack.extend(inner for inner, _ in node.next_functions)


SCALER = LossScaler()

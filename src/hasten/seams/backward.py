"""Where a loss is differentiated."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from hasten.measure.clock import INDEX
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

BACKWARD = INDEX["backward"]
_get_frame = sys._getframe


def install(watch: Watch, patches: Patches) -> None:
    """Wrap ``Tensor.backward``, ``torch.autograd.backward`` and ``torch.autograd.grad``."""
    import torch

    patches.set(torch.Tensor, "backward", _wrapped(watch, torch.Tensor.backward, 3, counts=True))
    patches.set(torch.autograd, "backward", _wrapped(watch, torch.autograd.backward, 3, counts=True))
    patches.set(torch.autograd, "grad", _wrapped(watch, torch.autograd.grad, 4, counts=False))


def _wrapped(watch: Watch, call: Callable[..., Any], again: int, counts: bool) -> Callable[..., Any]:
    """``call``, watched; its argument number ``again`` is ``create_graph``."""
    import torch

    clock = watch.clock
    get_ident = threading.get_ident

    def backward(*args: Any, **kwargs: Any) -> Any:
        if get_ident() != clock.thread or clock.current == BACKWARD:
            return call(*args, **kwargs)
        if watch.tentative is not None and reaches(_roots(args, kwargs), watch.tentative.module()):
            watch.graph_used(watch.tentative, trains=counts)
        if not watch.differentiated_twice:
            watch.differentiated_twice = bool(kwargs.get("create_graph") or any(args[again : again + 1]))
        clock.enter(BACKWARD)
        start = clock.last
        try:
            return call(*args, **kwargs)
        finally:
            clock.leave()
            if watch.mistaken is not None:
                watch.take_back()
            if watch.keep_loss and counts and args:
                watch.loss = args[0]
            if clock.locate is not None:
                watch.anomaly = torch.is_anomaly_enabled()
                frame = clock.locate(_get_frame(1))
                clock.book((BACKWARD, frame.f_code, frame.f_lasti), clock.last - start)
            if counts:
                watch.backward_left()

    backward.__wrapped__ = call  # type: ignore[attr-defined]
    backward.__doc__ = call.__doc__
    backward.__module__ = call.__module__
    backward.__qualname__ = call.__qualname__
    backward.__name__ = getattr(call, "__name__", "backward")
    return backward


def _roots(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What is differentiated: ``tensors`` or ``outputs``, or what a method is called on."""
    return args[0] if args else kwargs.get("tensors", kwargs.get("outputs"))


def reaches(roots: Any, module: Any) -> bool:
    """Whether the graph behind tensors holds a parameter of ``module``, as far as can be seen: where the graph has no
    leaves, or nothing of the module is trained, it may."""
    import torch

    trained = {id(p) for p in module.parameters() if p.requires_grad} if module is not None else set()
    tensors = [roots] if isinstance(roots, torch.Tensor) else roots
    if not trained or not isinstance(tensors, (list, tuple)) or not all(isinstance(t, torch.Tensor) for t in tensors):
        return True
    waiting, seen, leaves = [t.grad_fn for t in tensors], {None}, 0
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if id(leaf) in trained:
            return True
        leaves += leaf is not None
        waiting.extend(following for following, _ in node.next_functions)
    return not leaves

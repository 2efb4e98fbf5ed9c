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

    patches.set(torch.Tensor, "backward", _wrapped(watch, torch.Tensor.backward, counts=True))
    patches.set(torch.autograd, "backward", _wrapped(watch, torch.autograd.backward, counts=True))
    patches.set(torch.autograd, "grad", _wrapped(watch, torch.autograd.grad, counts=False))


def _wrapped(watch: Watch, call: Callable[..., Any], counts: bool) -> Callable[..., Any]:
    import torch

    clock = watch.clock
    get_ident = threading.get_ident

    def backward(*args: Any, **kwargs: Any) -> Any:
        if get_ident() != clock.thread or clock.current == BACKWARD:
            return call(*args, **kwargs)
        if watch.tentative is not None:
            watch.graph_used(watch.tentative, trains=counts)
        clock.enter(BACKWARD)
        start = clock.last
        try:
            return call(*args, **kwargs)
        finally:
            clock.leave()
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

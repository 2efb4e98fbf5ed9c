"""Where the host waits for a tensor's value."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from hasten.measure.clock import EVALUATION, INDEX, PYTHON, timed
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

WAIT = INDEX["wait"]
_WATCHED_IN = frozenset({PYTHON, EVALUATION, INDEX["forward"], INDEX["log"]})


def only_outside(watch: Watch, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """``original``, booked to a phase where the user's own code calls it (not inside fetching, backward)."""
    clock = watch.clock
    phase = INDEX[name]
    get_ident = threading.get_ident
    get_frame = sys._getframe

    def call(*args: Any, **kwargs: Any) -> Any:
        if clock.current not in _WATCHED_IN or get_ident() != clock.thread:
            return original(*args, **kwargs)
        clock.enter(phase)
        start = clock.last
        try:
            return original(*args, **kwargs)
        finally:
            clock.leave()
            if phase == WAIT and clock.evaluating:  # a metric's value
                clock.evaluated()
            if clock.locate is not None:
                frame = clock.locate(get_frame(1))
                clock.book((phase, frame.f_code, frame.f_lasti), clock.last - start)

    call.__doc__ = original.__doc__
    call.__name__ = getattr(original, "__name__", "call")
    call.__qualname__ = getattr(original, "__qualname__", call.__name__)
    call.__module__ = getattr(original, "__module__", None) or call.__module__
    call.__wrapped__ = original  # type: ignore[attr-defined]
    return call


def install(watch: Watch, patches: Patches) -> None:
    """Wrap the explicit reads; on CUDA also the implicit ones (``float(t)``, ``if t:``)."""
    import torch

    names = ["item", "tolist", "cpu", "numpy"]
    if torch.cuda.is_available():
        names += ["__float__", "__bool__", "__int__", "__format__"]
    for name in names:
        original = getattr(torch.Tensor, name)
        patches.set(torch.Tensor, name, only_outside(watch, "wait", original))
    if torch.cuda.is_available():
        patches.set(torch.cuda, "synchronize", timed(watch.clock, "wait", torch.cuda.synchronize))

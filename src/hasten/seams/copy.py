"""Where tensors are copied between devices."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from hasten.seams.patch import Patches
from hasten.seams.wait import only_outside
from hasten.seams.watch import Watch


def install(watch: Watch, patches: Patches) -> None:
    """Wrap ``Tensor.to`` and ``Tensor.cuda``."""
    import torch

    for name in ("to", "cuda"):
        original = getattr(torch.Tensor, name)
        patches.set(torch.Tensor, name, only_outside(watch, "copy", original))


class _Pinned:
    """Copies of what loaders have pinned are asynchronous, however many loaders that was asked for.

    Host memory that the script has pinned itself may be written to again as soon as ``to`` returns: that copy waits.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.patches = Patches()
        self.tensors: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def begin(self) -> None:
        self.asked += 1
        if self.asked > 1:
            return
        import torch
        from torch.utils.data._utils import pin_memory as module

        pin, copy = module.pin_memory, torch.Tensor.to

        @functools.wraps(pin)
        def pin_memory(data: Any, device: Any = None) -> Any:
            out = pin(data, device)
            if isinstance(out, torch.Tensor):
                self.tensors[id(out)] = out
            return out

        @functools.wraps(copy)
        def to(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            if self.tensors.get(id(tensor)) is tensor and not any(type(a) is bool for a in args):
                kwargs.setdefault("non_blocking", True)  # unless it says itself, which it may without the name
            return copy(tensor, *args, **kwargs)

        self.patches.set(module, "pin_memory", pin_memory)
        self.patches.set(torch.Tensor, "to", to)

    def end(self) -> None:
        self.asked -= 1
        if not self.asked:
            self.patches.undo()


_pinned = _Pinned()


def asynchronous() -> Callable[[], None]:
    """Make ``tensor.to(device)`` of batches that loaders have pinned asynchronous; returns the way back."""
    _pinned.begin()
    return _pinned.end

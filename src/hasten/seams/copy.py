"""Where tensors are copied between devices."""

from __future__ import annotations

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


def asynchronous() -> Callable[[], None]:
    """Make ``tensor.to(device)`` of pinned host tensors asynchronous; returns the way back."""
    import torch

    original = torch.Tensor.to

    def to(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.is_cuda and self.is_pinned():
            kwargs.setdefault("non_blocking", True)
        return original(self, *args, **kwargs)

    torch.Tensor.to = to

    def undo() -> None:
        torch.Tensor.to = original

    return undo

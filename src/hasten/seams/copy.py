"""Where tensors are copied between devices."""

from __future__ import annotations

from hasten.seams.patch import Patches
from hasten.seams.wait import only_outside
from hasten.seams.watch import Watch


def install(watch: Watch, patches: Patches) -> None:
    """Wrap ``Tensor.to`` and ``Tensor.cuda``."""
    import torch

    for name in ("to", "cuda"):
        original = getattr(torch.Tensor, name)
        patches.set(torch.Tensor, name, only_outside(watch, "copy", original))

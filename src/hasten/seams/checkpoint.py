"""Where models are saved."""

from __future__ import annotations

from hasten.measure.clock import timed
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch


def install(watch: Watch, patches: Patches) -> None:
    """Wrap ``torch.save``."""
    import torch

    patches.set(torch, "save", timed(watch.clock, "checkpoint", torch.save))

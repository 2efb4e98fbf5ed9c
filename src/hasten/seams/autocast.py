"""Where the script asks for lower precision: around its model's calls, or inside of them, as Accelerate does."""

from __future__ import annotations

from typing import Any

from hasten.seams.patch import Patches, StandIn
from hasten.seams.watch import Watch


def install(watch: Watch, patches: Patches) -> None:
    """Wrap ``torch.set_autocast_enabled``, which entering ``torch.autocast`` calls."""
    import torch

    original = torch.set_autocast_enabled

    def set_autocast_enabled(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        if True in args[-1:] or True in kwargs.values():
            watch.autocast = True

    patches.set(torch, "set_autocast_enabled", StandIn(set_autocast_enabled, original))

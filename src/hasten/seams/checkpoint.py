"""Where models are saved."""

from __future__ import annotations

import sys

from hasten.measure.clock import timed
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

# What safetensors' ways to save call, by whichever name the script or a framework has them.
_WITHIN = ("serialize", "serialize_file", "_flatten", "_flatten_as_ptr")


def install(watch: Watch, patches: Patches) -> None:
    """Wrap ``torch.save``."""
    import torch

    patches.set(torch, "save", timed(watch.clock, "checkpoint", torch.save))


def libraries(watch: Watch, patches: Patches) -> None:
    """Wrap what saves in libraries that have been imported by now; each once."""
    module = sys.modules.get("safetensors.torch")
    for name in _WITHIN:
        call = getattr(module, name, None)
        if call is not None and not hasattr(call, "__wrapped__"):
            patches.set(module, name, timed(watch.clock, "checkpoint", call))

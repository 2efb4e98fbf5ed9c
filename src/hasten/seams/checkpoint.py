"""Where models are saved."""

from __future__ import annotations

import sys

from hasten.measure.clock import timed
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

# Module, class and name of what saves: of safetensors what its own ways to save call, whatever a script names these.
_SAVING = (
    *(("safetensors.torch", "", name) for name in ("serialize", "serialize_file", "_flatten", "_flatten_as_ptr")),
    ("transformers.modeling_utils", "PreTrainedModel", "save_pretrained"),
)


def install(watch: Watch, patches: Patches) -> None:
    """Wrap ``torch.save``."""
    import torch

    patches.set(torch, "save", timed(watch.clock, "checkpoint", torch.save))


def libraries(watch: Watch, patches: Patches) -> None:
    """Wrap what saves in libraries that have been imported by now; each once."""
    for module, kind, name in _SAVING:
        owner = getattr(sys.modules.get(module), kind, None) if kind else sys.modules.get(module)
        call = getattr(owner, name, None)
        if call is not None and not hasattr(call, "of_hasten"):
            saves = timed(watch.clock, "checkpoint", call)
            saves.of_hasten = True  # type: ignore[attr-defined]
            patches.set(owner, name, saves)

"""What a script calls its modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from hasten.seams.locate import variables
from hasten.seams.state import Snapshot
from hasten.seams.watch import Watch


def names_of(watch: Watch, modules: Sequence[Any]) -> Iterator[str]:
    """A name for each, as ``model.backbone``: by the script's variables, whose frames must be there, else by the class
    of the model that it lies in."""
    import torch

    held = [(n, value) for n, value in variables(sys._getframe()) if issubclass(type(value), torch.nn.Module)]
    wanted = {id(m) for m in modules}
    for name, top in (*held, *((type(m).__name__, m) for m in Snapshot.of(watch).models)):
        for path, module in top.named_modules():
            if id(module) in wanted:
                wanted.discard(id(module))
                yield f"{name}.{path}" if path else name

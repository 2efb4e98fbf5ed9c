"""hasten's seams in the bench's own process: put in as under ``hasten run``, or taken out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch.optim import optimizer as torch_optimizer

from hasten.boot.agent import Session


def watched(folder: Path, config: dict[str, Any]) -> Session:
    """A session of this process, its seams installed."""
    session = Session(folder, config, time.perf_counter_ns())
    session.install()
    return session


def take_out(session: Session) -> None:
    """Leave torch as if hasten had never been there."""
    session.watch.sampler.stop()
    session.watch.at_step = None
    session.forward.release()
    session.close.undo()
    session.patches.undo()
    torch_optimizer._global_optimizer_pre_hooks.clear()
    torch_optimizer._global_optimizer_post_hooks.clear()

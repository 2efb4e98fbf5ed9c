"""hasten's seams in the bench's own process: put in as under ``hasten run``, and taken out between two steps."""

from __future__ import annotations

import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch.optim import optimizer as torch_optimizer

from hasten.boot.agent import Session
from hasten.seams import patch
from hasten.seams.window import HERTZ_AFTER


def watched(folder: Path, config: dict[str, Any]) -> Session:
    """A session of this process, its seams installed."""
    session = Session(folder, config, time.perf_counter_ns())
    session.install()
    return session


class Toggle:
    """hasten's wrappers, hooks and sampler of this process, on or off.

    Attributes:
        on: whether they are in.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.on = True
        patches = [session.patches, *session.forward._classes.values()]
        self._old = [entry for p in patches for entry in p._old]
        self._new = [(owner, name, vars(owner)[name]) for owner, name, _ in self._old]
        self._hooks = [
            (hooks, OrderedDict(hooks))
            for hooks in (
                torch_optimizer._global_optimizer_pre_hooks,
                torch_optimizer._global_optimizer_post_hooks,
            )
        ]

    def set(self, on: bool) -> None:
        """Put everything in, or take it out."""
        if on is self.on:
            return
        self.on = on
        for owner, name, value in self._new if on else reversed(self._old):
            if value is patch._MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        for hooks, content in self._hooks:
            hooks.clear()
            hooks.update(content if on else {})
        sampler, clock = self.session.watch.sampler, self.session.watch.clock
        if on:
            clock.stack.clear()
            clock.pause_until(clock.now())
            sampler.start(HERTZ_AFTER)
        else:
            sampler.stop()

"""Starts the watch inside the user's process and sees to it that what was measured is written, whatever happens.

Whatever fails here is said in one line on stderr; the script goes on as if hasten were not there.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hasten.core.codec import encode
from hasten.core.plan import write_atomically
from hasten.core.remedy import Seam
from hasten.seams import autocast, backward, checkpoint, copy, forward, loader, log, optimizer, tracebacks, wait
from hasten.seams.apply import Switchboard
from hasten.seams.forward import ForwardSeam
from hasten.seams.guard import guarded, mute, remember_stderr
from hasten.seams.launch import WAITING
from hasten.seams.locate import is_users, show_from
from hasten.seams.patch import Patches, StandIn
from hasten.seams.watch import Watch


class Session:
    """One watched process.

    Attributes:
        config: what the command line asked for (see :mod:`hasten.seams.launch`).
        watch, forward, switchboard: the seams of this process.
        patches: what is replaced in torch for good.
        close: what is replaced for the close look only: the calls that every step makes.
    """

    def __init__(self, folder: Path, config: dict[str, Any], torch_started: int) -> None:
        self.folder = folder
        self.config = config
        self.pid = os.getpid()
        self.cwd = config.get("cwd") or "."  # where the command was typed, wherever the script has gone since
        self.begun = time.time() - (time.perf_counter_ns() - torch_started) / 1e9  # seconds since the epoch
        self.watch = Watch(folder=str(folder))
        self.watch.torch_started = torch_started
        self.watch.torch_imported = time.perf_counter_ns()
        self.patches = Patches()
        self.close = Patches()
        self.forward: ForwardSeam
        self.switchboard: Switchboard
        self.finish: Callable[[str], None] | None = None
        self.ended = ""
        self.forked = False
        self._finished = False

    def install(self) -> None:
        watch, patches = self.watch, self.patches
        for seam in (optimizer, backward, wait, copy, checkpoint, log, autocast):
            seam.install(watch, self.close)
        loader.install(watch, patches)
        self.forward = forward.install(watch, patches)
        self.switchboard = Switchboard(watch, self.forward)
        atexit.register(self.end, "finished")
        os.register_at_fork(after_in_child=self._forked)
        tracebacks.install(patches)
        _hook_exit(self)

    def lighten(self) -> None:
        """End the close look at the phases of a step; called between two steps.

        What the plan needs stays: new loaders, fetchers and optimizers get their remedies, and so do models where a
        remedy is theirs or is entered around their calls.
        """
        if self.watch.clock_name == "backward":
            return  # the wrappers tell where a step ends
        self.close.undo()
        if not any(r.seam is Seam.MODEL for r in self.switchboard.active) and not self.forward.around:
            self.forward.release()
        self.watch.lighten()

    def holds_back(self, call: Callable[[], object]) -> bool:
        """Whether something that was to be done at every fork is the script's: not done when hasten forks."""
        code = getattr(call, "__code__", None)
        return self.watch.forking and code is not None and is_users(code.co_filename)

    def _forked(self) -> None:
        if self.watch.forking:
            return
        self.watch.sampler.forget()
        if self.watch.steps or self.watch.backwards:  # the script's own fork, a loader's worker: nothing of ours there
            self._finished = True
            self.watch.at_step = None
        else:  # it may be what trains
            self.pid = os.getpid()
            self.forked = True

    def write(self, name: str, value: Any) -> None:
        """One JSON file into the session's folder, whole or not at all; not once the command line has gone with it."""
        if self.folder.is_dir():
            write_atomically(self.folder / f"{name}-{self.pid}.json", json.dumps(encode(value)))

    def end(self, how: str) -> None:
        """Write the final trace, once."""
        if self._finished or os.getpid() != self.pid or self.watch.driver is not None:
            return
        self._finished = True
        if self.forked and not (self.watch.steps or self.watch.backwards):
            return
        self.watch.catch_up()
        failed = getattr(sys, "last_type", None)  # what ended the script, as the interpreter notes it
        if failed is not None:
            steps = self.watch.steps  # in the next one, or behind the loop
            how = f"{failed.__name__} after {steps} step{'' if steps == 1 else 's'}"
        self.ended = self.ended or how
        self.watch.sampler.stop()
        if self.finish is not None:
            guarded(self, lambda: self.finish(self.ended))  # type: ignore[misc]
        self.watch.sampler.stop()  # closing the window starts it again; a signal after Python's handlers are gone kills


def _hook_exit(session: Session) -> None:
    original = os._exit

    def _exit(status: int) -> None:
        session.end("os._exit")
        original(status)

    session.patches.set(os, "_exit", StandIn(_exit, original))


def _begin_trial(session: Session, path: Path) -> None:
    """In a throw-away process: do what it was begun for."""
    order = json.loads(path.read_text(encoding="utf-8"))
    if "look" in order:
        from hasten.data.probe import probe
        from hasten.seams import look

        look.begin(session, order, path.parent, probe)
    else:
        from hasten.run import throwaway

        throwaway.begin(session, order, path.parent)


def start(torch_started: int, at_fork: Any = None) -> None:
    """Called right after torch was imported in a process under hasten.

    Args:
        at_fork: what asks ``at_fork.holds_back(call)`` before doing what the script has registered for forks.
    """
    folder = Path(os.environ["HASTEN_SESSION"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / WAITING).unlink(missing_ok=True)
    remember_stderr(config["stderr"])
    mute(config["quiet"])
    show_from(config["cwd"])
    session = Session(folder, config, torch_started)
    session.install()
    if at_fork is not None:
        at_fork.holds_back = session.holds_back
    trial = os.environ.get("HASTEN_TRIAL")
    if trial:
        _begin_trial(session, Path(trial))
        return
    if config["mode"] == "run":
        from hasten.run.inside import begin
    else:
        from hasten.explain.inside import begin
    begin(session)

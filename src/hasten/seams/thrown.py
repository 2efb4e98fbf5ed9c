"""Throw-away processes: the script's own command from its start, harmless, for as long as it is of use.

They stand in for forked children where forking is not safe. What drives such a process is begun in it by
:mod:`hasten.boot.agent`, once torch is there, with the order that it was started with; it reports down a line as a
forked child does. Every process is given the same seeds, so that also scripts that set none can be compared.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hasten.seams import fork
from hasten.seams.isolate import folder_in
from hasten.seams.sources import own_modules
from hasten.seams.watch import Watch

SEED = 2026
INPUT_GONE = "the script reads its input: what came through a pipe, or was typed, cannot be read again"
_READS = re.compile(r"\bsys\.stdin\b|\bimport stdin\b|/dev/stdin|\bfileinput\b|(?<![\w.])input\(")
START_SECONDS = 60.0  # a process may take this long to reach its first step, beyond what the script itself took


@dataclass(frozen=True)
class Command:
    """How the script is begun anew.

    Attributes:
        cwd: the folder it was begun in.
        start_seconds: what it took until its first step.
        folder: the session's, with which all goes that the processes leave, however the script ends.
        why_not: why it would not do then what it has done; empty where it would.
    """

    cwd: str
    start_seconds: float
    argv: list[str] = field(default_factory=lambda: list(sys.orig_argv))
    folder: str = ""
    why_not: str = ""

    @classmethod
    def of(cls, watch: Watch, cwd: str) -> Command:
        """The command of this process."""
        seconds = max(1.0, (watch.first_step - watch.torch_started) / 1e9)
        return cls(cwd, seconds, folder=watch.folder, why_not=INPUT_GONE if _input_is_gone() else "")

    @contextmanager
    def begun(
        self, order: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> Iterator[tuple[fork.Child, str]]:
        """The process and its folder; both are gone at the end.

        Args:
            order: what its driver is to do, as JSON values.
            environment: what else it is started with.
        """
        folder = folder_in(self.folder, "trial-")
        near, far = socket.socketpair()
        given = _input()
        try:
            path = os.path.join(folder, "order.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump({**order, "line": far.fileno()}, file)
            process = subprocess.Popen(
                self.argv,
                cwd=self.cwd,
                env={
                    "PYTHONHASHSEED": str(SEED),
                    **os.environ,
                    "HASTEN_TRIAL": path,
                    "HASTEN_CACHE_DIR": folder,
                    **(environment or {}),
                },
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("HASTEN_DEBUG") else subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(far.fileno(),),
            )
            far.close()
            child = fork.adopt(process.pid, near)
            try:
                yield child, folder
            finally:
                child.kill()
                process.returncode = process.returncode or -9  # it has been waited for
        finally:
            far.close()
            near.close()
            if given >= 0:
                os.close(given)
            shutil.rmtree(folder, ignore_errors=True)

    def limit(self, seconds: float) -> float:
        """How long a process may take that needs ``seconds`` after its first step."""
        return 2 * self.start_seconds + START_SECONDS + 5 * seconds


def _input() -> int:
    """A file that this process was given as its input, from the file's beginning; else nothing."""
    try:
        if stat.S_ISREG(os.fstat(0).st_mode):
            return os.open("/proc/self/fd/0", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        pass
    return subprocess.DEVNULL


def _input_is_gone() -> bool:
    """Whether the script, or a module of the user's, reads an input that can be read only once."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(0)):
        return False
    return any(_READS.search(_text(path)) for path in own_modules("/", math.inf, script=True))


def _text(path: str) -> str:
    try:
        with open(os.path.join("/", path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def await_end(child: fork.Child, seconds: float, silent: float) -> None:
    """Until the process says that it is done, is gone, or the time is up, or it says nothing for so many seconds behind
    the script's last step."""
    end = time.monotonic() + seconds
    while not child.ended and not child.is_over(silent) and time.monotonic() < end:
        if any(row[0] == fork.DONE for row in child.rows(0.5)):
            return


def sender(order: Mapping[str, Any]) -> fork.Sender:
    """In such a process: its line to whoever began it."""
    return fork.Sender(socket.socket(fileno=order["line"]))


def reseed(seed: int = SEED) -> None:
    """Set all random states, of devices, too."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)

"""Running the user's script as ``python SCRIPT`` does, with the boot folder on PYTHONPATH."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hasten.core.errors import UsageError

BOOT = Path(__file__).parent.parent / "boot" / "site"
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def session_folder(config: dict[str, Any]) -> Iterator[Path]:
    """A private folder with ``config.json``, through which the watched process and the command line talk."""
    folder = Path(tempfile.mkdtemp(prefix="hasten-"))
    try:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command(script: str, args: list[str], module: bool) -> list[str]:
    """The command line of the script itself.

    Raises:
        UsageError: there is no such script.
    """
    if module:
        return [sys.executable, "-m", script, *args]
    if not os.path.exists(script):
        raise UsageError(
            f"there is no file {script!r}",
            "a typing error, or the command was meant for another folder",
            "give the path of the training script as for `python SCRIPT`; for a module use -m MODULE",
        )
    return [sys.executable, script, *args]


def environment(folder: Path) -> dict[str, str]:
    """The script's environment: the user's own, plus the boot folder first on PYTHONPATH."""
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join([str(BOOT), *filter(None, [env.get("PYTHONPATH")])])
    env["HASTEN_SESSION"] = str(folder)
    return env


def run(argv: list[str], folder: Path, stdout: Any = None, started: Callable[[int], None] | None = None) -> int:
    """Run the script to its end in the foreground: same stdin, stdout, stderr, cwd, signals.

    Returns:
        its return code, negative for a signal (as :mod:`subprocess` has it).
    """
    old = {}
    process = subprocess.Popen(argv, env=environment(folder), stdout=stdout)
    if started is not None:
        started(process.pid)
    try:
        old[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the script, too
        for number in _FORWARDED:
            old[number] = signal.signal(number, lambda n, _f: process.send_signal(n))
    except ValueError:  # not the main thread (the Python API): signals stay as they are
        pass
    try:
        return process.wait()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def leave_as(code: int) -> int:
    """End this process as the script ended: by the same signal, or with the same exit code."""
    if code < 0:
        try:
            signal.signal(-code, signal.SIG_DFL)
        except OSError:  # SIGKILL and SIGSTOP have no handler to reset
            pass
        os.kill(os.getpid(), -code)
    return code

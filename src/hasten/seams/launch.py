"""Running the user's script as ``python SCRIPT`` does, with the boot folder on PYTHONPATH."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hasten.core.errors import HastenError, UsageError
from hasten.measure import machine
from hasten.seams.isolate import folder_in, roomy_folder
from hasten.seams.silent import silent_fork

BOOT = Path(__file__).parent.parent / "boot" / "site"
PREFIX = "hasten-"
WAITING = "torch-not-imported"  # a file that the watched process removes, which works on a full disk, too
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_HEARD_SECONDS = 0.3  # a signal to the whole process group reaches the listener within this
_NEWBORN_SECONDS = 60.0  # a folder younger than this may not be locked yet


@contextmanager
def session_folder(config: dict[str, Any]) -> Iterator[Path]:
    """A private folder with ``config.json``, through which the watched process and the command line talk. What
    children need lies in it, too, so it all goes at once."""
    remove_stale()
    folder, lock = _made({**config, "cwd": _here(), "stderr": leads_to(2)})
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(config: dict[str, Any]) -> tuple[Path, int]:
    """The folder with its file, and a descriptor that locks it until this process is gone, however it goes.

    Raises:
        HastenError: there is no room for it.
    """
    try:
        folder = Path(folder_in("", PREFIX))
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_SH)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / WAITING).touch()
    except OSError as error:
        raise HastenError(
            f"cannot keep what is measured: {error.strerror or error} ({error.filename or 'no temporary folder'})",
            "the disk of the temporary folder is full or read-only; the script was not run",
            "TMPDIR=FOLDER hasten …, with a folder that has room",
        ) from None
    return folder, lock


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def leads_to(descriptor: int) -> list[int] | None:
    """What a descriptor leads to: device and inode; None where it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return [status.st_dev, status.st_ino]


def remove_stale() -> None:
    """Remove this user's session folders whose command line was killed and could not do it."""
    for path in Path(roomy_folder()).glob(f"{PREFIX}*"):
        try:
            status = path.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _NEWBORN_SECONDS:
                continue
            if not (path / "config.json").is_file():
                continue
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:  # in use
            pass
        finally:
            os.close(lock)


def command(script: str, args: Sequence[str], module: bool) -> list[str]:
    """The command line of the script itself.

    Raises:
        UsageError: there is no such script, it is a folder that does not run, or its arguments are one text.
    """
    if isinstance(args, str):
        raise UsageError(f"args={args!r} is one text", "a shell would take it apart", f"args={args.split()}")
    if module:
        return [sys.executable, "-m", script, *args]
    if not os.path.exists(script):
        raise UsageError(
            f"there is no file {script!r}",
            "a typing error, or the command was meant for another folder",
            "give the path of the training script as for `python SCRIPT`; for a module use -m MODULE",
        )
    if os.path.isdir(script) and not any(Path(script).glob("__main__.py*")):
        raise UsageError(
            f"{script} is a folder without a __main__.py",
            "the script's name is missing",
            f"the script in it: {os.path.join(script, 'train.py')}",
        )
    dashes = ["--"] if script.startswith("-") else []
    return [sys.executable, *dashes, script, *args]


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The script's environment: the user's own, ``more``, and the boot folder first on PYTHONPATH."""
    env = {**os.environ, **(more or {})}
    env["PYTHONPATH"] = os.pathsep.join([str(BOOT), *filter(None, [env.get("PYTHONPATH")])])
    env["HASTEN_SESSION"] = str(folder)
    return env


def run(
    argv: list[str],
    folder: Path,
    stdout: Any = None,
    started: Callable[[int], None] | None = None,
    more: Mapping[str, str] | None = None,
) -> int:
    """Run the script to its end in the foreground: same stdin, stdout, stderr, cwd, signals. If this process is
    killed, so is the script.

    Returns:
        its return code, negative for a signal (as :mod:`subprocess` has it).
    """
    signals = Signals() if threading.current_thread() is threading.main_thread() else None
    try:
        env = environment(folder, more)
        # Descriptors that the shell has opened (3<file, <(command)) are the script's; all of ours close by themselves.
        process = subprocess.Popen(argv, env=env, stdout=stdout, close_fds=False, preexec_fn=_die_with(os.getpid()))
        if signals is not None:
            signals.attach(process)
        if started is not None:
            started(process.pid)
        return process.wait()
    finally:
        if signals is not None:
            signals.close()


def _die_with(parent: int) -> Callable[[], None]:
    def die_with() -> None:
        machine.die_with_parent()
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return die_with


class Signals:
    """Passes a signal on to the script unless the script has got it, too: a terminal's Ctrl-C, or a batch system that
    signals every process, must not count twice.

    Which of both it was is heard by a process that does nothing but listen in the same process group. One signal is
    passed on at a time: who came meanwhile would read what the first waits for, which then waits for ever.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[Any] | None = None
        self.early: list[int] = []
        self.told = b""
        self.arrived: list[int] = []
        self.busy = False
        ignored = [n for n in _PASSED_ON if signal.getsignal(n) is signal.SIG_IGN]  # as with nohup: so it stays
        passed_on = frozenset(_PASSED_ON).difference(ignored)
        self.listener, self.heard = _listener(passed_on)
        self.old = {number: signal.signal(number, self._handle) for number in passed_on}

    def _handle(self, number: int, _frame: Any) -> None:
        self.arrived.append(number)
        while self.arrived and not self.busy:
            self.busy = True
            try:
                self._pass_on(self.arrived.pop(0))
            finally:
                self.busy = False

    def _pass_on(self, number: int) -> None:
        end = time.monotonic() + _HEARD_SECONDS
        while bytes([number]) not in self.told:
            left = max(0.0, end - time.monotonic())
            part = os.read(self.heard, 64) if select.select([self.heard], [], [], left)[0] else b""
            if not part:
                self._send(number)
                return
            self.told += part
        self.told = self.told.replace(bytes([number]), b"")

    def _send(self, number: int) -> None:
        if self.process is None:
            self.early.append(number)
        else:
            self.process.send_signal(number)

    def attach(self, process: subprocess.Popen[Any]) -> None:
        """The script has started; it gets what came before."""
        self.process = process
        while self.early:
            self._send(self.early.pop(0))

    def close(self) -> None:
        """Signals are this process's own again."""
        for number, handler in self.old.items():
            signal.signal(number, handler)
        os.kill(self.listener, signal.SIGKILL)
        os.waitpid(self.listener, 0)
        os.close(self.heard)


def _listener(numbers: frozenset[int]) -> tuple[int, int]:
    """A process that writes the number of every such signal it gets into a pipe: its id, and the pipe's end."""
    heard, tell = os.pipe()
    here = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    pid = silent_fork()
    if pid:
        os.close(tell)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return pid, heard
    try:
        _die_with(here)()
        while True:
            os.write(tell, bytes([signal.sigwait(numbers)]))
    finally:
        os._exit(0)


def leave_as(code: int) -> int:
    """End this process as the script ended: by the same signal, or with the same exit code."""
    if code < 0:
        try:
            signal.signal(-code, signal.SIG_DFL)
        except OSError:  # SIGKILL and SIGSTOP have no handler to reset
            pass
        os.kill(os.getpid(), -code)
    return code

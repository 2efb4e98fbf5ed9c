"""Hasten's own failures are one line; the script goes on, and does not notice how long hasten took."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from hasten.seams import fork
from hasten.seams.launch import leads_to
from hasten.seams.watch import Departed, Watch

# Signals that can wait until hasten is done; at any other one it stops what it is doing.
_PATIENT = frozenset({signal.SIGCHLD, signal.SIGALRM, signal.SIGWINCH, signal.SIGURG, signal.SIGCONT})
_LEAST_DESCRIPTOR = 200  # so that the script's own files get the numbers they always get
_stderr = 2
muted = False  # whether progress is kept to itself


class Interrupted(BaseException):
    """A signal that the script handles has come while hasten was at work."""


def guarded(session: Any, call: Callable[[], None]) -> None:
    """Run hasten's own work; a failure is one line and the end of hasten's part.

    Signals that the script handles end the work early; the script's own handlers are called after it.
    """
    quiet = Undisturbed(session.watch.sampler.SIGNAL)
    try:
        try:
            quiet.begin()
            call()
        except Departed:
            quiet.departed = True
            raise
        except Exception as error:
            failed(session.watch, error)
        finally:
            quiet.end()
    except Interrupted:
        _give_up(session.watch)
    quiet.deliver()


def failed(watch: Watch, error: Exception) -> None:
    """Say what went wrong, called where it is caught, and do nothing more between the script's steps."""
    _give_up(watch)
    if os.environ.get("HASTEN_DEBUG"):
        traceback.print_exc()
    say(f"stopped watching ({type(error).__name__}: {error}); the script goes on without it")


def _give_up(watch: Watch) -> None:
    watch.at_step = None
    watch.sampler.stop()


class Undisturbed:
    """Keeps the script's signal handlers, timers and warnings out of hasten's work, and hasten's out of the script's.

    The script's interval timer stands still meanwhile. Children that were not ended are ended.

    Args:
        sampling: the signal that stays as it is.
    """

    def __init__(self, sampling: int | None) -> None:
        self.sampling = sampling
        self.departed = False
        self.active = False
        self.pending: list[int] = []
        self.handlers: dict[int, Any] = {}
        self.timer = (0.0, 0.0)
        self.silent = ("ignore", None, Warning, None, 0)

    def begin(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        # Inserted by hand: the module's own functions would make it forget which warnings were shown already.
        warnings.filters.insert(0, self.silent)  # type: ignore[attr-defined]
        self.timer = signal.setitimer(signal.ITIMER_REAL, 0)
        self.active = True
        for number in signal.valid_signals() - {self.sampling}:
            handler = signal.getsignal(number)
            if callable(handler):
                self.handlers[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: Any) -> None:
        urgent = number not in _PATIENT and all(n in _PATIENT for n in self.pending)
        self.pending.append(number)
        if urgent and self.active:
            raise Interrupted

    def end(self) -> None:
        """Everything is the script's again, except in a child, whose signals and timers are its own."""
        self.active = False
        warnings.filters[:] = [f for f in warnings.filters if f is not self.silent]  # type: ignore[index]
        if self.departed:
            return
        fork.reap()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if self.timer[0]:
            signal.setitimer(signal.ITIMER_REAL, *self.timer)

    def deliver(self) -> None:
        """Have the script's handlers called for what came meanwhile."""
        for number in dict.fromkeys(self.pending):
            if number != signal.SIGCHLD or _someone_ended():
                signal.raise_signal(number)


def _someone_ended() -> bool:
    """Whether a child of the script's own has ended."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except OSError:
        return False


def remember_stderr(ours: Sequence[int] | None) -> None:
    """Keep today's stderr for hasten's own words: the script may lead its descriptor elsewhere.

    Args:
        ours: where the command line's own stderr leads, see :func:`hasten.seams.launch.leads_to`. One that leads
            elsewhere is read by the script, which started this program; nothing is said there.
    """
    global _stderr
    try:
        _stderr = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, _LEAST_DESCRIPTOR)
    except OSError as error:
        _stderr = -1 if error.errno == errno.EBADF else 2
    if _stderr >= 0 and leads_to(_stderr) != ours:
        _stderr = -1


def mute(quiet: bool) -> None:
    """Keep progress to itself, or tell it; failures are said in any case."""
    global muted
    muted = quiet


def tell(text: str) -> None:
    """One line of progress on stderr."""
    if not muted:
        say(text)


def say(text: str) -> None:
    """One line of hasten's own on stderr."""
    pipe = {signal.SIGPIPE}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, pipe)
    try:
        os.write(_stderr, f"hasten: {text}\n".encode(errors="backslashreplace"))
    except OSError:
        while signal.SIGPIPE in signal.sigpending() and signal.SIGPIPE not in blocked:
            signal.sigtimedwait(pipe, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

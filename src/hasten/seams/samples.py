"""What the training thread does, looked at by a timer: which line of the user's, in which phase, in whose library."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import resource
import signal
import sys
import threading
from types import CodeType, FrameType

from hasten.core import OURS
from hasten.core.facts import Place
from hasten.core.trace import RECOMPUTE
from hasten.measure.clock import CHECKPOINT, EVALUATION, INDEX, PhaseClock
from hasten.seams.locate import is_users, line_of, place_of_line

LEAST_FAULTS = 2000  # page faults that must be seen before a line is blamed for most of them

# What a library's frame is busy with, by a piece of its path; the first match from the inside out counts, but for what
# is done for the sake of those in _WHOLE.
_WORK = (
    (f"PIL{os.sep}Image.py", "transform"),
    (f"{os.sep}PIL{os.sep}", "decode"),
    (f"torchvision{os.sep}io", "decode"),
    (f"torchvision{os.sep}transforms", "transform"),
    (f"{os.sep}albumentations{os.sep}", "transform"),
    (f"{os.sep}imageio{os.sep}", "decode"),
    (f"{os.sep}cv2{os.sep}", "transform"),
    (f"{os.sep}h5py{os.sep}", "read"),
    (f"numpy{os.sep}lib{os.sep}_npyio", "read"),
    (f"numpy{os.sep}lib{os.sep}npyio", "read"),
    (f"{os.sep}pandas{os.sep}", "table"),
    (f"_utils{os.sep}collate.py", "collate"),
    (f"_utils{os.sep}pin_memory.py", "pin memory"),
    (f"multiprocessing{os.sep}", "wait for workers"),
    (f"{os.sep}selectors.py", "wait for workers"),
    (f"{os.sep}tqdm{os.sep}", "progress bar"),
    (f"{os.sep}matplotlib{os.sep}", "plot"),
    (f"{os.sep}sklearn{os.sep}metrics{os.sep}", "metric"),
    (f"{os.sep}tensorboard", "log"),
    (f"{os.sep}logging{os.sep}", "log"),
    (f"torch{os.sep}optim{os.sep}lr_scheduler", "schedule"),
)
# Whoever has called one of these (a progress bar around a loader, a schedule around an optimizer's step) is not what it
# is busy with.
_OWN = (f"utils{os.sep}data{os.sep}dataloader.py", f"torch{os.sep}optim{os.sep}optimizer.py")
# PIL's Image.py holds pixel operations; decoding happens lazily in these functions of it.
_PIL_DECODE = frozenset({"open", "load", "frombytes", "_decode"})
_WHOLE = frozenset({"encode", "plot"})
_CHECKPOINT = f"torch{os.sep}utils{os.sep}checkpoint.py"  # runs a model's own code once more, inside of backward


@functools.cache
def _work(filename: str, function: str) -> str:
    for piece, kind in _WORK:
        if piece in filename:
            if "PIL" in piece and function == "save":
                return "encode"
            if kind == "transform" and "PIL" in piece and function in _PIL_DECODE:
                return "decode"
            return kind
    return ""


_BACKWARD = INDEX["backward"]
_MODEL = (INDEX["forward"], _BACKWARD)
SampleKey = tuple[int, CodeType, int, str, str]
_LIBC = ctypes.CDLL(None, use_errno=True)


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("tid", ctypes.c_int),
        ("pad", ctypes.c_char * 48),
    )


class _TimerSpec(ctypes.Structure):
    _fields_ = tuple((n, ctypes.c_long) for n in ("every_s", "every_ns", "first_s", "first_ns"))


class Sampler:
    """Samples the training thread's stack by a POSIX timer whose signal only the main thread receives.

    A signal costs the sample itself; a sampling thread would add the hand-over of the interpreter lock (measured 4 %
    of a 2 ms step at 100 Hz). Python delays the handler until a running C call returns, so a sample carries the time
    since the one before as its weight.

    The signal is SIGURG: where its handler is taken away (by a framework that puts handlers back as they were, or at
    the interpreter's end), the system ignores it. A script that handles SIGURG itself is not sampled.

    Attributes:
        seconds: weight by (phase, user's code, line, kind of library work, function called there), of steps that have
            ended: what comes after the last one is no part of any.
        pending: the same of the step that runs.
        tail: the same since the last sign of an evaluation, which may be over.
        faults: page faults by (phase, user's code, line), of the time before each sample of a line.
    """

    SIGNAL = getattr(signal, "SIGURG", None)

    def __init__(self, clock: PhaseClock) -> None:
        self.clock = clock
        self.seconds: dict[SampleKey, float] = {}
        self.pending: dict[SampleKey, float] = {}
        self.tail: dict[SampleKey, float] = {}
        self.faults: dict[tuple[int, CodeType, int], int] = {}
        self._faulted = 0
        self._step = clock.spent  # another list in every step
        self.samples = 0
        clock.settle = self._settle
        self._timer: ctypes.c_void_p | None = None
        self._last = 0

    def start(self, hertz: float) -> bool:
        """Start, or change the rate; False where this system or thread does not allow it."""
        self.stop()
        if self.SIGNAL is None or not hasattr(_LIBC, "timer_create"):
            return False
        if signal.getsignal(self.SIGNAL) not in (signal.SIG_DFL, self._sample):
            return False
        try:
            signal.signal(self.SIGNAL, self._sample)
            signal.siginterrupt(self.SIGNAL, False)
        except ValueError:  # not the main thread
            return False
        timer = ctypes.c_void_p()
        event = _SigEvent(signo=int(self.SIGNAL), notify=4, tid=os.getpid())  # SIGEV_THREAD_ID, main thread
        if _LIBC.timer_create(1, ctypes.byref(event), ctypes.byref(timer)) != 0:
            return False
        every = int(1e9 / hertz)
        spec = _TimerSpec(every // 10**9, every % 10**9, every // 10**9, every % 10**9)
        _LIBC.timer_settime(timer, 0, ctypes.byref(spec), None)
        self._timer = timer
        self.skip()
        return True

    def stop(self) -> None:
        if self._timer is not None:
            _LIBC.timer_delete(self._timer)
            self._timer = None

    @property
    def running(self) -> bool:
        return self._timer is not None

    def forget(self) -> None:
        """In a forked child: timers are not inherited."""
        self._timer = None

    def skip(self) -> None:
        """Give the time since the last sample to nobody."""
        self._last = self.clock.now()
        self._faulted = resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def faulting(self) -> tuple[float, Place | None]:
        """The share of the page faults that came in forward and backward, and the line outside of them with more than
        half of all; NaN and None where too few were seen."""
        seen = sum(self.faults.values())
        if seen < LEAST_FAULTS:
            return math.nan, None
        lines: dict[tuple[CodeType, int], int] = {}
        for (phase, code, line), count in self.faults.items():
            if phase not in _MODEL and is_users(code.co_filename):
                lines[code, line] = lines.get((code, line), 0) + count
        worst = max(lines, key=lambda x: lines[x], default=None)
        model = sum(count for (phase, _, _), count in self.faults.items() if phase in _MODEL) / seen
        return model, place_of_line(*worst) if worst is not None and lines[worst] > seen / 2 else None

    def _settle(self, of_evaluation: bool) -> None:
        """What the tail was is known now."""
        tail, self.tail = self.tail, {}
        for key, weight in tail.items():
            if of_evaluation and key[0] != CHECKPOINT:
                key = (EVALUATION, *key[1:])
            self.pending[key] = self.pending.get(key, 0.0) + weight

    def move(self, source: int, target: int, but: tuple[CodeType, int] | None = None) -> None:
        """Re-book what the running step has spent in a phase, found later to be another's, ``but`` for a line's."""
        self._turn()
        spared = (but[0], line_of(*but)) if but is not None else None
        for key in list(self.pending):  # a copy, made at once: a sample may come in between
            if key[0] == source and key[1:3] != spared:
                weight, moved = self.pending.pop(key, 0.0), (target, *key[1:])
                self.pending[moved] = self.pending.get(moved, 0.0) + weight

    def take(self) -> dict[SampleKey, float]:
        """The weights of the steps that have ended; counting starts anew."""
        self._turn()
        taken, self.seconds = self.seconds, {}
        return taken

    def _turn(self) -> None:
        """Book what is pending where its step has ended."""
        if self._step is not self.clock.spent:
            self._step = self.clock.spent
            ended, self.pending = self.pending, {}  # at once: a sample may come in between
            for key, weight in ended.items():
                self.seconds[key] = self.seconds.get(key, 0.0) + weight

    def _sample(self, _signal: int, frame: FrameType | None) -> None:
        if self._timer is None:
            return
        clock = self.clock
        now = clock.now()
        weight, self._last = (now - self._last) / 1e9, now
        if clock.thread != _MAIN_IDENT:
            frame = sys._current_frames().get(clock.thread)
        if frame is None:
            return
        key = self._key(frame)
        if key is not None:
            self._turn()
            seconds = self.tail if clock.evaluating else self.pending
            seconds[key] = seconds.get(key, 0.0) + weight
            self.samples += 1
            faulted = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            self.faults[key[:3]] = self.faults.get(key[:3], 0) + faulted - self._faulted
            self._faulted = faulted

    def _key(self, frame: FrameType) -> SampleKey | None:
        kind = callee = ""
        own = False
        at: FrameType | None = frame
        while at is not None:
            code = at.f_code
            filename = code.co_filename
            if is_users(filename):
                if self.clock.current == _BACKWARD and _is_called_by(at, _CHECKPOINT):
                    kind = RECOMPUTE
                return (self.clock.current, code, at.f_lineno or code.co_firstlineno, kind, callee)
            if filename.startswith(OURS):
                if code.co_name in ("boundary", "_sample"):
                    return None
            else:
                callee = code.co_name
                work = "" if own else _work(filename, code.co_name)
                kind = work if work in _WHOLE else kind or work
                own = own or filename.endswith(_OWN)
            at = at.f_back
        return (self.clock.current, frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno, kind, callee)


def _is_called_by(frame: FrameType | None, path: str) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith(path):
            return True
        frame = frame.f_back
    return False


_MAIN_IDENT = threading.main_thread().ident or 0

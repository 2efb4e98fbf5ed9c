"""Forking without a word."""

from __future__ import annotations

import ctypes
import os
import sys


def silent_fork() -> int:
    """``os.fork()`` without the DeprecationWarning that Python 3.12 and later give in any process with threads, as
    all are that use torch. The steps are those of ``os.fork`` (CPython, Modules/posixmodule.c); silencing the warning
    by a filter would have Python show warnings again that the script has seen already.
    """
    if sys.version_info < (3, 12):
        return os.fork()
    python = ctypes.PyDLL(None, use_errno=True)  # calls keep the interpreter's lock
    python.PyOS_BeforeFork()
    pid: int = python.fork()
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return pid
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pid

"""The kernel's own refusal: Landlock (Linux 5.13 and later) keeps a child from changing anything outside its folder."""

from __future__ import annotations

import ctypes
import functools
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # system calls, the same on every architecture
# Rights that change the file system: write, remove, make …, refer, truncate (linux/landlock.h).
_WRITE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_WRITES = _WRITE | sum(1 << i for i in range(4, 15))
_TCP = 0b11  # bind and connect
_SCOPED = 0b11  # abstract unix sockets and signals reach only what was sealed, too


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


@functools.cache
def abi() -> int:
    """The kernel's version of Landlock; 0 where it has none."""
    return max(0, int(_LIBC.syscall(_CREATE, None, ctypes.c_size_t(0), 1)))


def seal(allowed: tuple[str, ...]) -> bool:
    """Let the kernel refuse every change to files outside ``allowed``, TCP connections, and signals to processes that
    were there before. False where the kernel has no Landlock."""
    version = abi()
    if not version:
        return False
    rights = _WRITES & ~(0 if version >= 3 else _TRUNCATE) & ~(0 if version >= 2 else _REFER)
    attribute = _RulesetAttr(rights, _TCP, _SCOPED)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _LIBC.syscall(_CREATE, ctypes.byref(attribute), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for path in (*allowed, "/dev/null"):
            if os.path.exists(path):
                _allow(ruleset, path, rights)
        _LIBC.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        return bool(_LIBC.syscall(_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    granted = rights if os.path.isdir(path) else rights & (_WRITE | _TRUNCATE)
    rule = _PathBeneath(granted, parent)
    _LIBC.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    os.close(parent)

"""Which machine and which versions: what a measurement holds for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import shutil
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def physical_cores() -> int:
    """Cores this process may use, of which each may run two threads at once; where the system does not tell,
    :func:`cores`."""
    try:
        siblings = {
            Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list").read_text(encoding="ascii")
            for n in os.sched_getaffinity(0)
        }
    except (AttributeError, OSError, ValueError):
        return cores()
    return len(siblings)


def cpu_model() -> str:
    """The processor's name; with its family and model where a virtual machine tells only the maker's line of products,
    since plans and results hold for one processor."""
    said: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            said.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = said.get("model name", "")
    if name and not any(c.isdigit() for c in name) and "cpu family" in said:
        name += f" (family {said['cpu family']}, model {said.get('model', '?')})"
    return name or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Feature flags of the processor; empty where unknown."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def available_bytes() -> int:
    """Memory that can be taken without swapping, within the limits of container and process where there are any."""
    free = 1 << 30
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8").strip()
        if limit != "max":
            free = min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):
        pass
    return min(free, max(0, _own_limit()))


def _own_limit() -> int:
    """Bytes up to the limit of ``ulimit -d`` or ``ulimit -v``; a great many without one."""
    left = 1 << 62
    limits = {"VmData:": resource.RLIMIT_DATA, "VmSize:": resource.RLIMIT_AS}
    bounds = {name: resource.getrlimit(kind)[0] for name, kind in limits.items()}
    if all(bound == resource.RLIM_INFINITY for bound in bounds.values()):
        return left
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return left
    used = {name: int(size) * 1024 for name, size, *_ in (line.split() for line in lines if line.startswith("Vm"))}
    return min(bound - used.get(name, 0) for name, bound in bounds.items() if bound != resource.RLIM_INFINITY)


ALLOCATORS = ("jemalloc", "tcmalloc_minimal", "tcmalloc")  # names of libraries that take malloc's place
_LIBRARIES = ("/usr/local/lib", "/usr/lib64", "/usr/lib", "/lib64", "/lib")


def allocators() -> dict[str, str]:
    """Path by name of memory allocators that a process could be started with in place of glibc's: in the folders of
    LD_LIBRARY_PATH, of the Python environment, and of the system."""
    own = [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if f]
    folders = [Path(f) for f in (*own, os.path.join(sys.prefix, "lib"), *_LIBRARIES)]
    found: dict[str, str] = {}
    for name in ALLOCATORS:
        patterns = (f"lib{name}.so*", f"*-linux-gnu/lib{name}.so*")
        paths = (path for folder in folders for pattern in patterns for path in sorted(folder.glob(pattern)))
        usable = (str(p) for p in paths if p.is_file() and not set(str(p)) & set(": "))  # LD_PRELOAD's separators
        first = next(usable, None)
        if first is not None:
            found[name] = first
    return found


def loaded(library: str) -> bool:
    """Whether this process has a shared library of that name (without ``lib``) in its memory."""
    try:
        return f"/lib{library}.so" in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def machine() -> dict[str, Any]:
    """What a plan depends on; also how many threads were asked for, where the environment says it."""
    asked = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if os.environ.get(name)}
    return {"cpu": cpu_model(), "cores": cores(), "system": f"{platform.system()} {platform.machine()}", **asked}


def versions() -> dict[str, str]:
    """Versions that a plan depends on; read without importing torch."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "–"
    return found


def describe() -> str:
    """One line for the head of a report."""
    v = versions()
    return f"{cpu_model()}, {cores()} cores, torch {v['torch']}, Python {v['python']}"


def has_compiler() -> bool:
    """Whether a C++ compiler is there, which torch.compile needs on the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where unknown."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


_MALLOC_INFO = "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"


class _MallocInfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLOC_INFO)


def allocated_bytes() -> int:
    """Bytes that this process has asked glibc's allocator for and not given back, which it may keep from the system
    when they are; 0 where unknown."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    ask.restype = _MallocInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have this process killed as soon as its parent is gone, where the system can (Linux). The caller looks whether
    the parent is still there."""
    with contextlib.suppress(AttributeError):
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def process_started() -> float:
    """``time.monotonic()`` at which this process started (Linux); 0.0 where unknown."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0

"""Compiles the kernel at its first use, for this processor, and keeps it in the user's cache."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hasten.core.errors import HastenError
from hasten.measure import machine

SOURCES = (
    "kernel.cpp", "lanes.inc", "workspace.inc", "rows.inc", "lane_passes.inc", "model.inc", "door.inc",
)  # fmt: skip
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-w")
COMPILING = "fleet-compiling-"  # names of folders in which a compiler is at work
TARGETS = {  # best first; each with the processor's flags it needs and the compiler's
    "avx512": (
        {"avx512f", "avx512dq", "avx512bw", "avx512vl", "fma"},
        ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
    ),
    "avx2": ({"avx2", "fma"}, ("-mavx2", "-mfma")),
    "baseline": (set[str](), ()),
}


class NoCompiler(HastenError):
    """The kernel cannot be built here; other engines are used instead."""


def target() -> str:
    """The widest instruction set of ``TARGETS`` that this processor has."""
    flags = machine.cpu_flags()
    return next(name for name, (needs, _) in TARGETS.items() if needs <= flags)


def compiler() -> str | None:
    """``$CXX``, or the first C++ compiler found; None where there is none."""
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@functools.cache
def kernel(isa: str = "") -> ctypes.CDLL:
    """The kernel, ready to be called.

    Args:
        isa: one of ``TARGETS``; the best of this processor unless given.

    Raises:
        NoCompiler: there is no C++ compiler, or it refuses the source.
    """
    isa = isa or target()
    path = cached(isa)
    if not path.exists():
        _compile(isa, path)
    return _declared(ctypes.CDLL(str(path)))


def cached(isa: str) -> Path:
    """Where the compiled kernel is kept: named after source, compiler, flags and processor."""
    content = hashlib.blake2b(digest_size=12)
    for name in SOURCES:
        content.update((Path(__file__).parent / name).read_bytes())
    content.update(repr((compiler(), FLAGS, TARGETS[isa][1], platform.machine(), machine.cpu_model())).encode())
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "hasten" / f"fleet-{isa}-{content.hexdigest()}.so"


def _compile(isa: str, path: Path) -> None:
    command = compiler()
    if command is None:
        raise NoCompiler(
            "there is no C++ compiler", "none is installed, or it is not on PATH", "apt install g++, or set CXX"
        )
    source = Path(__file__).parent / SOURCES[0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            if path.exists():  # another process has made it meanwhile
                return
            with tempfile.TemporaryDirectory(prefix=COMPILING, dir=path.parent) as folder:
                made = Path(folder) / "kernel.so"
                subprocess.run(
                    [command, *FLAGS, *TARGETS[isa][1], str(source), "-o", str(made)],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=300,
                )
                os.replace(made, path)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise NoCompiler(
            f"{command} could not compile the kernel: {said[0] if said else error}",
            "an old compiler (GCC 9 or Clang 10 is needed), or a cache folder that cannot be written",
            "CXX=/path/to/another/compiler, or XDG_CACHE_HOME=/a/writable/folder",
        ) from error


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """While no other process compiles; what compilations that were killed have left is removed.

    The lock ends with its process, however that ends. Where a file system knows no locks nothing is removed.
    """
    with open(home / "fleet-compiling.lock", "a", encoding="ascii") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
            for left in home.glob(COMPILING + "*"):
                shutil.rmtree(left, ignore_errors=True)
        yield


class Op(ctypes.Structure):
    """One layer, as ``kernel.cpp`` reads it."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "inputs", "outputs", "act")),
        *((name, ctypes.c_float) for name in ("p", "eps", "momentum")),
        ("span", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("weight", "bias", "mean", "var", "counter")),
        *(
            (name, ctypes.c_int32)
            for name in ("lanes", "channels", "filters", "taps", "stride", "dilation", "pad", "groups")
        ),
    )


class Config(ctypes.Structure):
    """Everything else about a model, as ``kernel.cpp`` reads it."""

    _fields_ = (
        *(
            (name, ctypes.c_int32)
            for name in (
                "ops", "batch", "loss", "optimizer", "nesterov", "inputs", "outputs", "total", "trained", "season",
            )
        ),
        *((name, ctypes.c_float) for name in ("loss_parameter", "momentum", "beta1", "beta2", "eps", "clip")),
    )  # fmt: skip


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    ptr, i64, u32, u64, f64 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_double
    data = [ptr, i64, ptr, i64, ptr]  # X, its row stride, Y, its row stride, rows
    for name, returns, takes in (
        ("create", ptr, [ctypes.POINTER(Op), ctypes.POINTER(Config)]),
        ("free", None, [ptr]),
        ("load", None, [ptr, ptr]),
        ("store", None, [ptr, ptr, ctypes.c_int]),
        ("epochs", ctypes.c_int, [ptr, *data, i64, u64, i64, i64, i64, f64, f64, ptr]),
        ("evaluate", None, [ptr, *data, i64, ptr, ptr]),
        ("gradient", None, [ptr, *data, i64, u64, i64, i64, ptr, ptr]),
        ("update", None, [i64, i64, ptr, ptr, ptr, i64, ptr, ptr, ptr, ptr, ptr, ctypes.POINTER(Config)]),
        ("words", None, [u64, i64, u32, u32, u32, ptr]),
        ("permutation", None, [u64, i64, u32, ptr]),
        ("peak", f64, [i64]),
        ("width", ctypes.c_int, []),
    ):
        function = getattr(lib, f"hasten_{name}")
        function.restype, function.argtypes = returns, takes
    return lib

"""The fleet's kernel, compiled at its first use; see ``hasten.native.compiled``."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from hasten.native.compiled import TARGETS as TARGETS
from hasten.native.compiled import Library, target
from hasten.native.compiled import NoCompiler as NoCompiler

SOURCES = (
    "kernel.cpp", "lanes.inc", "steps.inc", "workspace.inc", "rows.inc", "lane_passes.inc", "step_passes.inc",
    "graph_passes.inc", "model.inc", "door.inc", "tape.inc", "tape_products.inc", "tape_scan.inc", "tape_taken.inc",
)  # fmt: skip
NAMES = ("weight", "bias", "mean", "var", "counter", "state_weight", "state_bias")  # of a layer's tensors
SHAPE = ("lanes", "channels", "filters", "taps", "stride", "dilation", "pad", "groups", "gates", "steps", "units")
LIBRARY = Library("fleet", Path(__file__).parent, SOURCES)


_failed: dict[Path, NoCompiler] = {}  # by what would have been made
_loaded: list[ctypes.CDLL] = []


def loaded() -> ctypes.CDLL | None:
    """A kernel that is there already, of whatever instruction set: random numbers are the same by each."""
    return _loaded[0] if _loaded else None


@functools.cache
def kernel(isa: str = "") -> ctypes.CDLL:
    """The kernel, ready to be called. What a compiler has refused once it is not asked for again in this process.

    Args:
        isa: one of ``TARGETS``; the best of this processor unless given.

    Raises:
        NoCompiler: there is no C++ compiler, or it refuses the source.
    """
    path = LIBRARY.cached(isa or target())
    if path in _failed and not path.exists():
        raise _failed[path]
    try:
        found = _declared(LIBRARY.load(isa))
    except NoCompiler as error:
        _failed[path] = error.with_traceback(None)
        raise
    _loaded.append(found)
    return found


def made_of() -> str:
    """Tells kernels apart that may round differently: by source, compiler, flags, processor; "" where there is none."""
    try:
        kernel()
    except NoCompiler:
        return ""
    return LIBRARY.cached(target()).stem


class Op(ctypes.Structure):
    """One layer, as ``kernel.cpp`` reads it."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "inputs", "outputs", "act")),
        *((name, ctypes.c_float) for name in ("p", "eps", "momentum")),
        ("span", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in NAMES),
        *((name, ctypes.c_int32) for name in SHAPE),
        *((name, ctypes.c_int32) for name in ("source", "other")),
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
        *((name, ctypes.c_float) for name in ("loss_parameter", "momentum")),
        *((name, ctypes.c_double) for name in ("beta1", "beta2")),
        *((name, ctypes.c_float) for name in ("eps", "clip")),
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
        ("tape", ptr, [ptr]),
        ("tape_free", None, [ptr]),
        ("tape_run", None, [ptr, i64, ptr, ptr, ptr]),
        ("peak", f64, [i64]),
        ("width", ctypes.c_int, []),
    ):
        function = getattr(lib, f"hasten_{name}")
        function.restype, function.argtypes = returns, takes
    return lib

"""Which line of the user's code: the innermost frame that is neither a library's nor ours."""

from __future__ import annotations

import ctypes
import functools
import itertools
import linecache
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from types import CellType, CodeType, FrameType
from typing import Any

from hasten.core import OURS
from hasten.core.facts import Place

# Libraries lie in such folders, also where they are found by PYTHONPATH, as on clusters.
_LIBRARY_FOLDERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@functools.cache
def _library_roots() -> tuple[str, ...]:
    paths = {sysconfig.get_paths()[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    paths.add(site.getusersitepackages())
    return tuple(sorted({os.path.realpath(p) + os.sep for p in paths} | {p + os.sep for p in paths}))


def _is_librarys(path: str) -> bool:
    return path.startswith(_library_roots()) or any(folder in path for folder in _LIBRARY_FOLDERS)


@functools.cache
def _main_root() -> str:
    """Folder of the script that is run; its files are the user's even inside site-packages."""
    path = getattr(sys.modules.get("__main__"), "__file__", "") or ""
    return os.path.dirname(os.path.abspath(path)) + os.sep if path else "\0"


def _is_generated(path: str) -> bool:
    """Whether a library has written it, as torch_geometric writes what it makes of templates: into a file outside of
    its folder, named as a module of its own; or torch.compile into its cache."""
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if f"{os.sep}torchinductor_" in path or (cache and path.startswith(os.path.abspath(cache) + os.sep)):
        return True
    name = os.path.basename(path)
    roots = {other.partition(".")[0] for other in list(sys.modules) if "." in other and name.startswith(other)}
    files = (getattr(sys.modules.get(root), "__file__", None) for root in roots)
    return any(isinstance(file, str) and _is_librarys(os.path.abspath(file)) for file in files)


@functools.cache
def is_users(filename: str) -> bool:
    """Whether a code file belongs to the user rather than to Python, a library or hasten."""
    if filename.startswith("<") and not filename.startswith("<ipython"):
        return False
    path = os.path.abspath(filename)
    if path.startswith(OURS):
        return False
    if _is_librarys(path):
        root = _main_root()  # a script inside site-packages (python -m package) has its own folder there
        alone = root not in _library_roots() and not root.endswith(_LIBRARY_FOLDERS)
        return _is_librarys(root) and alone and path.startswith(root)
    return not _is_generated(path)


def user_frame(frame: FrameType) -> FrameType:
    """The innermost frame at or outside ``frame`` that is the user's; a library's if there is none (no report names
    that: see :func:`resolve`)."""
    found: FrameType | None = frame
    while found is not None:
        if is_users(found.f_code.co_filename):
            return found
        found = found.f_back
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return frame


def locals_of(frame: FrameType) -> dict[str, Any]:
    """A copy of a frame's local variables that leaves nothing behind.

    Before Python 3.13 asking a function's frame for ``f_locals`` fills a dictionary that stays with it: it would keep
    the user's tensors alive, and it is the one that the script's own ``locals()`` has returned.
    """
    code = frame.f_code
    if code.co_flags & 3 != 3 or sys.version_info >= (3, 13):  # CO_OPTIMIZED and CO_NEWLOCALS: a function
        return dict(frame.f_locals)
    if sys.version_info >= (3, 12):
        return _asked_one_by_one(frame)
    return _read_in_place(frame)


def _asked_one_by_one(frame: FrameType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ask = ctypes.pythonapi.PyFrame_GetVar
    ask.restype, ask.argtypes = ctypes.py_object, [ctypes.py_object, ctypes.py_object]
    code = frame.f_code
    for name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars):
        try:
            found[name] = ask(frame, name)
        except NameError:
            continue
    return found


_FRAME = object.__basicsize__ + 8  # CPython 3.11: where a frame object points to its frame …
_LOCALS = 72  # … and where that has its variables (Include/internal/pycore_frame.h)


def _read_in_place(frame: FrameType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    code = frame.f_code
    start = ctypes.c_void_p.from_address(id(frame) + _FRAME).value or 0
    cells = {*code.co_cellvars, *code.co_freevars}
    for i in itertools.count():
        try:
            name = code._varname_from_oparg(i)  # type: ignore[attr-defined]
        except IndexError:
            return found
        if ctypes.c_void_p.from_address(start + _LOCALS + 8 * i).value:
            value = ctypes.py_object.from_address(start + _LOCALS + 8 * i).value
            if name in cells and isinstance(value, CellType):
                try:
                    value = value.cell_contents
                except ValueError:
                    continue
            found[name] = value
    return found


def variables(frame: FrameType | None) -> Iterator[tuple[str, Any]]:
    """The user's variables and what they hold, those of inner frames first."""
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            for scope in (locals_of(frame), frame.f_globals):
                yield from ((name, value) for name, value in list(scope.items()) if not name.startswith("__"))
        frame = frame.f_back


def place_of(code: CodeType, lasti: int) -> Place:
    """The source position of an instruction; the file is relative to the working folder where it lies below it."""
    line, column, end = code.co_firstlineno, 0, 0
    positions = list(code.co_positions())
    index = lasti // 2
    if 0 <= index < len(positions):
        first, last, start, stop = positions[index]
        line = first or line
        if start is not None and stop is not None and first == last:
            column, end = start + 1, stop + 1
    return _place(code.co_filename, line, code.co_name, column, end)


def line_of(code: CodeType, lasti: int) -> int:
    """The line of an instruction."""
    return next((line for start, end, line in code.co_lines() if start <= lasti < end and line), code.co_firstlineno)


def _place(filename: str, line: int, function: str, column: int = 0, end: int = 0) -> Place:
    text = linecache.getline(filename, line).rstrip("\n")
    return Place(shown(filename), line, function, text, column, end)


def place_of_line(code: CodeType, line: int) -> Place:
    """The place of a line without a column (what a sampler knows)."""
    return _place(code.co_filename, line, code.co_name)


_shown_from: str | None = None


def show_from(folder: str) -> None:
    """Show paths as seen from the folder in which the command was typed, wherever the script goes."""
    global _shown_from
    _shown_from = folder


def shown(filename: str) -> str:
    """A path as a user writes it: relative when below the working folder."""
    try:
        path = os.path.relpath(filename, _shown_from)
    except (ValueError, OSError):
        return filename
    return filename if path.startswith("..") else path


def resolve(places: dict[Any, list[int]]) -> list[tuple[int, Place, int, int]]:
    """(phase, place, calls, nanoseconds) of a clock's places in the user's code, summed by line."""
    merged: dict[tuple[int, str, int], tuple[Place, list[int]]] = {}
    for (phase, code, lasti), (calls, nanoseconds) in places.items():
        if not is_users(code.co_filename):
            continue
        place = place_of(code, lasti)
        entry = merged.setdefault((phase, place.file, place.line), (place, [0, 0]))
        entry[1][0] += calls
        entry[1][1] += nanoseconds
    return sorted(((k[0], p, v[0], v[1]) for k, (p, v) in merged.items()), key=lambda row: -row[3])


_FRAMEWORKS = {  # the first that is there counts: those before use those behind
    "transformers": ("transformers.trainer",),
    "lightning": ("lightning.pytorch.", "pytorch_lightning."),
    "fabric": ("lightning.fabric.", "lightning_fabric."),
    "skorch": ("skorch.net",),
    "accelerate": ("accelerate.",),
}


def framework_around(frame: FrameType | None) -> str:
    """The framework that drives the loop around ``frame``; empty where the script does."""
    modules = set()
    while frame is not None:
        modules.add(str(frame.f_globals.get("__name__", "")) + ".")
        frame = frame.f_back
    return next((name for name, starts in _FRAMEWORKS.items() if any(m.startswith(starts) for m in modules)), "")

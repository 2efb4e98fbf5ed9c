"""What code reads from outside of the object it belongs to: names of its module, attributes of its classes.

Followed from a dataset's own methods through the functions and methods that they name. Names are read out of code
objects, nothing is run; what code looks up in other ways (``getattr`` with a computed name, a file, a database) is not
found here.
"""

from __future__ import annotations

import dis
import functools
import os
import sysconfig
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from hasten.core import OURS

ENTRIES = ("__getitem__", "__getitems__", "__call__", "forward")
MOST_FUNCTIONS = 256  # followed
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_LOOKED_UP = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "IMPORT_NAME")
_DATA = (int, float, complex, str, bytes, bool, type(None), list, tuple, dict, set, frozenset)


class Surroundings:
    """Names that code reads outside of its objects, found once; what they stand for is looked up when asked.

    Args:
        kinds: classes whose entries (:data:`ENTRIES`) are followed, if they are no library's.
        functions: followed, too.
    """

    def __init__(self, kinds: Iterable[type], functions: Iterable[FunctionType]) -> None:
        self._names: dict[tuple[int, str], tuple[dict[str, Any], str]] = {}
        self._classes: dict[type, None] = {}
        self._cells: list[Any] = []
        self._known: set[CodeType] = set()
        self._waiting: list[tuple[FunctionType, type | None]] = [(f, None) for f in functions]
        for kind in kinds:
            self._methods(kind, ENTRIES)
        while self._waiting and len(self._known) < MOST_FUNCTIONS:
            self._follow(*self._waiting.pop())

    def values(self) -> Iterator[tuple[str, Any]]:
        """Every name with what it stands for now."""
        for scope, name in self._names.values():
            yield name, scope.get(name)
        for kind in self._classes:
            for name, value in list(vars(kind).items()):
                if isinstance(value, _DATA) and not (name.startswith("__") and name.endswith("__")):
                    yield f"{kind.__name__}.{name}", value
        for cell in self._cells:
            try:
                yield "closure", cell.cell_contents
            except ValueError:  # not set yet
                continue

    def _methods(self, kind: type, names: Iterable[str]) -> None:
        for owner in kind.__mro__:
            for name in names:
                function = getattr(vars(owner).get(name), "__func__", vars(owner).get(name))
                if isinstance(function, property):
                    function = function.fget
                function = _unwrapped(function)
                if isinstance(function, FunctionType) and _own(function):
                    self._classes[owner] = None
                    self._waiting.append((function, kind))

    def _follow(self, function: FunctionType, kind: type | None) -> None:
        function = _unwrapped(function)
        if function.__code__ in self._known or not _own(function):
            return
        self._known.add(function.__code__)
        self._cells.extend(function.__closure__ or ())
        names = set(_names(function.__code__))
        if kind is not None:
            self._methods(kind, names)
        if not names.isdisjoint(("environ", "getenv")):
            self._names[id(os), "environ"] = vars(os), "environ"
        scope = function.__globals__
        for name in _global_names(function.__code__) & scope.keys():
            value = scope[name]
            if isinstance(value, FunctionType):
                self._waiting.append((value, None))
            elif isinstance(value, type):
                self._methods(value, ("__init__", *ENTRIES))
                if getattr(value, "__module__", None) == scope.get("__name__"):
                    self._classes[value] = None
            elif isinstance(value, ModuleType):
                self._of_module(value, names)
            else:
                self._names[id(scope), name] = scope, name
                self._methods(type(value), ENTRIES)

    def _of_module(self, module: ModuleType, names: set[str]) -> None:
        if not _in_library(getattr(module, "__file__", None) or ""):
            scope = vars(module)
            for name in names & scope.keys():
                if isinstance(scope[name], FunctionType):
                    self._waiting.append((scope[name], None))
                elif isinstance(scope[name], _DATA):
                    self._names[id(scope), name] = scope, name


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@functools.lru_cache(maxsize=1024)
def _global_names(code: CodeType) -> frozenset[str]:
    """Names that are looked up in the module: an attribute of the same name, as ``self.x`` where a training loop of the
    module has its ``x``, is none."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in _LOOKED_UP}
    inner = (_global_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(found).union(*inner)


def _unwrapped(function: Any) -> Any:
    """What a wrapper of hasten's own stands around: it comes and goes while the dataset stays the same."""
    while isinstance(function, FunctionType) and function.__code__.co_filename.startswith(OURS):
        original = getattr(function, "__wrapped__", None)
        if original is None:
            break
        function = original
    return function


def _own(function: FunctionType) -> bool:
    return not _in_library(function.__code__.co_filename)


def _in_library(filename: str) -> bool:
    return not filename or filename.startswith(("<frozen", OURS, *_LIBRARIES)) or "site-packages" in filename

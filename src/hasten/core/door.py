"""A package that shares its name with a function of the library: ``hasten.run`` is both."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Door(ModuleType):
    """A module that can be called like the function: importing a module of the package puts it in the function's
    place among the library's attributes."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        function = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("hasten.api"), function)(*args, **settings)


def callable_as_function(module: str) -> None:
    """Let the package ``hasten.NAME`` be called as ``hasten.api.NAME``."""
    sys.modules[module].__class__ = _Door

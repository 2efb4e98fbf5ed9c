"""Two functions of the library share their names with packages; both can be called whatever was imported before."""

from __future__ import annotations

import importlib

import pytest

import hasten
from hasten.core.errors import UsageError


@pytest.mark.parametrize("name", ["run", "explain"])
def test_a_function_stays_one_when_its_namesake_is_imported(name: str) -> None:
    importlib.import_module(f"hasten.{name}.inside")
    with pytest.raises(UsageError, match=r"there is no file 'none\.py'"):
        getattr(hasten, name)("none.py")

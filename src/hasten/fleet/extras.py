"""Packages that only fleets need."""

from __future__ import annotations

import importlib
from typing import Any

from hasten.core.errors import UsageError


def need(module: str, what: str) -> Any:
    """A module of the extra ``hasten[fleet]``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{what} needs {module.split('.')[0]}, which is not installed ({error})",
            "hasten was installed without its extra",
            'pip install "hasten[fleet]"',
        ) from None

"""What can go wrong with data and packages, in words that end in the change to make."""

from __future__ import annotations

import importlib
from typing import Any

from hasten.core.errors import HastenError, UsageError


class BadData(UsageError, ValueError):
    """The data cannot be used as they are."""


class NoColumn(BadData):
    """A column is not there; ``name`` says which."""

    name = ""


class MissingExtra(UsageError, ImportError):
    """A package of the extra ``solve`` is not installed."""


class FewDigits(UserWarning):
    """What moments tell is known to a few digits or none: they hold squares, of X's condition too."""


class DependentColumns(UserWarning):
    """Columns of X depend on each other: the coefficients are one solution of many."""


class CannotWrite(HastenError, OSError):
    """A file cannot be written; ``errno`` says why.

    Args:
        path: of the file. error: what the system said.
    """

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(
            f"cannot write {path}: {error.strerror or error}",
            "the disk is full or read-only, or the folder is another user's",
            "a path on another disk or in another folder",
        )
        self.errno, self.strerror, self.filename = error.errno, error.strerror, path

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return CannotWrite, (self.filename, OSError(self.errno, self.strerror))


def no_rows() -> BadData:
    """The error where nothing is left to learn from."""
    return BadData(
        "there are no rows", "an empty file, loader or selection, or all weights are 0", "data of one row at least"
    )


def no_target() -> BadData:
    """The error where only X was given."""
    return BadData("there is no target", "y was not given", 'y=…; y="column" for a file or a table')


def need(module: str, what: str) -> Any:
    """Import an optional module.

    Args:
        module: its dotted name.
        what: what needs it, for the error.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.split(".")[0], module.split(".")[0])
        extra = {"lightgbm": "", "celer": "l1", "skglm": "l1"}.get(package, "solve")
        raise MissingExtra(
            f"{what} needs {package}, which cannot be imported ({error})",
            f"hasten was installed without the extra `{extra}`" if extra else "it is not installed",
            f"pip install {package}" + (f"; or pip install 'hasten[{extra}]'" if extra else ""),
        ) from None

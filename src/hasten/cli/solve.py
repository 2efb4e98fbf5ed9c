"""``hasten solve``: one call, one report."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hasten
from hasten.cli import output
from hasten.cli.arguments import Asked
from hasten.core.errors import HastenError

if TYPE_CHECKING:
    from hasten.core.solution import Solution

NOT_WRITTEN = 1


def run(asked: Asked) -> int:
    """Do it.

    Returns:
        0, or 1 where the moments or the JSON could not be written. Wrong usage and bad data raise, and leave with 2.
    """
    output.apart(json=asked.json, save=asked.save, checkpoint=asked.checkpoint)
    output.spares(_read(asked), json=asked.json, save=asked.save, checkpoint=asked.checkpoint)
    output.spares([asked.update], json=asked.json, checkpoint=asked.checkpoint)
    for path in (asked.json, asked.save, asked.checkpoint, asked.update):
        if path and path != output.STDOUT:
            output.check(path)
    from hasten.core.codec import encode

    try:
        with _remarks():
            found, failure = _solved(asked)
    except KeyboardInterrupt as stop:
        if stop.args:
            sys.stderr.write(f"hasten: {stop}\n")
        raise
    if not asked.quiet:
        from hasten.report.solution import render

        sys.stderr.write(render(found))
    if failure is not None:
        sys.stderr.write(f"hasten: {failure}\n")
    written = failure is None
    if asked.json:
        from hasten.report.json import headed

        text = json.dumps(headed("solve", hasten.__version__, encode(found)), indent=1) + "\n"
        written &= output.attempt(asked.json, lambda: output.write(asked.json, text))
    return 0 if written else NOT_WRITTEN


def _read(asked: Asked) -> Iterator[Path]:
    """The files of rows: those of folders and patterns, too."""
    from hasten.solve.shards import files_of

    for path in asked.data:
        yield from files_of(path) or [Path(path)]


@contextmanager
def _remarks() -> Iterator[None]:
    """What hasten warns of, each thing once, as one line without the place in its source."""
    shown, said = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if category.__module__.startswith("hasten.") or category is UserWarning:
            if str(message) not in said:
                sys.stderr.write(f"hasten: {message}\n")
            said.add(str(message))
        else:
            shown(message, category, *where, **options)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _solved(asked: Asked) -> tuple[Solution, HastenError | None]:
    from hasten.solve.command import solve

    return solve(
        asked.data[0] if len(asked.data) == 1 else asked.data,
        asked.target,
        features=asked.features,
        task=asked.task,
        budget=math.inf if asked.budget is None else asked.budget,
        update=asked.update,
        save=asked.save,
        checkpoint=asked.checkpoint,
        progress=not asked.quiet and sys.stderr.isatty(),
    )

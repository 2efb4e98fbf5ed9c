"""``hasten solve``: one call, one report."""

from __future__ import annotations

import json
import math
import sys

from hasten.cli import output
from hasten.cli.arguments import Asked

NOT_WRITTEN = 1


def run(asked: Asked) -> int:
    """Do it.

    Returns:
        0, or 1 where the JSON could not be written. Wrong usage and bad data raise, and leave with 2.
    """
    for path in (asked.json, asked.save):
        if path and path != output.STDOUT:
            output.check(path)
    from hasten.core.codec import encode
    from hasten.solve.command import solve

    found = solve(
        asked.data,
        asked.target,
        features=asked.features,
        task=asked.task,
        budget=math.inf if asked.budget is None else asked.budget,
        update=asked.update,
        save=asked.save,
        checkpoint=asked.checkpoint,
        progress=not asked.quiet and sys.stderr.isatty(),
    )
    if not asked.quiet:
        from hasten.report.solution import render

        sys.stderr.write(render(found))
    if asked.json:
        text = json.dumps(encode(found), indent=1, ensure_ascii=False) + "\n"
        return 0 if output.attempt(asked.json, lambda: output.write(asked.json, text)) else NOT_WRITTEN
    return 0

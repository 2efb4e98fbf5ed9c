"""``hasten fleet``: one network a key, from a file of rows to a file of weights."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hasten.cli import output
from hasten.cli.fleet_arguments import MODELS
from hasten.core.errors import UsageError

FAILED_ALL = 1


def run(options: argparse.Namespace) -> int:
    """Train, report, write.

    Returns:
        0; 1 where no model could be trained or a result could not be written; 3 where a proof did not hold.
    """
    for path in (options.json, options.html, options.out):
        if path and path != output.STDOUT:
            output.check(path)
    from hasten import fleet as fleets
    from hasten.report import fleet as report

    frame = read(Path(options.file))
    make = factory(options)
    stop = fleets.EarlyStop(options.patience, fraction=options.hold_out) if options.hold_out else None
    with watched(options.quiet) as progress:
        trained = fleets.fit(
            make,
            frame,
            loss=options.loss,
            optimizer=options.optimizer,
            lr=options.lr,
            epochs=options.epochs,
            batch_size=options.batch_size,
            stop=stop,
            seed=options.seed,
            by=options.by,
            features=options.features,
            target=options.target,
            window=options.window,
            horizon=options.horizon,
            season=options.season,
            time_column=options.time,
            engine=options.engine,
            workers=options.workers,
            shortest_first=options.shortest_first,
            prove=options.prove,
            baseline=options.baseline if options.baseline != "none" and stop is not None else "",
            journal=options.journal,
            progress=progress,
        )
    if options.out:
        trained.save(options.out)
    document = plain(trained.summary().document())
    written = True
    if options.json:
        text = json.dumps(document, indent=1) + "\n"
        written = output.attempt(options.json, lambda: output.write(options.json, text))
    if options.html:
        page = report.page(document, forecasts(trained))
        written = output.attempt(options.html, lambda: output.write(options.html, page)) and written
    if not options.quiet and options.json != output.STDOUT:
        print(report.text(document))
    if any(not found["holds"] for found in document["proof"]):
        return 3
    return 0 if written and len(trained) else FAILED_ALL


def read(path: Path) -> Any:
    """The rows of a file.

    Raises:
        UsageError: it cannot be read, or pyarrow is not installed.
    """
    from hasten.fleet.extras import need

    need("pyarrow", "reading a file of rows")
    try:
        if path.suffix == ".parquet":
            return need("pyarrow.parquet", "reading a file of rows").read_table(path)
        return need("pyarrow.csv", "reading a file of rows").read_csv(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read {path}: {str(error).splitlines()[0]}",
            "a typing error, or neither Parquet nor CSV",
            "a .parquet, .csv or .csv.gz file",
        ) from None


def factory(options: argparse.Namespace) -> Callable[..., Any]:
    """What makes a key's model.

    Raises:
        UsageError: there is no such model.
    """
    inputs = options.window or len(options.features)
    outputs = options.horizon or 1
    if options.model in MODELS:
        from hasten.fleet import models

        return functools.partial(getattr(models, options.model), inputs, outputs)
    module, _, name = options.model.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return functools.partial(getattr(importlib.import_module(module), name), inputs, outputs)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"there is no model {options.model}: {error}",
            "a typing error, or the module is not in this folder",
            "--model mlp, or --model mymodels:make with make(inputs, outputs) in mymodels.py",
        ) from None


def forecasts(trained: Any, each: int = 3) -> list[dict[str, Any]]:
    """The last held-out window of the worst, median and best keys, with what was predicted. Series only."""
    rows = sorted((r for r in trained.summary().rows if not r.cause), key=lambda r: (r.held != r.held, r.held))
    jobs = {job.key: job for job in trained.session.jobs}
    middle = max(0, len(rows) // 2 - each // 2)
    groups = {"best": rows[:each], "median": rows[middle : middle + each], "worst": rows[-each:]}
    found = []
    for group, members in groups.items():
        for row in members:
            task = jobs[row.key].task
            if task.X.ndim != 2 or task.y.ndim != 2 or not trained.session.columns.get("window"):
                continue
            seen, came = (a * task.scale + task.shift for a in (task.X[-1:], task.y[-1:]))
            predicted = trained.predict(row.key, seen)
            found.append(
                {"key": row.key, "group": group, "held": row.held, "seen": seen[0].tolist(),
                 "came": came[0].tolist(), "predicted": predicted.reshape(-1).tolist()}
            )  # fmt: skip
    return found


def plain(value: Any) -> Any:
    """Numbers that JSON knows: NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


@contextlib.contextmanager
def watched(quiet: bool) -> Iterator[Callable[[Any], None] | None]:
    """A live line on stderr, where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    from hasten.report.fleet import progress_line

    console = Console(stderr=True, highlight=False, emoji=False, markup=False)
    with Live("", console=console, refresh_per_second=4, transient=True) as live:
        yield lambda progress: live.update(progress_line(progress))

"""The options of ``hasten solve``."""

from __future__ import annotations

import argparse
import csv
from typing import TYPE_CHECKING, Any

from hasten.cli import kinds
from hasten.core.errors import UsageError

if TYPE_CHECKING:
    from hasten.cli.arguments import Asked, Parser


ENDINGS = tuple(kind + packed for kind in (".parquet", ".pq", ".csv", ".tsv", ".npy") for packed in ("", ".gz", ".zst"))


def add(commands: argparse._SubParsersAction[Parser], kind: type[Parser]) -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "solve",
        help="train a linear model without a loop, from one pass over a file",
        description="Train a linear model without a loop: one pass over a file of any size, its penalty chosen by "
        "exact leave-one-out.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("data", nargs="*", help="a .parquet, .csv (also .gz) or .npy file; several, a folder, or a pattern of names")
    add("--target", metavar="COLUMN", help="column to predict; the last one of a .npy")
    add(
        "--features",
        metavar="COLUMN",
        nargs="+",
        help="columns to predict from, also a,b,c; one with a comma as in a CSV: '\"a, b\"'; all others unless given",
    )
    add("--task", choices=("regression", "classification"), help="texts are classes, numbers are not, unless given")
    add("--budget", metavar="SECONDS", type=kinds.seconds, help="give up reading after so many seconds")
    add("--save", metavar="FILE", type=kinds.path, help="write the moments, so that rows can be added later")
    add("--update", metavar="FILE", type=kinds.path, help="add these rows to moments saved before, and solve again")
    add("--checkpoint", metavar="FILE", type=kinds.path, help="go on from here after an interruption")
    add("--json", metavar="FILE", type=kinds.path, help="every figure as JSON; - is stdout")
    add("--quiet", action="store_true", help="no report and no progress on stderr")


def asked(options: argparse.Namespace) -> Asked:
    """One command line.

    Raises:
        UsageError: options that exclude each other.
    """
    from hasten.cli.arguments import Asked

    if options.update and options.features:
        raise UsageError("--update takes the columns of the saved moments", "--features was given, too", "leave it out")
    words = list(options.features or [])
    behind = [] if options.data else words  # --features takes all words that follow it
    while len(behind) > 1 and behind[-1].lower().endswith(ENDINGS):
        options.data = [behind.pop(), *options.data]
    if not options.data:
        raise UsageError("no file was named", "", "hasten solve DATA.parquet --target COLUMN")
    given: dict[str, Any] = {k: v for k, v in vars(options).items() if v is not None} | {"data": tuple(options.data)}
    if words:
        given["features"] = tuple(name for word in words for name in next(csv.reader([word]), []) if name)
    return Asked(**given)

"""What was typed, as one frozen value. Everything from the script's name on belongs to the script."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hasten
from hasten.cli import fleet_arguments, solve_arguments
from hasten.core.errors import UsageError

DESCRIPTION = "Find out why PyTorch training is slow, make it fast, and prove it."
EPILOG = """\
examples:
  hasten explain train.py --epochs 2       where the time goes, and why
  hasten run train.py --epochs 2           try what would help while it trains, keep what does
  hasten run --plan train.hasten.json train.py --epochs 2
                                           the same without trials
  hasten rule D101                         what is behind a finding
  hasten fleet sales.parquet --by store --target sales --window 96 --horizon 24
                                           one small network a store, all trained together
  hasten solve data.parquet --target y     train a linear model without a loop

Options of hasten stand before the script; everything behind it is the script's own.
The script's output stays as it is: hasten's own words go to stderr.
exit codes: the script's own; 1 a report could not be written; 2 wrong usage; 3 a promise was broken (with --strict)
"""

BUDGET = "what trials may take; unless given, 5 %% of the predicted job and at most 120"
_OF_TRIALS = ("save_plan", "budget", "allow", "only", "skip")


@dataclass(frozen=True)
class Asked:
    """One command line.

    Attributes:
        command: "explain", "run", "rule", "fleet", "solve", or "" for none.
        script, args, module: what to run, with its own arguments; ``module`` as with ``python -m``.
        code: the rule asked for, or empty for all.
        data, target, features, task, update, save, checkpoint: of ``hasten solve``.
        steps: stop after so many; 0 never.
        budget: seconds for trials; None leaves the choice to hasten.
        json, html, save_plan, plan: paths; empty for none.
        save_always: whether a plan without remedies is written, too, because the path was asked for.
        options: of a command that runs no script.
    """

    command: str
    script: str = ""
    args: tuple[str, ...] = ()
    module: bool = False
    code: str = ""
    json: str = ""
    html: str = ""
    every: bool = False
    quiet: bool = False
    steps: int = 0
    ceilings: bool = True
    budget: float | None = None
    allow: str = "equivalent"
    plan: str = ""
    save_plan: str = ""
    save_always: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    strict: bool = False
    options: argparse.Namespace | None = None
    data: str = ""
    target: str = ""
    features: tuple[str, ...] = ()
    task: str = "auto"
    update: str = ""
    save: str = ""
    checkpoint: str = ""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors read like the others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            message,
            "a typing error, or an option of the script that stands before it",
            f"{self.prog} --help",
        )


def parse(words: Sequence[str]) -> Asked:
    """What a command line asks for.

    Raises:
        UsageError: it asks for nothing that can be done.
        SystemExit: help or version was printed.
    """
    parser, takes_value = _parser()
    if not words or words[0] not in ("explain", "run"):
        try:
            options = parser.parse_args(list(words))
        except UsageError as error:
            raise UsageError(error.what, "a typing error", error.change) from None
        if options.command == "fleet":
            return Asked(options.command, options=options)
        if options.command == "solve":
            return solve_arguments.asked(options)
        return Asked(options.command or "", code=getattr(options, "code", None) or "")
    ours, script, args, module = split(words[1:], takes_value)
    options = parser.parse_args([words[0], *ours])
    if not script:
        raise UsageError(
            "no module is named after -m" if module else f"`{words[0]}` needs the script to run",
            "the script's name is missing, or stands before an option's value",
            f"hasten {words[0]} train.py",
        )
    return _asked(options, script, tuple(args), module)


def split(words: Sequence[str], takes_value: frozenset[str]) -> tuple[list[str], str, list[str], bool]:
    """Our options, the script or module, its arguments, and whether it is a module."""
    i = 0
    while i < len(words):
        word = words[i]
        if word == "-m":
            return list(words[:i]), words[i + 1] if i + 1 < len(words) else "", list(words[i + 2 :]), True
        if word == "--":
            return list(words[:i]), words[i + 1] if i + 1 < len(words) else "", list(words[i + 2 :]), False
        if not word.startswith("-") or word == "-":
            return list(words[:i]), word, list(words[i + 1 :]), False
        i += 2 if word in takes_value else 1
    return list(words), "", [], False


def _asked(options: argparse.Namespace, script: str, args: tuple[str, ...], module: bool) -> Asked:
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in vars(options).items() if v is not None
    }
    no_plan = given.pop("no_save_plan", False)
    if options.command == "run":
        other = next((name for name in _OF_TRIALS if given.get("plan") and name in given), "")
        if other:
            raise UsageError(
                f"--plan replays a plan as it is, without trials; --{other.replace('_', '-')} is for trials",
                "both were given",
                "leave out --plan to make a new plan",
            )
        given["save_always"] = bool(given.get("save_plan"))
        if not no_plan and not given.get("plan"):
            given.setdefault("save_plan", default_plan(script, module))
    return Asked(script=script, args=args, module=module, **given)


def default_plan(script: str, module: bool) -> str:
    """Where a plan is written unless told otherwise: in the working folder, named after the script."""
    stem = script.rpartition(".")[2] if module else Path(script).absolute().stem
    return f"{stem}.hasten.json"


def _parser() -> tuple[Parser, frozenset[str]]:
    parser = Parser(
        "hasten",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hasten {hasten.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    explain = _runs_a_script(commands, "explain", "run a script and explain where its time goes")
    run = _runs_a_script(commands, "run", "run a script, make it faster while it runs, and prove it")
    valued = [*_common(explain), *_explain(explain), *_common(run), *_run(run)]
    solve_arguments.add(commands, Parser, _seconds)
    rule = commands.add_parser("rule", help="what is behind a finding; without a code, all rules", allow_abbrev=False)
    rule.add_argument("code", nargs="?", help="code or name of a rule, as D101 or single-process-loader")
    fleet = commands.add_parser(
        "fleet",
        help="train one small network a key, all together",
        description="Train one small network for each key of a file, all together, with the plain loop's results.",
        epilog="exit codes: 0; 1 nothing was trained, or not written; 2 wrong usage; 3 a proof did not hold",
        allow_abbrev=False,
    )
    fleet_arguments.add(fleet)
    return parser, frozenset(name for action in valued for name in action.option_strings)


def _runs_a_script(commands: argparse._SubParsersAction[Parser], name: str, text: str) -> Parser:
    return commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Everything from the script's name on belongs to the script.",
        usage=f"hasten {name} [options] SCRIPT [args …]\n       hasten {name} [options] -m MODULE [args …]",
        allow_abbrev=False,
    )


def _common(parser: Parser) -> list[argparse.Action]:
    parser.add_argument("--all", dest="every", action="store_true", help="every finding and line, not only the first")
    parser.add_argument("--quiet", action="store_true", help="no progress and no report on stderr")
    return [
        parser.add_argument("--json", metavar="FILE", help="every figure as JSON; - is stdout, after the script's own"),
        parser.add_argument("--html", metavar="FILE", help="the report as one page; - is stdout"),
    ]


def _explain(parser: Parser) -> list[argparse.Action]:
    parser.add_argument("--no-ceilings", dest="ceilings", action="store_false", help="do not measure ceilings")
    return [parser.add_argument("--steps", metavar="N", type=_count, help="stop the script after N steps")]


def _run(parser: Parser) -> list[argparse.Action]:
    parser.add_argument("--no-save-plan", action="store_true", help="write no plan")
    parser.add_argument("--strict", action="store_true", help="exit with 3 if a remedy broke its promise")
    add = parser.add_argument
    fidelities = ("identical", "equivalent", "approximate")
    return [
        add("--budget", metavar="SECONDS", type=_seconds, help=BUDGET),
        add("--allow", choices=fidelities, help="the most a remedy may change; equivalent unless given"),
        add("--plan", metavar="FILE", help="replay a plan without trials"),
        add("--save-plan", metavar="FILE", help="where the plan is written; SCRIPT.hasten.json unless given"),
        add("--only", metavar="NAME", action="append", help="try only this remedy; may be repeated"),
        add("--skip", metavar="NAME", action="append", help="leave out this remedy; may be repeated"),
    ]


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of steps: 1, 2, …")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds: 0, 60, 0.5 …")
    return seconds

"""What was typed, as one frozen value. Everything from the script's name on belongs to the script."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hasten
from hasten.cli import fleet_arguments, kinds, solve_arguments
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
COMMANDS = ("explain", "run", "rule", "fleet", "solve")
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
    data: tuple[str, ...] = ()
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
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        raise _no_command(words)
    if not words or words[0] not in ("explain", "run"):
        try:
            options = parser.parse_args(list(words))
        except UsageError as error:
            raise _behind(words, error) from None
        if options.command == "fleet":
            return Asked(options.command, options=options)
        if options.command == "solve":
            return solve_arguments.asked(options)
        return Asked(options.command or "", code=getattr(options, "code", None) or "")
    ours, script, args, module = split(words[1:], takes_value)
    try:
        options = parser.parse_args([words[0], *ours])
    except UsageError as error:
        raise UsageError(error.what, error.cause, f"hasten {words[0]} --help") from None
    if not script:
        raise UsageError(
            "no module is named after -m" if module else f"`{words[0]}` needs the script to run",
            "its name is missing" if module else "the script's name is missing, or stands before an option's value",
            f"hasten {words[0]} -m package.train" if module else f"hasten {words[0]} train.py",
        )
    return _asked(options, script, tuple(args), module)


def _no_command(words: Sequence[str]) -> UsageError:
    """For a first word that is no command: a typing error, or the script itself."""
    if os.path.isfile(words[0]):
        return UsageError(
            f"there is no command {words[0]!r}",
            "the command before the script is missing",
            f"hasten explain {words[0]}",
        )
    near = difflib.get_close_matches(words[0], COMMANDS, 1)
    change = f"hasten {near[0]}" if near else f"one of {', '.join(COMMANDS)}; hasten --help says what they do"
    return UsageError(f"there is no command {words[0]!r}", "a typing error", change)


def _behind(words: Sequence[str], error: UsageError) -> UsageError:
    """The same error with its cause: options that stand before the command, or a typing error."""
    at = next((i for i, word in enumerate(words) if word in COMMANDS), -1)
    if at > 0:
        moved = shlex.join(["hasten", words[at], *words[:at], *words[at + 1 :]])
        return UsageError(error.what, "an option stands before the command", moved)
    return UsageError(error.what, "a typing error", error.change if at < 0 else f"hasten {words[at]} --help")


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
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=Parser)
    explain = _runs_a_script(commands, "explain", "run a script and explain where its time goes")
    run = _runs_a_script(commands, "run", "run a script, make it faster while it runs, and prove it")
    valued = [*_common(explain), *_explain(explain), *_common(run), *_run(run)]
    text = "what is behind a finding; without a code, all rules"
    rule = commands.add_parser("rule", help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    rule.add_argument("code", nargs="?", help="code or name of a rule, as D101 or single-process-loader")
    fleet = commands.add_parser(
        "fleet",
        help="train one small network a key, all together",
        description="Train one small network for each key of a file, all together, with the plain loop's results.",
        epilog="exit codes: 0; 1 nothing was trained, or not written; 2 wrong usage; 3 a proof did not hold",
        allow_abbrev=False,
    )
    fleet_arguments.add(fleet)
    solve_arguments.add(commands, Parser)
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
        parser.add_argument(
            "--json", metavar="FILE", type=kinds.path, help="every figure as JSON; - is stdout, after the script's own"
        ),
        parser.add_argument("--html", metavar="FILE", type=kinds.path, help="the report as one page; - is stdout"),
    ]


def _explain(parser: Parser) -> list[argparse.Action]:
    parser.add_argument("--no-ceilings", dest="ceilings", action="store_false", help="do not measure ceilings")
    return [parser.add_argument("--steps", metavar="N", type=kinds.steps, help="stop the script after N steps")]


def _run(parser: Parser) -> list[argparse.Action]:
    parser.add_argument("--no-save-plan", action="store_true", help="write no plan")
    parser.add_argument("--strict", action="store_true", help="exit with 3 if a remedy broke its promise")
    add = parser.add_argument
    fidelities = ("identical", "equivalent", "approximate")
    return [
        add("--budget", metavar="SECONDS", type=kinds.seconds, help=BUDGET),
        add("--allow", choices=fidelities, help="the most a remedy may change; equivalent unless given"),
        add("--plan", metavar="FILE", type=kinds.path, help="replay a plan without trials"),
        add(
            "--save-plan",
            metavar="FILE",
            type=kinds.path,
            help="where the plan is written; SCRIPT.hasten.json unless given",
        ),
        add("--only", metavar="NAME", action="append", help="try only this remedy, as LoaderWorkers; may be repeated"),
        add("--skip", metavar="NAME", action="append", help="leave out this remedy; may be repeated"),
    ]

"""The command line. The script's stdout is the script's: all of hasten's words about a run go to stderr."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hasten.cli import output
from hasten.cli.arguments import Asked, parse
from hasten.core.errors import HastenError

if TYPE_CHECKING:
    from hasten.core.report import Report, Result

WRONG_USAGE = 2
BROKEN_PROMISE = 3
NOT_WRITTEN = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks.

    Returns:
        the exit code: the script's own, 2 for wrong usage, 3 for a broken promise with --strict, 1 where a report
        could not be written. A script that a signal ended ends this process by the same signal.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever has started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding does not have is escaped, as on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _do(parse(sys.argv[1:] if argv is None else argv))
    except HastenError as error:
        sys.stderr.write(f"hasten: {error}\n")
        return WRONG_USAGE
    except BrokenPipeError:
        return NOT_WRITTEN
    except KeyboardInterrupt:
        return leave(-signal.SIGINT)
    finally:
        _flush()


def _flush() -> None:
    """Write now what Python would write at its end, with a complaint where nobody reads our stdout any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _do(asked: Asked) -> int:
    if asked.command == "explain":
        return explain(asked)
    if asked.command == "run":
        return run(asked)
    if asked.command == "rule":
        from hasten.cli import rule

        print(rule.text(asked.code))
        return 0
    if asked.command == "fleet" and asked.options is not None:
        from hasten.cli import fleet

        return fleet.run(asked.options)
    if asked.command == "solve":
        from hasten.cli import solve

        return solve.run(asked)
    parse(["--help"])
    return 0


def explain(asked: Asked) -> int:
    """``hasten explain``."""
    _check_outputs(asked)
    from hasten import api

    report = api.explain(
        asked.script,
        asked.args,
        module=asked.module,
        steps=asked.steps,
        ceilings=asked.ceilings,
        quiet=asked.quiet,
    )
    written = publish(report, asked)
    return leave(report.exit_code or (0 if written else NOT_WRITTEN))


def run(asked: Asked) -> int:
    """``hasten run``."""
    _check_outputs(asked)
    from hasten import api

    result = api.run(
        asked.script,
        asked.args,
        module=asked.module,
        budget=asked.budget,
        allow=asked.allow,
        plan=asked.plan or None,
        only=asked.only,
        skip=asked.skip,
        quiet=asked.quiet,
    )
    result, saved = _save_plan(result, asked)
    written = publish(result, asked) and saved
    if asked.strict and result.broken and not result.exit_code:
        return BROKEN_PROMISE
    return leave(result.exit_code or (0 if written else NOT_WRITTEN))


def _check_outputs(asked: Asked) -> None:
    output.apart(json=asked.json, html=asked.html, save_plan=asked.save_plan, plan=asked.plan)
    output.spares([] if asked.module else [asked.script], json=asked.json, html=asked.html, save_plan=asked.save_plan)
    for path in (asked.json, asked.html):
        if path and path != output.STDOUT:
            output.check(path)
    if asked.save_plan:
        output.check(asked.save_plan, device=False)


def _save_plan(result: Result, asked: Asked) -> tuple[Result, bool]:
    plan = result.plan
    if plan is None and asked.save_always:
        why = result.message or result.report.message or "there were no trials"
        sys.stderr.write(f"hasten: no plan was written to {asked.save_plan}: {why}\n")
    if not asked.save_plan or plan is None or not (plan.steps or asked.save_always):
        return result, True
    if not output.attempt(asked.save_plan, lambda: plan.save(os.path.realpath(asked.save_plan))):
        return result, False
    return dataclasses.replace(result, plan_path=asked.save_plan), True


def publish(outcome: Report | Result, asked: Asked) -> bool:
    """Write what was asked for and show the rest.

    Returns:
        False where something could not be written.
    """
    written = True
    if asked.json:
        written = output.attempt(asked.json, lambda: output.write(asked.json, _json(outcome)))
    if asked.html:
        written = output.attempt(asked.html, lambda: output.write(asked.html, _html(outcome))) and written
    if not asked.quiet:
        output.attempt("the report", lambda: show(outcome, asked.every))
    return written


def _json(outcome: Report | Result) -> str:
    import json

    from hasten.report.json import document

    return json.dumps(document(outcome), indent=1) + "\n"


def _html(outcome: Report | Result) -> str:
    from hasten.report.html import page

    return page(outcome)


def show(outcome: Report | Result, every: bool) -> None:
    """The report on stderr, in the terminal's width; in colours where it is a terminal and NO_COLOR is not set."""
    from rich.console import Console

    from hasten.core.report import Result
    from hasten.report import text

    if isinstance(outcome, Result):
        page = text.render_result(outcome, every=every)
    else:
        page = text.render(outcome, every=every)
    try:
        console = Console(stderr=True, highlight=False, emoji=False, markup=False)
        console.print()
        console.print(page, soft_wrap=True)
    except BrokenPipeError:
        pass


def leave(code: int) -> int:
    """The script's own exit code; if a signal ended it, end by the same signal and leave no second core dump."""
    if code >= 0:
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    if code == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)
    import resource

    from hasten.seams import launch

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    launch.leave_as(code)
    return 128 - code


if __name__ == "__main__":
    sys.exit(main())

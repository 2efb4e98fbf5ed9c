"""The two doors as functions: explain a script, speed up a script."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import hasten
from hasten.core.codec import decode
from hasten.core.errors import PlanRefused, UsageError, unforeseen
from hasten.core.facts import FitFacts
from hasten.core.finding import Finding
from hasten.core.plan import Plan, sha256_of_file
from hasten.core.report import Outcome, Report, Result
from hasten.core.trace import Ceilings, Trace
from hasten.measure import machine
from hasten.seams import launch

FITTED = "the script trains by scikit-learn, whose steps cannot be watched; one thing can be said"
TOO_SHORT = "the script ended before there were enough steps for a trial"
LEAST_STEPS = 4  # below which nothing is said of what was seen
Pathish = str | os.PathLike[str]


def explain(
    script: Pathish,
    args: Sequence[str] = (),
    *,
    module: bool = False,
    steps: int = 0,
    ceilings: bool = True,
    quiet: bool = False,
    stdout: Any = None,
) -> Report:
    """Run an unmodified training script and explain where its time goes.

    Args:
        script: path of the script, or a module's name with ``module=True``.
        args: its command-line arguments.
        module: run as ``python -m``.
        steps: stop the script after so many optimizer steps; 0 lets it run to its end.
        ceilings: whether to measure ceilings in forked children.
        quiet: tell no progress on stderr; what goes wrong is told all the same.
        stdout: where the script's stdout goes (as for :class:`subprocess.Popen`).

    Returns:
        the report; ``report.exit_code`` is the script's own.

    Raises:
        UsageError: there is no such script, or an argument is wrong.
    """
    if not isinstance(steps, int) or steps < 0:
        raise UsageError(f"steps={steps!r} is no number of steps", "it counts from 1 on; 0 is no limit", "steps=200")
    config = {"mode": "explain", "steps": steps, "ceilings": ceilings, "quiet": quiet}
    argv = launch.command(os.fspath(script), args, module)
    with launch.session_folder(config) as folder:
        code = launch.run(argv, folder, stdout)
        try:
            return _with_reason(_report(folder, argv, code), ceilings)
        except Exception as error:
            return _failed(argv, code, error)


def run(
    script: Pathish,
    args: Sequence[str] = (),
    *,
    module: bool = False,
    budget: float | None = None,
    allow: str = "equivalent",
    plan: Pathish | Plan | None = None,
    save_plan: Pathish | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    quiet: bool = False,
    stdout: Any = None,
) -> Result:
    """Run an unmodified training script, make it faster while it runs, and prove it.

    Args:
        script, args, module, quiet, stdout: as for :func:`explain`.
        budget: seconds that trials may take; by default the smaller of 120 and 5 % of the predicted job.
        allow: ``"identical"``, ``"equivalent"`` or ``"approximate"``: the most a remedy may change.
        plan: replay this plan without trials.
        save_plan: where the plan is written; by default nowhere.
        only, skip: names of remedies to try, or not to try.

    Raises:
        UsageError: there is no such script or plan, or an argument is wrong.
        PlanRefused: the plan no longer fits the script, the versions or the machine.
    """
    argv = launch.command(os.fspath(script), args, module)
    # A module or folder is among the plan's sources by the file that runs; a pipe can be read only once.
    identity = sha256_of_file(script) if not module and os.path.isfile(script) else ""
    config: dict[str, Any] = {
        "mode": "run",
        "quiet": quiet,
        "budget": _budget(budget),
        "allow": _allowed(allow),
        "only": _remedies("only", only),
        "skip": _remedies("skip", skip),
        "script": os.fspath(script),
        "script_sha256": identity,
        "folder": os.getcwd() if module else os.path.dirname(os.path.abspath(script)),
        "machine": machine.machine(),
    }
    environment: dict[str, str] = {}
    if plan is not None:
        loaded = plan if isinstance(plan, Plan) else Plan.load(plan)
        if not identity and loaded.script != config["script"]:
            raise PlanRefused(f"the plan is one for {loaded.script}", "a typing error", "make a new one without --plan")
        loaded.check(identity, machine.versions(), config["machine"], config["folder"])
        from hasten.core.codec import encode

        config["plan"] = encode(loaded)
        environment = _started_with(loaded)
    with launch.session_folder(config) as folder:
        code = launch.run(argv, folder, stdout, more=environment)
        try:
            result = _result(folder, argv, code)
        except Exception as error:
            result = Result(report=_failed(argv, code, error))
    if save_plan is not None and result.plan is not None and plan is None:
        result.plan.save(save_plan)
        result = dataclasses.replace(result, plan_path=os.fspath(save_plan))
    options = _options(budget, allow, only, skip) if plan is None else _replayed(plan)
    return dataclasses.replace(result, options=options)


def _started_with(plan: Plan) -> dict[str, str]:
    """Environment variables that the plan's remedies need from the start.

    Raises:
        PlanRefused: it holds remedies or settings that this version does not have.
    """
    from hasten.rules import remedy_types

    found: dict[str, str] = {}
    for step in plan.steps:
        try:
            remedy = remedy_types()[step.remedy](**step.settings)
            types = get_type_hints(type(remedy))
            if any(not isinstance(value, types[name]) for name, value in step.settings.items()):
                raise TypeError
            found |= remedy.environment()
        except (KeyError, TypeError):
            raise PlanRefused(
                f"the plan holds {step.remedy} with the settings {step.settings}, which this version does not have",
                "it was edited, or written by another version of hasten",
                "make a new plan with `hasten run`",
            ) from None
    return found


def _allowed(allow: str) -> str:
    if allow not in ("identical", "equivalent", "approximate"):
        raise UsageError(
            f"allow={allow!r} is no fidelity", "a typing error", "use identical, equivalent or approximate"
        )
    return allow


def _budget(seconds: float | None) -> float | None:
    if seconds is not None and not (isinstance(seconds, int | float) and 0 <= seconds < math.inf):
        raise UsageError(f"budget={seconds!r} is no number of seconds", "it counts from 0 on", "budget=60")
    return seconds


def _replayed(plan: Pathish | Plan) -> tuple[str, ...]:
    """How the command line asks for a replay; of a plan that lies in no file it cannot."""
    return () if isinstance(plan, Plan) else ("--plan", os.fspath(plan))


def _options(budget: float | None, allow: str, only: Sequence[str], skip: Sequence[str]) -> tuple[str, ...]:
    """What bounds the trials, as the command line has it: names, each with its value."""
    words = [] if budget is None else ["--budget", f"{budget:g}"]
    words += ["--allow", allow] if allow != "equivalent" else []
    return (*words, *(word for how, names in (("--only", only), ("--skip", skip)) for n in names for word in (how, n)))


def _remedies(option: str, names: Sequence[str]) -> list[str]:
    from hasten.rules import remedy_types

    if isinstance(names, str):
        raise UsageError(f"{option}={names!r} is one text", "it takes several names", f"{option}=[{names!r}]")
    for name in names:
        if name not in remedy_types():
            near = difflib.get_close_matches(name, remedy_types(), 1)
            change = near[0] if near else f"one of {', '.join(remedy_types())}"
            raise UsageError(f"there is no remedy {name!r}", "a typing error", change)
    return list(names)


def _read(folder: Path, pattern: str) -> list[Any]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob(pattern))]


def _failed(argv: list[str], code: int, error: Exception) -> Report:
    """What is left when hasten fails after the script has ended: how the script ended."""
    sys.stderr.write(unforeseen("could not read what was measured", error))
    return Report(None, (), tuple(argv), code, "hasten failed; there is no report", 0, hasten.__version__)


def _report(folder: Path, argv: list[str], code: int) -> Report:
    from hasten.rules import find_fits, ranked

    traces = [decode(Trace, data) for data in _read(folder, "trace-*.json")]
    by_library = find_fits([decode(FitFacts, fit) for fits in _read(folder, "fits-*.json") for fit in fits])
    if not traces:
        message = FITTED if by_library else _nothing(folder, code)
        return Report(None, ranked(by_library), tuple(argv), code, message, 0, hasten.__version__)
    trace = max(traces, key=lambda t: (t.rank == 0, t.steps))
    message = ""
    if trace.steps < LEAST_STEPS:
        counted = "only 1 step was seen" if trace.steps == 1 else f"only {trace.steps} steps were seen"
        message = f"{counted}; that is too few to say where the time goes"
    seen = _found(trace) if not message and trace.step is not None and not math.isnan(trace.step_seconds) else []
    return Report(trace, ranked([*seen, *by_library]), tuple(argv), code, message, len(traces) - 1, hasten.__version__)


def _with_reason(report: Report, asked: bool) -> Report:
    """The report that says why there are no ceilings, where they were never measured."""
    trace = report.trace
    if trace is None or trace.ceilings != Ceilings():
        return report
    why = _too_short(trace, "to measure them and to ask the data twice") if asked else "not asked for"
    return dataclasses.replace(report, trace=dataclasses.replace(trace, ceilings=Ceilings(why_not=why)))


def _too_short(trace: Trace, purpose: str) -> str:
    """How much more of the script it would have taken before hasten measures or tries anything."""
    from hasten.seams.window import LEAST_SECONDS, LEAST_STEPS, WARM

    step = trace.step_median
    needed = WARM + max(LEAST_STEPS, math.ceil(LEAST_SECONDS / step)) if step > 0 else WARM + LEAST_STEPS
    missing = needed - trace.steps
    if missing <= 0:
        return "hasten stopped watching before its first look was over"
    about = f"about {float(f'{missing:.2g}'):.0f}" if missing > 99 else str(missing)
    return f"the script ended after {trace.steps} steps, {about} too few {purpose}; give it more epochs or data"


def _found(trace: Trace) -> list[Finding]:
    """Findings of all rules; one that fails says so and takes neither the others nor the exit code with it."""
    from hasten.rules import all_rules, found_by

    out: list[Finding] = []
    for rule in all_rules():
        try:
            out.extend(found_by(rule, trace))
        except Exception as error:
            sys.stderr.write(unforeseen(f"the rule {rule.code} failed", error))
    return out


def _nothing(folder: Path, code: int) -> str:
    if code < 0:
        return _killed(folder, code)
    imported = not (folder / launch.WAITING).exists()
    if imported and not _read(folder, "idle-*.json"):
        return (
            f"torch was imported, but nothing of what was seen could be written: the disk of {folder.parent} was full, "
            "or the process was replaced or ended without Python's doing"
        )
    if code:
        return "the script failed before it trained; its own message stands above"
    if not imported:
        return "torch was never imported, so there was no training to explain"
    return (
        "torch was imported, but no optimizer of torch.optim stepped and nothing called backward; "
        "if training happens in another program that this script starts, run hasten on that program"
    )


def _killed(folder: Path, code: int) -> str:
    """What a signal did not leave time for."""
    known = -code in {s.value for s in signal.Signals}
    name = signal.Signals(-code).name if known else f"signal {-code}"
    if next(folder.glob("trial-*"), None) is not None:  # where children of trials leave what they found
        return f"{name} ended the script while copies of it were tried: what was measured before is lost"
    return f"{name} ended the script before enough was seen to say where the time goes"


def _result(folder: Path, argv: list[str], code: int) -> Result:
    report = _report(folder, argv, code)
    outcomes = _read(folder, "outcome-*.json")
    if not outcomes:
        return Result(report=report, message=report.message or TOO_SHORT)
    result = decode(Outcome, max(outcomes, key=lambda o: o["steps"]))
    if result.plan is None and not result.message:
        trace = report.trace
        why = TOO_SHORT if trace is None else f"no trials: {_too_short(trace, 'for a trial')}"
        result = dataclasses.replace(result, message=why)
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    return Result(report=report, **fields)

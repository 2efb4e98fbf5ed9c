"""What a report says, before it is drawn: rows, names and sentences that text and HTML share."""

from __future__ import annotations

import itertools
import math
import shlex
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hasten.core.facts import Place
from hasten.core.finding import Finding
from hasten.core.interval import Interval
from hasten.core.plan import Step
from hasten.core.report import Report, Result, Trial
from hasten.core.trace import Ceilings, Epoch, Growth, Trace
from hasten.report.figures import duration, figure, level_of, speedup, time_unit, times
from hasten.report.tree import same_line

STOPPED = (-signal.SIGINT, -signal.SIGTERM)  # exit codes of a script that was ended from outside
LEAST_BUDGET = 60  # seconds: what is suggested where a smaller budget left something untried
BUSY = 0.25  # cores' worth of other work from which on it is told
EPOCHS = 6  # lines of the epoch table before some are left out


# -- the head -----------------------------------------------------------------------------------------------------


def command_words(report: Report) -> tuple[str, ...]:
    """The script with its arguments, without the interpreter: what follows ``hasten explain``."""
    return report.command[1:]


def shell(words: Sequence[str]) -> str:
    """Words as one line that a shell reads back."""
    return shlex.join(words)


def watched(trace: Trace, total: int = 0) -> str:
    """How much was seen.

    Args:
        total: steps that the script took in all, where it went on after the look at it.
    """
    total = max(trace.steps, total)
    steps = "1 step" if total == 1 else f"{total} steps"
    if trace.window and trace.window != total:
        steps = f"{trace.window} of {total} steps"
    text = f"{steps} watched"
    if trace.window and trace.step is not None and trace.step.known:
        text += f", {duration(trace.window * trace.step.value)} of training"
    if trace.predicted_steps > total and trace.ended != "finished":
        text += f", {trace.predicted_steps} expected"
    return text


def shared(trace: Trace | None) -> str:
    """That others used the machine, too, where that may have mattered."""
    if trace is None or not trace.usage.strangers >= BUSY:
        return ""
    return f"others kept {trace.usage.strangers:.1f} of {trace.process.cores} cores busy meanwhile"


def machine(trace: Trace) -> str:
    """Processor, cores and versions."""
    facts = trace.machine
    versions = facts.get("versions", {})
    hardware = [str(facts["cpu"])] if facts.get("cpu") else []
    if facts.get("cores"):
        hardware.append(f"{facts['cores']} cores")
    hardware.extend(f"{_proper(name)} {version}" for name, version in sorted(versions.items(), key=_torch_first))
    return ", ".join(hardware)


def _proper(name: str) -> str:
    return {"python": "Python", "numpy": "NumPy"}.get(name, name)


def _torch_first(item: tuple[str, str]) -> tuple[bool, bool, str]:
    return item[0] != "torch", item[0] == "python", item[0]


def ending(report: Report) -> str:
    """How the script ended, where it did not just finish."""
    how = report.trace.ended if report.trace is not None else ""
    how = "" if how in ("finished", "os._exit") else how
    code = report.exit_code
    if code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
        cause = "; the usual cause is that memory ran out" if -code == signal.SIGKILL else ""
        return f"the script was ended by {name}{cause}"
    if code:
        return f"the script ended with exit code {code}" + (f": {how}" if how else "")
    return f"the script {how}" if how.startswith("stopped") else how


def startup(trace: Trace) -> str:
    """What passed before the first step counted, in one line; empty where nothing is known."""
    said = []
    if math.isfinite(trace.startup_seconds):
        said.append(f"{duration(trace.startup_seconds)} until {first(trace)}")
    if math.isfinite(trace.import_seconds):
        said.append(f"{duration(trace.import_seconds)} of it to import torch")
    if math.isfinite(trace.first_step_seconds):
        said.append(f"the first step took {duration(trace.first_step_seconds)}")
    return ", ".join(said)


def first(trace: Trace) -> str:
    """What ends the start-up."""
    return "the first batch" if trace.loaders else "the first step"


def remarks(report: Report) -> list[str]:
    """Sentences that qualify everything else."""
    said = list(report.trace.notes) if report.trace is not None else []
    if report.other_processes:
        many = report.other_processes
        said.append(
            f"{many} more process{'es' if many > 1 else ''} trained; this is rank 0, or the one with most steps"
        )
    return said


# -- ceilings, growth, epochs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ceiling:
    """A step time with one side made free (seconds per step), and the speed-up that would be."""

    name: str
    seconds: Interval | None
    speedup: Interval | None
    meaning: str = ""

    @property
    def gains(self) -> bool:
        """Whether this side made free can bring anything: alone, the other one takes no longer than all together."""
        return self.speedup is None or not self.speedup.known or self.speedup.high >= 1

    @property
    def shown(self) -> tuple[str, str]:
        """The speed-up and its interval in words."""
        if not self.gains:
            return "no gain", ""
        return times(self.speedup), speedup(self.speedup).span if self.meaning else ""


def ceilings(trace: Trace) -> list[Ceiling]:
    """As it is, data free, model free; empty where neither ceiling was measured."""
    c = trace.ceilings
    if c.data_free is None and c.model_free is None:
        return []
    as_is = c.as_is if c.as_is is not None else trace.step
    return [
        Ceiling("as it is", as_is, Interval.exact(1.0, "ratio")),
        Ceiling("data free", c.data_free, c.data_free_ratio or quotient(as_is, c.data_free), "the model alone"),
        Ceiling("model free", c.model_free, c.model_free_ratio or quotient(as_is, c.model_free), "the data alone"),
    ]


def quotient(a: Interval | None, b: Interval | None) -> Interval | None:
    """``a / b`` of two independent times; the errors' squares are added on the logarithmic scale."""
    if a is None or b is None or not (a.known and b.known) or min(a.value, b.value) <= 0:
        return None
    ratio = a.value / b.value
    spread = math.hypot(*((x.high - x.low) / 2 / x.value for x in (a, b)))
    return Interval(ratio, ratio / math.exp(spread), ratio * math.exp(spread), "ratio", a.level, min(a.n, b.n))


def why_no_ceilings(c: Ceilings) -> str:
    """The reason why a ceiling is unknown."""
    return c.why_not or "not measured"


@dataclass(frozen=True)
class Slope:
    """Growth of one quantity per 1000 steps, in a unit that reads well."""

    name: str
    unit: str
    per_thousand: Interval
    factor: float


def slopes(growth: Growth) -> list[Slope]:
    """Only what grows and matters."""
    out = []
    if growth.grows and growth.seconds is not None:
        unit = time_unit(abs(growth.seconds.value) * 1000)
        out.append(Slope("step time", unit.name, growth.seconds, 1000 * unit.per_second))
    if growth.leaks and growth.memory is not None:
        out.append(Slope("memory", "MB", growth.memory, 1000 / 1e6))
    return out


def growth_places(growth: Growth) -> list[tuple[Place, str]]:
    """Lines to blame, with the words under the caret."""
    if not (growth.grows or growth.leaks):
        return []
    out: list[tuple[Place, str]] = []
    if growth.variable_place is not None:
        out.append((growth.variable_place, f"`{growth.variable}` keeps the graphs of earlier steps alive"))
    if growth.place is not None and growth.grows and not same_line(growth.place, growth.variable_place):
        slower = f", {duration(growth.place_seconds)} a step" if math.isfinite(growth.place_seconds) else ""
        out.append((growth.place, f"this line grew most{slower}"))
    return out


def growth_sentence(growth: Growth) -> str:
    """What the growth amounts to over the run."""
    if growth.grows and math.isfinite(growth.relative):
        return f"a step takes {growth.relative * 100:.0f} % longer at the end of the watched run than at its start"
    return ""


def epochs(trace: Trace, most: int = EPOCHS) -> list[tuple[int, Epoch] | None]:
    """Numbered epochs, first, middle and last; None stands for two or more left out. Empty for a single epoch, and for
    a script that has none: it feeds its steps from no loader, or asks for the first batch only (``next(iter(…))``)."""
    numbered = list(enumerate(trace.epochs, 1))
    if len(numbered) < 2 or trace.loader is None or max(e.steps for e in trace.epochs) < 2:
        return []
    if len(numbered) <= most + 2:
        return list(numbered)
    middle = len(numbered) // 2
    return [*numbered[:2], None, numbered[middle], None, *numbered[-2:]]


# -- findings, trials, next ---------------------------------------------------------------------------------------


def by_hand(result: Result) -> tuple[Finding, ...]:
    """Findings that no remedy can cure from outside."""
    return tuple(f for f in result.report.findings if not f.remedies)


def methods(result: Result) -> str:
    """How the trials were paired, each way once, with the number of pairs."""
    seen: dict[str, list[int]] = {}
    for trial in result.trials:
        if trial.method:
            seen.setdefault(trial.method, []).append(trial.pairs)
    said = [f"{how} ({_range(pairs)} pair{'s' if max(pairs) != 1 else ''})" for how, pairs in seen.items()]
    measured = [t for t in result.trials if t.pairs]
    if any(t.verdict in ("kept", "replaced") for t in measured[:-1]):
        said.append("each on top of those kept before it, predicted for the script as it was")
    return "; ".join(said)


def _range(pairs: list[int]) -> str:
    return f"{min(pairs)}" if min(pairs) == max(pairs) else f"{min(pairs)}–{max(pairs)}"


def explained_by(trace: Trace) -> str:
    """How the explanation was measured."""
    end = {"optimizer": "a step ends when the optimizer has stepped", "backward": "a step ends with backward"}
    said = [end.get(trace.clock, f"a step ends with {trace.clock}"), "intervals from the spread of batch means"]
    if trace.ceilings.method:
        said.append(f"ceilings: {trace.ceilings.method}")
    return "; ".join(said)


def cost(result: Result) -> str:
    """What the trials cost and when that is repaid; empty where there were none."""
    if not result.cost_seconds:
        return ""
    text = duration(result.cost_seconds)
    if not any(t.pairs for t in result.trials) and result.cost_seconds > result.budget_seconds:
        return f"{text} for looking; {duration(result.budget_seconds)} were allowed, too little for a trial"
    if math.isfinite(result.budget_seconds):
        text += f" of {duration(result.budget_seconds)} allowed"
    if math.isfinite(result.payback_seconds):
        return f"{text}, repaid after {duration(result.payback_seconds)} of training"
    return f"{text}, not repaid: nothing was gained" if not kept(result) else text


def kept(result: Result) -> tuple[Trial, ...]:
    return tuple(t for t in result.trials if t.verdict == "kept")


def replayed(result: Result) -> tuple[Step, ...]:
    """Remedies of a plan that was applied without trials."""
    return result.plan.steps if result.plan is not None and not result.trials else ()


def proof(result: Result) -> Iterator[tuple[str, str]]:
    """What was proved, how, and what it cost: names with sentences."""
    for broken in result.broken:
        yield "broken", broken
    if result.proof:
        yield "weights", result.proof
    if result.before is not None and result.after is not None and (kept(result) or replayed(result)):
        yield "step", _before_and_after(result.before, result.after) + _meanwhile(result)
    others = shared(result.report.trace) if kept(result) else ""
    for name, said in (
        ("method", methods(result)),
        ("machine", others and f"{others}: what was kept suits a machine as busy"),
        ("cost", cost(result)),
        ("plan", result.plan_path),
    ):
        if said:
            yield name, said


def _before_and_after(before: Interval, after: Interval) -> str:
    unit = time_unit(before.value)
    a, b = (figure(x, unit.per_second) for x in (before, after))
    level = level_of([before, after])
    return f"median {a.value} {a.plus_minus} {unit.name} before, {b.value} {b.plus_minus} {unit.name} after ({level})"


def _meanwhile(result: Result) -> str:
    """Where steps got longer behind a gain, or shorter by more than it: what that means."""
    before, after, all_kept = result.before, result.after, kept(result)
    alone = all_kept[0].ratio if len(all_kept) == 1 else None
    gained = result.overall if result.overall is not None else alone
    if before is None or after is None:
        return ""
    some = gained if gained is not None else next((t.ratio for t in all_kept), None)
    told = "meanwhile, by themselves or by what else runs here: pairs of neighbours tell the gain"
    if some is not None and some.low > 1 and after.low > before.high:
        return f"; steps got longer {told}"
    if gained is not None and before.low > gained.high * after.high:
        return f"; that is more than the gain: steps got shorter {told}"
    return ""


def next_command(outcome: Report | Result) -> str:
    """What to type next."""
    report = outcome.report if isinstance(outcome, Result) else outcome
    words = command_words(report)
    if report.trace is None and report.findings:
        return shell(("hasten", "rule", report.findings[0].code))
    door = "run" if isinstance(outcome, Result) else "explain"
    if report.trace is None:
        if report.exit_code in STOPPED:
            return shell(("hasten", door, *(outcome.options if isinstance(outcome, Result) else ()), *words))
        return shell(("python", *words)) if report.exit_code else f"hasten {door} SCRIPT, with the script that trains"
    if isinstance(outcome, Result):
        return _after_run(outcome, words)
    if any(f.remedies for f in report.findings):
        return shell(("hasten", "run", *words))
    if report.message:  # it says what is missing
        return shell(("hasten", "explain", *words))
    if report.findings:
        return shell(("hasten", "rule", report.findings[0].code))
    return shell(("hasten", "run", *words))


def _after_run(result: Result, words: tuple[str, ...]) -> str:
    report = result.report
    if kept(result) and result.plan_path:
        return shell(("hasten", "run", "--plan", result.plan_path, *words))
    if report.exit_code in STOPPED and not result.trials:
        return shell(("hasten", "run", *result.options, *words))
    if any("the script ended" in t.why for t in result.trials):  # more time or leave gives trials no more steps
        return shell(("hasten", "explain", *words))
    if any("budget" in t.why for t in result.trials):  # first what the user has allowed and there was no time for
        spent = math.ceil(result.budget_seconds if math.isfinite(result.budget_seconds) else 0)
        return shell(("hasten", "run", *_with(result.options, "--budget", str(max(LEAST_BUDGET, 2 * spent))), *words))
    asked = {t.fidelity for t in result.trials if t.verdict == "not tried" and "--allow" in t.why}
    for fidelity in ("equivalent", "approximate"):
        if fidelity in asked:
            return shell(("hasten", "run", *_with(result.options, "--allow", fidelity), *words))
    shown = by_hand(result)
    if shown:
        return shell(("hasten", "rule", shown[0].code))
    return shell(("hasten", "explain", *words))


def _with(options: Sequence[str], name: str, value: str) -> tuple[str, ...]:
    """The options with one of them set; each is a name and its value."""
    others = [pair for pair in zip(options[::2], options[1::2], strict=True) if pair[0] != name]
    return (*itertools.chain.from_iterable(others), name, value)

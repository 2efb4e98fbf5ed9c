"""What a user is handed: the explanation, and the outcome of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hasten.core.finding import Finding
from hasten.core.interval import Interval
from hasten.core.plan import Plan
from hasten.core.trace import Trace


@dataclass(frozen=True)
class Trial:
    """A paired A/B of one remedy.

    Attributes:
        remedy: as ``LoaderWorkers(2)``.
        fidelity: what it promised.
        predicted: speed-up predicted by its finding.
        ratio: measured speed-up of a step (without / with), None when it was not tried.
        cpu_ratio: the same in CPU time of the process, the second witness.
        pairs: how many pairs stand behind it.
        verdict: "kept", "replaced" (kept until another took its place or made it cost), "dropped", "cannot tell",
            "broken promise", "not tried".
        why: one line.
        method: "fork, step by step", "fork, child by child", "processes", …
        fidelity_found: what the comparison of weights showed.
        seconds: what the trial cost.
    """

    remedy: str
    name: str
    settings: dict[str, Any]
    fidelity: str
    rule: str = ""
    predicted: Interval | None = None
    ratio: Interval | None = None
    cpu_ratio: Interval | None = None
    pairs: int = 0
    verdict: str = "not tried"
    why: str = ""
    method: str = ""
    fidelity_found: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """The outcome of ``explain``. ``trace`` is None when no process trained."""

    trace: Trace | None
    findings: tuple[Finding, ...] = ()
    command: tuple[str, ...] = ()
    exit_code: int = 0
    message: str = ""
    other_processes: int = 0
    version: str = ""

    def __repr__(self) -> str:
        """What fits a line of a notebook."""
        seen = f"{self.trace.steps} steps" if self.trace is not None else self.message or "no steps"
        return f"Report({seen}; findings: {_list(f.code for f in self.findings)}; exit code {self.exit_code})"


@dataclass(frozen=True)
class Outcome:
    """What trials in the watched process led to.

    Attributes:
        trials: every remedy considered, in order, with its verdict.
        plan: the kept remedies.
        before, after: median seconds per step, before the trials and after the plan took hold.
        overall: speed-up of all kept remedies together, paired in one trial.
        cost_seconds: what all trials cost.
        budget_seconds: what they were allowed to cost.
        payback_seconds: training seconds after which the cost is repaid; infinite where nothing was gained.
        proof: what the comparison of weights showed for the whole plan.
        broken: promises that were broken (exit code 3 with --strict).
        message: why there were no trials, if there were none.
        steps: that the script took in all.
    """

    trials: tuple[Trial, ...] = ()
    plan: Plan | None = None
    before: Interval | None = None
    after: Interval | None = None
    overall: Interval | None = None
    cost_seconds: float = 0.0
    budget_seconds: float = math.nan
    payback_seconds: float = math.inf
    proof: str = ""
    broken: tuple[str, ...] = ()
    message: str = ""
    steps: int = 0


@dataclass(frozen=True)
class Result(Outcome):
    """The outcome of ``run``: what was measured before the trials, and what the trials led to."""

    report: Report = field(default_factory=lambda: Report(None))
    plan_path: str = ""
    options: tuple[str, ...] = ()  # what bounded the trials, or the plan, as typed before the script

    @property
    def exit_code(self) -> int:
        """The script's own exit code."""
        return self.report.exit_code

    def __repr__(self) -> str:
        """What fits a line of a notebook."""
        kept = _list(map(str, self.plan.steps if self.plan is not None else ()))
        gain = ""
        if self.overall is not None:
            gain = f", {self.overall.value:.2f}× ({self.overall.low:.2f}–{self.overall.high:.2f})"
        broken = f"; broken promises: {len(self.broken)}" if self.broken else ""
        tried = sum(bool(t.pairs) for t in self.trials)
        return f"Result(kept: {kept}{gain}; {tried} trials{broken}; exit code {self.exit_code})"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"

"""Remedies that do nothing, or break their promise on purpose, and how a test has them tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.finding import Rule
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo

TRIAL_SECONDS = 1.0


def nothing() -> None:
    return None


@dataclass(frozen=True)
class Nothing(Remedy):
    """Changes nothing; tried step by step."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.PROCESS

    def on(self, target: Any = None) -> Undo:
        return nothing


@dataclass(frozen=True)
class NothingInTurns(Nothing):
    """Changes nothing; tried in two children."""

    grain: ClassVar[Grain] = Grain.CHILD


@dataclass(frozen=True)
class NothingNew(Nothing):
    """Changes nothing; tried in two children with new iterators."""

    grain: ClassVar[Grain] = Grain.CHILD
    seam: ClassVar[Seam] = Seam.LOADER


KINDS: dict[str, Remedy] = {"step": Nothing(), "child": NothingInTurns(), "loader": NothingNew()}


def install(asked: dict[str, Any]) -> None:
    """Have ``asked["remedies"]`` tried and kept."""
    from hasten.run import inside, search, trial
    from hasten.seams import window

    window.LEAST_SECONDS = 0.2
    search.LEAST_TRIAL = 0.5
    compare = trial.TrialRoom.compare
    trial.TrialRoom.compare = lambda self, a, b, s: compare(self, a, b, min(s, TRIAL_SECONDS))  # type: ignore[method-assign]
    remedies = tuple(KINDS[name] for name in asked["remedies"])
    rule = Rule("T999", "test", lambda trace: (), "")

    def find(trace: Any) -> Any:
        return (rule.finding("a test", None, (1.0, 2.0), remedies=remedies),)

    search.find = find  # type: ignore[attr-defined]
    search._verdict = lambda measured, remedy: ("kept", "") if measured.pairs.wall else ("cannot tell", measured.why)
    inside.remedy_types = lambda: {type(r).__name__: type(r) for r in remedies}
    for name in asked.get("patches", ()):
        globals()[name]()

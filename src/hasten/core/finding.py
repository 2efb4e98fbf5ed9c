"""One reason why a script is slow, and the rule that found it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hasten.core.facts import Place
from hasten.core.interval import Interval
from hasten.core.remedy import Remedy
from hasten.core.trace import Trace

LEAST_TOLD = 1.025  # predicted best case below which a finding is not shown before --all: 1.02× is no reason to read on


def ms(seconds: float) -> str:
    """Milliseconds in a sentence, in two digits: means of noisy steps have no more."""
    value = 1000 * seconds
    return f"{float(f'{value:.2g}') if value >= 100 else value:.{0 if value >= 10 else 2 if value < 1 else 1}f} ms"


def many(count: int, what: str) -> str:
    """So many of something that takes an s where it is not one."""
    return f"{count} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Finding:
    """One reason, with its place, evidence and predicted speed-up of the whole step.

    Attributes:
        code, name: the rule's.
        message: what is wrong with its measured cost, one line.
        label: the words under the caret.
        place: where.
        predicted: speed-up of a step if cured, a ratio.
        remedies: alternatives that ``run`` tries, best guess first.
        advice: what to change by hand where no remedy applies from outside.
        notes: further evidence.
    """

    code: str
    name: str
    message: str
    place: Place | None
    predicted: Interval
    label: str = ""
    remedies: tuple[Remedy, ...] = ()
    advice: str = ""
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Rule:
    """Finds one kind of trouble in a trace.

    Attributes:
        code: a letter for the family (D data, C copies, M model, O optimizer, S synchronisation and logging,
            E evaluation and checkpoints, G growth, W whole job) and three digits.
        name: the trouble, in kebab case.
        detect: yields findings from a trace; yields nothing from an empty one.
        doc: the rule file's docstring, the source of its documentation.
    """

    code: str
    name: str
    detect: Callable[[Trace], Iterable[Finding]]
    doc: str
    remedies: tuple[type[Remedy], ...] = ()

    def finding(
        self,
        message: str,
        place: Place | None,
        predicted: tuple[float, float],
        *,
        label: str = "",
        remedies: tuple[Remedy, ...] = (),
        advice: str = "",
        notes: tuple[str, ...] = (),
    ) -> Finding:
        """A finding of this rule; ``predicted`` is the range of the step's speed-up."""
        low, high = max(1.0, min(predicted)), max(1.0, *predicted)
        interval = Interval((low * high) ** 0.5, low, high, "ratio", 0.9, 0)
        return Finding(self.code, self.name, message, place, interval, label, remedies, advice, notes)


def worth_telling(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings that may gain something to speak of; all of them where none does."""
    every = tuple(found)
    return tuple(f for f in every if not f.predicted.high < LEAST_TOLD) or every
